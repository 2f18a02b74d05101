/**
 * A private Redis for `up` and `demo`: one process, one folder, loopback only, every write on disk before it is answered.
 *
 * Needs `redis-server` >= 7 or `valkey-server` >= 8 on PATH. Never talks to a server that isn't this folder's own.
 *
 * One folder, one server. The folder pins its port in a create-only file (`redis-port-<n>`, the highest n counts),
 * so of two servers started at once the second can't bind, and Redis binds before it touches its data. A server that
 * outlived its parent is found on that port, proved by `CONFIG GET dir`, and adopted. Only if a stranger holds the
 * port is the next one pinned. `redis.json` notes pid and port, for people and for `doctor`.
 *
 * One server, one owner. The owner keeps a connection open under a name with its pid; while it lives, others are
 * refused in one line. A connection ends with its process, so a crashed owner blocks nobody.
 *
 * The server is in a process group of its own: Ctrl-C reaches this process, which closes its clients first.
 * `close()` or a normal end of this process ends the server; after a crash it lives on until it is adopted. It goes
 * down by itself only if killed or if its disk fails: then `onExit` is told. All errors are one line.
 *
 * ioredis is loaded on first use, so that `src/cli/setup.ts` gets the finder with Node's own modules alone.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { constants } from "node:fs";
import { access, mkdir, open, readdir, readFile, realpath, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { Redis } from "ioredis";

const HOST = "127.0.0.1";
/** Below the ports that Linux (32768) and macOS (49152) hand to outgoing connections. */
const PORTS = { from: 20_000, to: 30_000 };
const ANSWER_TIMEOUT_MS = 5_000;
/** For a server that doesn't answer at all; one that answers "loading" may take LOADING_TIMEOUT_MS. */
const START_TIMEOUT_MS = 30_000;
const LOADING_TIMEOUT_MS = 600_000;
/** Redis sees a dead owner's connection end within one turn of its loop; this is ample. */
const CLAIM_TIMEOUT_MS = 1_000;
const EXIT_TIMEOUT_MS = 5_000;
const MAX_PORTS_TRIED = 5;
const MAX_LOG_BYTES = 4 * 1024 * 1024;
const OWNER_NAME = "outlast-owner-";

export type RedisServer = {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  readonly pid: number;
  /** Whether the server was already running, left behind by a process that crashed. */
  readonly adopted: boolean;
  /** Ends the server and waits until it is gone. Its clients should be closed before. Repeating it is harmless. */
  close(): Promise<void>;
};

export type RedisServerOptions = {
  /** The server's own folder; made if missing. */
  readonly dataDir: string;
  /** Where binaries are looked for; default: PATH. */
  readonly searchPath?: string;
  /** Told once if the server ends without `close()`; the reason is one line with the last of its log. */
  readonly onExit?: (reason: string) => void;
};

/** Why there is no embedded Redis: one line that says what to do. */
export class RedisServerError extends Error {
  override readonly name = "RedisServerError";
}

export async function startRedisServer(options: RedisServerOptions): Promise<RedisServer> {
  const dir = await prepareFolder(options.dataDir);
  const log = join(dir, "redis.log");

  let pin: Pin | null = null;
  for (let tried = 0; tried < MAX_PORTS_TRIED; tried++) {
    pin = await pinnedPort(dir, pin);
    const { port } = pin;
    const adopt = async () =>
      await own({ dir, port, log, pid: await loaded(port, dir, log), child: null }, options.onExit);

    const resident = await whoListens(port, dir);
    if (resident.kind === "ours") return await adopt();
    if (resident.kind === "stranger" || (resident.kind === "silent" && (await knownDead(dir)))) continue;
    if (resident.kind === "silent") throw silentError(port, dir);

    const logStart = await sizeOf(log);
    const child = await spawnServer(await requireRedisBinary(options.searchPath), dir, port, log);
    const pid = await readyOrGone(child, port, dir, log);
    if (pid !== null) return await own({ dir, port, log, pid, child }, options.onExit);

    const winner = await whoListens(port, dir);
    if (winner.kind === "ours") return await adopt();
    if (winner.kind === "silent") throw silentError(port, dir);
    const lines = await lastLines(log, logStart);
    if (winner.kind === "nobody" && !/address already in use/i.test(lines)) {
      throw new RedisServerError(`the embedded Redis in ${dir} ended while starting: ${lines}`);
    }
  }
  throw new RedisServerError(
    `the embedded Redis in ${dir} found no free port in ${MAX_PORTS_TRIED} tries; start again`,
  );
}

