/**
 * The crash loop: a stage is killed after its n-th effect, for every n, and run again.
 *
 * Effects are arguments, so no hook in the code is needed: they are wrapped so that the n-th one is carried out and
 * its answer lost. From then on the process counts as dead: whatever the stage still tries does nothing. So a stage
 * can't save itself by catching the crash, as it couldn't if its process were gone.
 *
 * Run as a program, this file is a worker whose job never ends, to be killed for real: see `holdJob`.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { pino } from "pino";
import { DONE } from "../../src/core/outcome.ts";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { consume } from "../../src/queues/consume.ts";
import type { QueueSpec } from "../../src/queues/queues.ts";

export class Crash extends Error {
  override readonly name = "Crash";
}

/** Not effects: they answer at once and leave nothing behind. */
const HARMLESS: ReadonlySet<PropertyKey> = new Set([
  "clock",
  "random",
  "nonce",
  "warn",
  "warnOfBatch",
  "countPoll",
  "urlOf",
  "webhookFor",
  "list",
  "tell",
  "expect",
  "known",
]);

function isData(value: object): boolean {
  return Array.isArray(value) || value instanceof Set || value instanceof Map;
}

export type Doomed<T> = {
  readonly effects: T;
  /** The effects that were carried out, in the order in which they ended. */
  readonly done: readonly string[];
  readonly isDead: () => boolean;
};

/** Wraps effects, those in nested objects too, so that the n-th (from 0) is carried out and the process then "dies". */
export function dieAfter<T extends object>(n: number, effects: T): Doomed<T> {
  const done: string[] = [];
  let dead = false;

  async function carryOut(name: string, effect: () => unknown): Promise<unknown> {
    if (dead) throw new Crash(`${name} by a dead process`);
    try {
      return await effect();
    } finally {
      done.push(name);
      if (done.length > n) {
        dead = true;
        // oxlint-disable-next-line no-unsafe-finally -- the answer is to be lost, an error too
        throw new Crash(`died after ${name}`);
      }
    }
  }

  function wrap<O extends object>(object: O): O {
    return new Proxy(object, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (HARMLESS.has(name)) return typeof value === "function" ? value.bind(target) : value;
        if (typeof value === "function") {
          return (...args: unknown[]) => carryOut(String(name), (): unknown => Reflect.apply(value, target, args));
        }
        return typeof value === "object" && value !== null && !isData(value) ? wrap(value) : value;
      },
    });
  }

  return { effects: wrap(effects), done, isDead: () => dead };
}

/** Longer than any stage: a loop that gets so far doesn't end by itself. */
const MAX_EFFECTS = 150;

export type CrashScenario<World, Seen> = {
  /** A world that nobody has touched. */
  readonly open: () => Promise<World>;
  /** Runs the stage once, with its effects as `wrap` gives them back. */
  readonly run: (world: World, wrap: <T extends object>(effects: T) => T) => Promise<unknown>;
  /** What stands afterwards. */
  readonly look: (world: World) => Promise<Seen>;
};

export type CrashReport<Seen> = {
  /** After which effect the process died, for people and for telling cases apart. */
  readonly diedAfter: string;
  readonly n: number;
  readonly seen: Seen;
};

/**
 * Lets the stage die after every one of its effects, runs it again unharmed twice, and reports what then stands,
 * beside the undisturbed run (which is also run twice more: repetition alone must change nothing).
 */
export async function everyCrash<World, Seen>(
  scenario: CrashScenario<World, Seen>,
): Promise<{ readonly undisturbed: Seen; readonly crashes: readonly CrashReport<Seen>[] }> {
  const asItIs = <T extends object>(effects: T): T => effects;
  const calm = await scenario.open();
  for (let runs = 0; runs < 3; runs++) await scenario.run(calm, asItIs);
  const undisturbed = await scenario.look(calm);

  const crashes: CrashReport<Seen>[] = [];
  for (let n = 0; n < MAX_EFFECTS; n++) {
    const world = await scenario.open();
    let doomed: Doomed<object> | null = null;
    try {
      await scenario.run(world, <T extends object>(effects: T): T => {
        const made = dieAfter(n, effects);
        doomed = made;
        return made.effects;
      });
    } catch (error) {
      if (!(doomed as Doomed<object> | null)?.isDead()) throw error;
    }
    const { isDead, done } = doomed ?? { isDead: () => false, done: [] };
    if (!isDead()) return { undisturbed, crashes };
    for (let runs = 0; runs < 2; runs++) await scenario.run(world, asItIs);
    crashes.push({ diedAfter: done[n] ?? "?", n, seen: await scenario.look(world) });
  }
  throw new Error(`the stage has more than ${MAX_EFFECTS} effects`);
}

// ── a worker that is killed ───────────────────────────────────────────────────

/** The queue of the worker that is killed: any job, read as its own id. */
export const heldQueue: QueueSpec<string> = {
  name: "test-held",
  read: (id) => id,
  job: { attempts: 3 },
  concurrency: 1,
};

/** Starts a process whose worker takes a job of `heldQueue` and never ends it; resolves when it holds one. */
export async function holdJob(redisUrl: string): Promise<{ kill(): Promise<void> }> {
  const child: ChildProcess = spawn(process.execPath, [import.meta.filename, redisUrl], {
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  const exited = once(child, "exit");
  await Promise.race([
    once(child, "message"),
    exited.then(() => Promise.reject(new Error("the worker ended before it held a job"))),
  ]);
  return {
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

if (import.meta.main) {
  const [url = ""] = process.argv.slice(2);
  const redis = await connectRedis(url, "worker");
  consume(
    heldQueue,
    async (id) => {
      process.send?.(id);
      await new Promise(() => {});
      return DONE;
    },
    { redis, log: pino({ level: "silent" }) },
  );
}
