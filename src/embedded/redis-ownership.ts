/**
 * One server, one owner: the process that ends it.
 *
 * The owner keeps a connection open under a name with its pid; while it lives, others are refused in one line. A
 * connection ends with its process, so a crashed owner blocks nobody.
 *
 * `close()` or a normal end of this process ends the server; after a crash it lives on until it is adopted. It goes
 * down by itself only if killed or if its disk fails: then `onExit` is told.
 */

import type { ChildProcess } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import { lastLogLines, noteServer } from "./redis-folder.ts";
import { connection, HOST, whoListens } from "./redis-listener.ts";
import { RedisServerError } from "./redis-server-error.ts";

/** Redis sees a dead owner's connection end within one turn of its loop; this is ample. */
const CLAIM_TIMEOUT_MS = 1_000;
const EXIT_TIMEOUT_MS = 5_000;
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

/** A server that answers for its folder. */
export type Running = {
  readonly dir: string;
  readonly port: number;
  readonly pid: number;
  /** null for an adopted server, which isn't our child. */
  readonly child: ChildProcess | null;
};

/** Servers that a normal end of this process takes along. */
const owned = new Set<number>();
process.on("exit", () => {
  for (const pid of owned) signal(pid, "SIGTERM");
});

export async function own(running: Running, onExit: ((reason: string) => void) | undefined): Promise<RedisServer> {
  const { dir, port, pid, child } = running;
  child?.unref(); // the owner's connection keeps this process alive; a child lost to another owner must not
  const owner = await claim(port, dir);
  owned.add(pid);
  await noteServer(dir, { pid, port });

  const gone = Promise.withResolvers<void>();
  let closing: Promise<void> | null = null;
  const ended = () => {
    owned.delete(pid);
    owner.disconnect();
    gone.resolve();
    if (closing !== null || onExit === undefined) return;
    void lastLogLines(dir).then((lines) => onExit(`the embedded Redis in ${dir} ended by itself: ${lines}`));
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
    // Nothing acknowledged is lost by the kill: every write was on disk before its answer.
    const killing = setTimeout(() => signal(pid, "SIGKILL"), EXIT_TIMEOUT_MS);
    await gone.promise;
    clearTimeout(killing);
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
    const client = connection(port);
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

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // it is gone already
  }
}