// -- finding a binary ------------------------------------------------------------------------------------------------

type RedisBinary = { readonly path: string; readonly product: "Redis" | "Valkey"; readonly version: string };

/** The first server on `searchPath` that is new enough, and those that aren't. */
export async function findRedisBinary(
  searchPath: string,
): Promise<{ readonly found: RedisBinary | null; readonly tooOld: readonly RedisBinary[] }> {
  const tooOld: RedisBinary[] = [];
  for (const name of ["redis-server", "valkey-server"]) {
    for (const folder of searchPath.split(delimiter).filter((part) => part !== "")) {
      const path = join(folder, name);
      const binary = await readVersion(path, name);
      if (binary === null) continue;
      if (Number.parseInt(binary.version, 10) >= (binary.product === "Valkey" ? 8 : 7))
        return { found: binary, tooOld };
      tooOld.push(binary);
    }
  }
  return { found: null, tooOld };
}

async function readVersion(path: string, name: string): Promise<RedisBinary | null> {
  try {
    await access(path, constants.X_OK);
    const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: ANSWER_TIMEOUT_MS });
    // `redis-server` may be Valkey under its old name: the answer counts, not the file's name.
    const match = /^(Redis |Valkey )?server v=(\d+\.\d+\.\d+)/i.exec(stdout);
    if (match?.[2] === undefined) return null;
    const isValkey = (match[1] ?? name).toLowerCase().startsWith("valkey");
    return { path, product: isValkey ? "Valkey" : "Redis", version: match[2] };
  } catch {
    return null; // missing, not executable, or not able to say its version: not a server we can use
  }
}

async function requireRedisBinary(searchPath = process.env["PATH"] ?? ""): Promise<RedisBinary> {
  const { found, tooOld } = await findRedisBinary(searchPath);
  if (found !== null) return found;
  const [old] = tooOld;
  const reason =
    old === undefined
      ? "no redis-server or valkey-server on PATH"
      : `${old.path} is ${old.product} ${old.version}, but Redis 7 or Valkey 8 is needed`;
  throw new RedisServerError(`${reason}: run \`npm run setup\`, or set OUTLAST_REDIS_URL to a Redis of your own`);
}

// -- the folder ------------------------------------------------------------------------------------------------------

async function prepareFolder(dataDir: string): Promise<string> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o700 });
    await access(dataDir, constants.R_OK | constants.W_OK | constants.X_OK);
    return await realpath(dataDir);
  } catch (error) {
    throw new RedisServerError(
      `the embedded Redis can't write its folder ${dataDir} (${errorCode(error)}): set OUTLAST_STATE_DIR to one it can`,
      { cause: error },
    );
  }
}

type Pin = { readonly n: number; readonly port: number };

/** The folder's port; pinned now if there is none, or if the one in `notThis` is a stranger's. */
async function pinnedPort(dir: string, notThis: Pin | null): Promise<Pin> {
  const pins = (await readdir(dir)).map((name) => Number(/^redis-port-(\d{1,6})$/.exec(name)?.[1] ?? 0));
  const n = Math.max((notThis?.n ?? 0) + 1, ...pins);
  if (!pins.includes(n)) {
    // Create-only: of two that pin at once one wins, and the other uses the winner's port.
    await writeFile(join(dir, `redis-port-${n}`), `${await freePort()}\n`, { flag: "wx" }).catch((error: unknown) => {
      if (errorCode(error) !== "EEXIST") {
        throw new RedisServerError(`the embedded Redis can't write into ${dir} (${errorCode(error)})`, {
          cause: error,
        });
      }
    });
  }
  return { n, port: await readPin(join(dir, `redis-port-${n}`)) };
}

async function readPin(path: string): Promise<number> {
  for (const deadline = Date.now() + CLAIM_TIMEOUT_MS; ; await sleep(10)) {
    const text = await readFile(path, "utf8");
    if (/^\d{1,5}\n$/.test(text)) return Number(text);
    // Empty for a moment while its writer writes; for longer if the writer died just then.
    if (Date.now() > deadline) throw new RedisServerError(`${path} holds no port: delete that file and start again`);
  }
}

