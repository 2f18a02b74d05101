/**
 * A private Redis for `up` and `demo`: one process, one folder, loopback only, every write on disk before it is answered.
 *
 * Needs `redis-server` >= 7 or `valkey-server` >= 8 on PATH. Never talks to a server that isn't this folder's own.
 *
 * One folder, one server. The folder pins its port in a create-only file (`redis-port-<n>`, the highest n counts),
 * so of two servers started at once the second can't bind, and Redis binds before it touches its data. A server that
 * outlived its parent is found on that port, proved by `CONFIG GET dir`, and adopted. Only if a stranger holds the
 * port is the next one pinned.
 *
 * The server is in a process group of its own: Ctrl-C reaches this process, which closes its clients first.
 * Who ends it stands in `redis-ownership.ts`. All errors are one line.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type RedisBinary, requireRedisBinary } from "./redis-binary.ts";
import { knownDead, lastLogLines, logPath, type Pin, pinnedPort, prepareFolder, prepareLog } from "./redis-folder.ts";
import { HOST, whoListens } from "./redis-listener.ts";
import { own, type RedisServer } from "./redis-ownership.ts";
import { errorCode, RedisServerError } from "./redis-server-error.ts";

/** For a server that doesn't answer at all; one that answers "loading" may take LOADING_TIMEOUT_MS. */
const START_TIMEOUT_MS = 30_000;
const LOADING_TIMEOUT_MS = 600_000;
const MAX_PORTS_TRIED = 5;

export type RedisServerOptions = {
  /** The server's own folder; made if missing. */
  readonly dataDir: string;
  /** Where binaries are looked for; default: PATH. */
  readonly searchPath?: string;
  /** Told once if the server ends without `close()`; the reason is one line with the last of its log. */
  readonly onExit?: (reason: string) => void;
};

export async function startRedisServer(options: RedisServerOptions): Promise<RedisServer> {
  const dir = await prepareFolder(options.dataDir);

  let pin: Pin | null = null;
  for (let tried = 0; tried < MAX_PORTS_TRIED; tried++) {
    pin = await pinnedPort(dir, pin);
    const { port } = pin;
    let listener = await whoListens(port, dir);
    // Only here: a silent one that was just faster than our child could be ours, though an older one is noted as dead.
    if (listener.kind === "silent" && (await knownDead(dir))) continue;

    if (listener.kind === "nobody") {
      const logStart = await prepareLog(dir);
      const child = await spawnServer(await requireRedisBinary(options.searchPath), dir, port);
      const pid = await readyOrGone(child, port, dir);
      if (pid !== null) return await own({ dir, port, pid, child }, options.onExit);

      listener = await whoListens(port, dir); // perhaps whoever was faster
      const lines = await lastLogLines(dir, logStart);
      if (listener.kind === "nobody" && !/address already in use/i.test(lines)) {
        throw new RedisServerError(`the embedded Redis in ${dir} ended while starting: ${lines}`);
      }
    }

    if (listener.kind === "ours") {
      return await own({ dir, port, pid: await loaded(port, dir), child: null }, options.onExit);
    }
    if (listener.kind === "silent") {
      throw new RedisServerError(
        `port ${port}, which the Redis of ${dir} uses, takes connections but doesn't answer: end the process that holds it`,
      );
    }
    // The port is a stranger's: the next one.
  }
  throw new RedisServerError(
    `the embedded Redis in ${dir} found no free port in ${MAX_PORTS_TRIED} tries; start again`,
  );
}

async function spawnServer(binary: RedisBinary, dir: string, port: number): Promise<ChildProcess> {
  const log = await open(logPath(dir), "a", 0o600);
  try {
    const child = spawn(
      binary.path,
      Object.entries({
        bind: HOST,
        port: String(port),
        "protected-mode": "yes",
        daemonize: "no",
        dir: ".",
        appendonly: "yes",
        appendfsync: "always",
        save: "",
        "maxmemory-policy": "noeviction",
      }).flatMap(([name, value]) => [`--${name}`, value]),
      { cwd: dir, detached: true, stdio: ["ignore", log.fd, log.fd] },
    );
    await once(child, "spawn");
    return child;
  } catch (error) {
    throw new RedisServerError(`${binary.path} can't be started (${errorCode(error)})`, { cause: error });
  } finally {
    await log.close();
  }
}

/** Waits until the child serves this folder (its pid), or has ended, as when another server had the port (null). */
async function readyOrGone(child: ChildProcess, port: number, dir: string): Promise<number | null> {
  let silentSince = Date.now();
  const giveUp = Date.now() + LOADING_TIMEOUT_MS;
  while (child.exitCode === null && child.signalCode === null) {
    const listener = await whoListens(port, dir);
    if (listener.kind === "ours") {
      if (listener.pid === child.pid && !listener.loading) return listener.pid;
      silentSince = Date.now();
    }
    if (Date.now() - silentSince > START_TIMEOUT_MS || Date.now() > giveUp) {
      child.kill("SIGKILL");
      throw new RedisServerError(`the embedded Redis in ${dir} did not get ready: ${await lastLogLines(dir)}`);
    }
    await sleep(20);
  }
  return null;
}

/** Waits until a running server has read its data, and answers its pid. */
async function loaded(port: number, dir: string): Promise<number> {
  for (const deadline = Date.now() + LOADING_TIMEOUT_MS; Date.now() < deadline; await sleep(50)) {
    const listener = await whoListens(port, dir);
    if (listener.kind !== "ours") break;
    if (!listener.loading) return listener.pid;
  }
  throw new RedisServerError(`the Redis that ran in ${dir} ended just now; start again: ${await lastLogLines(dir)}`);
}
