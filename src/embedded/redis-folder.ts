/**
 * What stands in the folder of an embedded Redis, beside Redis's own data:
 *
 *   redis-port-<n>   the port of the folder's server, written once; the highest n counts
 *   redis.json       pid and port of the server, and the pid of its owner, for people
 *   redis.log        what the servers said, one after the other
 */

import { randomInt } from "node:crypto";
import { once } from "node:events";
import { constants } from "node:fs";
import { access, mkdir, readdir, readFile, realpath, stat, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { HOST } from "./redis-listener.ts";
import { errorCode, RedisServerError } from "./redis-server-error.ts";

/** Below the ports that Linux (32768) and macOS (49152) hand to outgoing connections. */
const PORTS = { from: 20_000, to: 30_000 };
const PIN_TIMEOUT_MS = 1_000;
const MAX_LOG_BYTES = 4 * 1024 * 1024;

/** Makes the folder if need be; answers its real path. */
export async function prepareFolder(dataDir: string): Promise<string> {
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

// -- the port --------------------------------------------------------------------------------------------------------

export type Pin = { readonly n: number; readonly port: number };

/** The folder's port; pinned now if there is none, or if the one in `notThis` is a stranger's. */
export async function pinnedPort(dir: string, notThis: Pin | null): Promise<Pin> {
  const pins = (await readdir(dir)).map((name) => Number(/^redis-port-(\d{1,6})$/.exec(name)?.[1] ?? 0));
  const n = Math.max((notThis?.n ?? 0) + 1, ...pins);
  const path = join(dir, `redis-port-${n}`);
  if (!pins.includes(n)) {
    // Create-only: of two that pin at once one wins, and the other uses the winner's port.
    await writeFile(path, `${await freePort()}\n`, { flag: "wx" }).catch((error: unknown) => {
      const code = errorCode(error);
      if (code === "EEXIST") return;
      throw new RedisServerError(`the embedded Redis can't write into ${dir} (${code})`, { cause: error });
    });
  }
  return { n, port: await readPin(path) };
}

async function readPin(path: string): Promise<number> {
  for (const deadline = Date.now() + PIN_TIMEOUT_MS; ; await sleep(10)) {
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

// -- the note --------------------------------------------------------------------------------------------------------

export async function noteServer(dir: string, server: { readonly pid: number; readonly port: number }): Promise<void> {
  const { pid, port } = server;
  await writeFile(join(dir, "redis.json"), `${JSON.stringify({ pid, port, owner_pid: process.pid })}\n`);
}

/** Whether the server noted last in this folder is surely not running any more. */
export async function knownDead(dir: string): Promise<boolean> {
  try {
    const note: unknown = JSON.parse(await readFile(join(dir, "redis.json"), "utf8"));
    if (typeof note !== "object" || note === null || !("pid" in note) || typeof note.pid !== "number") return false;
    process.kill(note.pid, 0);
    return false;
  } catch (error) {
    return errorCode(error) === "ESRCH";
  }
}

// -- the log ---------------------------------------------------------------------------------------------------------

export function logPath(dir: string): string {
  return join(dir, "redis.log");
}

/** Empties the log if it has grown large; answers at which byte the next server's lines begin. */
export async function prepareLog(dir: string): Promise<number> {
  const size = await stat(logPath(dir)).then(
    (info) => info.size,
    () => 0, // there is none yet
  );
  if (size <= MAX_LOG_BYTES) return size;
  await truncate(logPath(dir));
  return 0;
}

/** The last lines that say something, as one line; `start` leaves out what an earlier server wrote. */
export async function lastLogLines(dir: string, start = 0): Promise<string> {
  const path = logPath(dir);
  const bytes = await readFile(path).catch(() => Buffer.alloc(0));
  const lines = bytes
    .toString("utf8", start)
    .split("\n")
    .map((line) => line.replace(/^\d+:\w+ \d+ \w+ \d+ [\d:.]+ /, "").trim())
    .filter((line) => line !== "");
  return lines.length === 0 ? `it said nothing (log: ${path})` : `${lines.slice(-3).join(" | ")} (log: ${path})`;
}