async function freePort(): Promise<number> {
  for (let tried = 0; tried < 100; tried++) {
    const port = randomInt(PORTS.from, PORTS.to);
    const probe = createServer();
    const free = await new Promise<boolean>((resolve) => {
      probe.once("error", () => resolve(false)).listen({ host: HOST, port, exclusive: true }, () => resolve(true));
    });
    if (!free) continue;
    probe.close();
    await once(probe, "close");
    return port;
  }
  throw new RedisServerError(`no free port on ${HOST} between ${PORTS.from} and ${PORTS.to}`);
}

/** Whether the server noted last in this folder is surely not running any more. */
async function knownDead(dir: string): Promise<boolean> {
  try {
    const note: unknown = JSON.parse(await readFile(join(dir, "redis.json"), "utf8"));
    if (typeof note !== "object" || note === null || !("pid" in note) || typeof note.pid !== "number") return false;
    process.kill(note.pid, 0);
    return false;
  } catch (error) {
    return errorCode(error) === "ESRCH";
  }
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(
    (info) => info.size,
    () => 0,
  );
}

/** The last lines that say something, as one line; `start` leaves out what an earlier run wrote. */
async function lastLines(path: string, start = 0): Promise<string> {
  const text = await readFile(path, "utf8").catch(() => "");
  const lines = text
    .slice(text.length >= start ? start : 0)
    .split("\n")
    .map((line) => line.replace(/^\d+:\w+ \d+ \w+ \d+ [\d:.]+ /, "").trim())
    .filter((line) => line !== "");
  return lines.length === 0 ? `it said nothing (log: ${path})` : `${lines.slice(-3).join(" | ")} (log: ${path})`;
}

// -- the process -----------------------------------------------------------------------------------------------------

async function spawnServer(binary: RedisBinary, dir: string, port: number, log: string): Promise<ChildProcess> {
  const file = await open(log, (await sizeOf(log)) > MAX_LOG_BYTES ? "w" : "a", 0o600);
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
      { cwd: dir, detached: true, stdio: ["ignore", file.fd, file.fd] },
    );
    await once(child, "spawn");
    return child;
  } catch (error) {
    throw new RedisServerError(`${binary.path} can't be started (${errorCode(error)})`, { cause: error });
  } finally {
    await file.close();
  }
}

/** Waits until the child serves this folder (its pid), or has ended, as when another server had the port (null). */
async function readyOrGone(child: ChildProcess, port: number, dir: string, log: string): Promise<number | null> {
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
      throw new RedisServerError(`the embedded Redis in ${dir} did not get ready: ${await lastLines(log)}`);
    }
    await sleep(20);
  }
  return null;
}

/** Waits until a running server has read its data, and answers its pid. */
async function loaded(port: number, dir: string, log: string): Promise<number> {
  for (const deadline = Date.now() + LOADING_TIMEOUT_MS; Date.now() < deadline; await sleep(50)) {
    const listener = await whoListens(port, dir);
    if (listener.kind !== "ours") break;
    if (!listener.loading) return listener.pid;
  }
  throw new RedisServerError(`the Redis that ran in ${dir} ended just now; start again: ${await lastLines(log)}`);
}

type Listener =
  | { readonly kind: "ours"; readonly pid: number; readonly loading: boolean }
  | { readonly kind: "nobody" }
  | { readonly kind: "stranger" }
  /** Takes connections and says nothing: it could be ours, stopped. */
  | { readonly kind: "silent" };

async function whoListens(port: number, dir: string): Promise<Listener> {
  const client = await connection(port);
  const failures: unknown[] = [];
  client.on("error", (error) => failures.push(error)); // what is thrown says only that the connection is closed
  try {
    await client.connect();
    const reply = await client.config("GET", "dir");
    const itsDir = Array.isArray(reply) ? reply[1] : undefined;
    const pid = Number(/process_id:(\d+)/.exec(await client.info("server"))?.[1]);
    if (itsDir !== dir || !Number.isInteger(pid)) return { kind: "stranger" };
    const loading = await client.ping().then(
      () => false,
      (error: unknown) => /LOADING/.test(String(error)),
    );
    return { kind: "ours", pid, loading };
  } catch (error) {
    failures.push(error);
    if (failures.some((failure) => errorCode(failure) === "ECONNREFUSED")) return { kind: "nobody" };
    if (failures.some((failure) => /timed out|timeout|ETIMEDOUT/i.test(String(failure)))) return { kind: "silent" };
    return { kind: "stranger" };
  } finally {
    client.disconnect();
  }
}

