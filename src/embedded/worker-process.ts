/**
 * Worker processes as children: kept running, and drained at the end.
 *
 * A child that ends by itself, killed or crashed, is replaced at once; one that keeps dying young after growing
 * pauses. Children are in process groups of their own, so that Ctrl-C reaches only this process, which then drains
 * them in order. If this process is gone, they notice by the channel between them and drain by themselves.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { SECOND } from "../core/time.ts";

export type WorkerProcessOptions = {
  readonly count: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Where their log goes, a JSON object a line: to our own stderr, to an open file, or to a reader of lines. */
  readonly log: "inherit" | number | ((line: string) => void);
  /** Told whenever a worker ended by itself. */
  readonly onLost: (worker: {
    readonly pid: number | undefined;
    readonly how: string;
    readonly pauseMs: number;
  }) => void;
};

export type WorkerProcesses = AsyncDisposable & {
  readonly pids: () => readonly number[];
  /** Ends them now; what they did goes on elsewhere or later. */
  kill(): void;
};

const MAIN = fileURLToPath(new URL("../../workers/main.ts", import.meta.url));

/** A worker that lived so long didn't fail at its start. */
const GROWN_UP_MS = 10 * SECOND;
const LONGEST_PAUSE_MS = 30 * SECOND;
/** A worker gives its jobs 30 s, and itself 5 more. */
const DRAIN_MS = 40 * SECOND;

/** No pause after a death out of the blue, then half a second, doubling. `early`: deaths in a row soon after a start. */
export function respawnPauseMs(early: number): number {
  return early === 0 ? 0 : Math.min(0.5 * SECOND * 2 ** Math.min(early - 1, 10), LONGEST_PAUSE_MS);
}

export function keepWorkers(options: WorkerProcessOptions): WorkerProcesses {
  const closing = new AbortController();
  const running = new Set<ChildProcess>();
  const places = Array.from({ length: options.count }, () => keepOne());
  return {
    pids: () => [...running].flatMap(({ pid }) => pid ?? []),
    kill() {
      closing.abort();
      for (const child of running) child.kill("SIGKILL");
    },
    async [Symbol.asyncDispose]() {
      closing.abort();
      await Promise.all([...running].map(drain));
      await Promise.all(places);
    },
  };

  async function keepOne(): Promise<void> {
    for (let early = 0; !closing.signal.aborted; ) {
      const bornAt = performance.now();
      const child = spawnWorker(options);
      running.add(child);
      const how = await endOf(child);
      running.delete(child);
      if (closing.signal.aborted) return;

      early = performance.now() - bornAt < GROWN_UP_MS ? early + 1 : 0;
      const pauseMs = respawnPauseMs(Math.max(early - 1, 0));
      options.onLost({ pid: child.pid, how, pauseMs });
      await sleep(pauseMs, undefined, { signal: closing.signal }).catch(() => undefined);
    }
  }
}

function spawnWorker({ env, log }: WorkerProcessOptions): ChildProcess {
  const stderr = typeof log === "function" ? "pipe" : log;
  const child = spawn(process.execPath, [MAIN], {
    env,
    detached: true,
    stdio: ["ignore", "ignore", stderr, "ipc"],
  });
  if (typeof log === "function" && child.stderr !== null) createInterface({ input: child.stderr }).on("line", log);
  return child;
}

async function endOf(child: ChildProcess): Promise<string> {
  return await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`));
  });
}

async function drain(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), DRAIN_MS);
  await ended;
  clearTimeout(timer);
}