/** A connection that gives up at its first failure and never connects again. */
async function connection(port: number): Promise<Redis> {
  const { Redis } = await import("ioredis");
  const client = new Redis({
    host: HOST,
    port,
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: null,
    maxRetriesPerRequest: 0,
    connectTimeout: ANSWER_TIMEOUT_MS,
    commandTimeout: ANSWER_TIMEOUT_MS,
  });
  client.on("error", () => {}); // the call that failed throws
  return client;
}

// -- owning ----------------------------------------------------------------------------------------------------------

/** Servers that a normal end of this process takes along. */
const owned = new Set<number>();
process.on("exit", () => {
  for (const pid of owned) signal(pid, "SIGTERM");
});

type Running = {
  readonly dir: string;
  readonly port: number;
  readonly pid: number;
  readonly log: string;
  /** null for an adopted server, which isn't our child. */
  readonly child: ChildProcess | null;
};

async function own(running: Running, onExit: RedisServerOptions["onExit"]): Promise<RedisServer> {
  const { dir, port, pid, log, child } = running;
  child?.unref(); // the owner's connection keeps this process alive; a child lost to another owner must not
  const owner = await claim(port, dir);
  owned.add(pid);
  await writeFile(join(dir, "redis.json"), `${JSON.stringify({ pid, port, owner_pid: process.pid })}\n`);

  const gone = Promise.withResolvers<void>();
  let closing: Promise<void> | null = null;
  const ended = () => {
    owned.delete(pid);
    owner.disconnect();
    gone.resolve();
    if (closing !== null || onExit === undefined) return;
    void lastLines(log).then((lines) => onExit(`the embedded Redis in ${dir} ended by itself: ${lines}`));
  };
  const endOfAdopted = async (): Promise<void> => {
    while ((await whoListens(port, dir)).kind === "ours") await sleep(100); // only our connection had ended
    ended();
  };
  if (child === null) owner.once("end", () => void endOfAdopted());
  else if (child.exitCode !== null || child.signalCode !== null) ended();
  else child.once("exit", ended);

  const shutDown = async (): Promise<void> => {
    // Flushes the append-only file; NOSAVE is about snapshots, of which there are none. Its answer is the hanging up.
    await owner.shutdown("NOSAVE").catch(() => child?.kill("SIGTERM"));
    const patience = new AbortController();
    const tooLong = sleep(EXIT_TIMEOUT_MS, "too-long", { signal: patience.signal });
    // Nothing acknowledged is lost by the kill: every write was on disk before its answer.
    if ((await Promise.race([gone.promise, tooLong])) === "too-long") signal(pid, "SIGKILL");
    await gone.promise;
    patience.abort();
    await tooLong.catch(() => {});
  };

  return {
    url: `redis://${HOST}:${port}`,
    host: HOST,
    port,
    pid,
    adopted: child === null,
    close: () => (closing ??= shutDown()),
  };
}

/** Names this process the owner, in one transaction with the look for another; throws if there is one. */
async function claim(port: number, dir: string): Promise<Redis> {
  for (const deadline = Date.now() + CLAIM_TIMEOUT_MS; ; await sleep(50)) {
    const client = await connection(port);
    await client.connect();
    const ownId = await client.client("ID");
    const replies = await client.multi().client("SETNAME", `${OWNER_NAME}${process.pid}`).client("LIST").exec();
    const other = String(replies?.[1]?.[1])
      .split("\n")
      .map((line) => new RegExp(`^id=(\\d+) .*\\bname=${OWNER_NAME}(\\d+) `).exec(line))
      .find((match) => match !== null && Number(match[1]) !== ownId);
    if (other === undefined) return client;

    client.disconnect();
    if (Date.now() > deadline) {
      throw new RedisServerError(
        `the embedded Redis in ${dir} is in use by process ${other?.[2]}: end that one, or set OUTLAST_STATE_DIR to another folder`,
      );
    }
  }
}

function silentError(port: number, dir: string): RedisServerError {
  return new RedisServerError(
    `port ${port}, which the Redis of ${dir} uses, takes connections but doesn't answer: end the process that holds it`,
  );
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it is gone already
  }
}

function errorCode(error: unknown): string {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return error instanceof Error ? error.message : String(error);
}
