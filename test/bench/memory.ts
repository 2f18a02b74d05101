/**
 * Memory: does waiting cost anything but a little Redis?
 *
 * A hundred, then 5,000 predictions are in flight at the same time, on a provider where each runs for half an hour;
 * limits are lifted so that they are created quickly. When the last one runs, its worker is measured while it goes on
 * polling, and then a second worker, which is started after the first has stopped and so has done nothing but poll.
 * Redis is measured against itself with its worker connected and nothing submitted, and its keys one by one by MEMORY
 * USAGE, summed by kind, so that it shows which of them cost.
 *
 * Then a batch of a million rows is submitted where no worker runs, as to a paused account: what it costs while it waits.
 */

import type { Redis } from "ioredis";
import type { BenchOptions } from "./bench.ts";
import type { Child } from "./child.ts";
import type { Usage } from "./probe.ts";
import { madeRows } from "./prompts.ts";
import { redisUse } from "./redis-use.ts";
import { type System, startSystem, UNLIMITED } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const FEW = 100;
const MANY = 5_000;
const MANY_SHORT = 1_000;
const WAITING_ROWS = 1_000_000;
const WAITING_ROWS_SHORT = 100_000;
/** 2.5 KB. */
const MOST_REDIS_BYTES = 2_560;
/** For so long a worker polls before it is measured, and between the first and the last look at it. */
const POLLING_MS = 30_000;
const POLLING_SHORT_MS = 5_000;
const LOOK_EVERY_MS = 1_000;
const LIMIT_MS = 300_000;
const KINDS_SHOWN = 12;

type InFlight = {
  readonly items: number;
  readonly creator: Looks;
  readonly poller: Looks;
  readonly redisBytes: number;
  /** By kind of key. */
  readonly keyBytes: ReadonlyMap<string, number>;
};

/** A worker that polls, looked at for a while. */
type Looks = {
  readonly idle: Usage;
  /** The most memory it had, while garbage came and went. */
  readonly rssBytes: number;
  /** After a collection at the end. */
  readonly end: Usage;
  readonly polls: number;
};

export async function measureMemory({ short, signal }: BenchOptions): Promise<void> {
  const many = short ? MANY_SHORT : MANY;
  const pollingMs = short ? POLLING_SHORT_MS : POLLING_MS;
  const few = await measureInFlight(FEW, pollingMs, signal);
  const lots = await measureInFlight(many, pollingMs, signal);

  const worker = (name: string, look: (of: InFlight) => Looks, read: (of: Looks) => number) => [
    name,
    mega(read(look(few))),
    mega(read(look(lots))),
    fixed((read(look(lots)) - read(look(few))) / (many - FEW) / 1_024, 2),
  ];
  printTable(
    "Worker memory, MB",
    ["", `${FEW} in flight`, `${fixed(many, 0)} in flight`, "KB more per item"],
    [
      worker(
        "worker that created them: idle before",
        (of) => of.creator,
        (of) => of.idle.rssBytes,
      ),
      worker(
        "  RSS, the most while polling",
        (of) => of.creator,
        (of) => of.rssBytes,
      ),
      worker(
        "  heap after a collection",
        (of) => of.creator,
        (of) => of.end.heapBytes,
      ),
      worker(
        "worker that only polls: idle before",
        (of) => of.poller,
        (of) => of.idle.rssBytes,
      ),
      worker(
        "  RSS, the most while polling",
        (of) => of.poller,
        (of) => of.rssBytes,
      ),
      worker(
        "  heap after a collection",
        (of) => of.poller,
        (of) => of.end.heapBytes,
      ),
    ],
  );
  const perSecond = (of: InFlight) => fixed(of.poller.polls / (pollingMs / 1_000), 0);
  printNote(
    `while looked at, it polled ${perSecond(few)} and ${perSecond(lots)} times a second; RSS holds their garbage`,
  );

  const perItem = lots.redisBytes / many;
  printTable(
    "Redis memory",
    ["", "bytes", "bytes per item", "goal"],
    [
      [`${fixed(FEW, 0)} in flight`, fixed(few.redisBytes, 0), fixed(few.redisBytes / FEW, 0), ""],
      [
        `${fixed(many, 0)} in flight`,
        fixed(lots.redisBytes, 0),
        fixed(perItem, 0),
        goal(perItem, "at most", MOST_REDIS_BYTES, 0),
      ],
      await measureWaiting(short ? WAITING_ROWS_SHORT : WAITING_ROWS, signal),
    ],
  );
  printTable(
    `Redis keys with ${fixed(many, 0)} in flight`,
    ["", "bytes", "bytes per item"],
    [...lots.keyBytes]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, KINDS_SHOWN)
      .map(([kind, bytes]) => [kind, fixed(bytes, 0), fixed(bytes / many, 1)]),
  );
}

async function measureInFlight(items: number, pollingMs: number, signal: AbortSignal): Promise<InFlight> {
  await using system = await startSystem({
    emulator: { ...UNLIMITED.emulator, runMs: { medianMs: 30 * 60_000, spread: 0 } },
    env: UNLIMITED.env,
    signal,
  });
  const { redis } = system.services;
  const creator = await system.startWorker(["--expose-gc"]);
  const idle = await creator.measure({ collect: true });
  const before = await redisUse(redis);

  const batch = await system.submit(madeRows("picture", items, signal));
  await system.until(`${items} predictions run`, async () => (await system.counts(batch)).running === items, {
    everyMs: 100,
    limitMs: LIMIT_MS,
  });
  const created = await lookAt(creator, idle, system, pollingMs);
  const after = await redisUse(redis);
  const keyBytes = await bytesByKind(redis, signal);
  await creator.end("SIGTERM");

  const poller = await system.startWorker(["--expose-gc"]);
  const polled = await lookAt(poller, await poller.measure({ collect: true }), system, pollingMs);
  if ((await system.counts(batch)).running !== items) throw new Error("predictions ended while they were measured");
  return {
    items,
    creator: created,
    poller: polled,
    redisBytes: after.memoryBytes - before.memoryBytes,
    keyBytes,
  };
}

async function lookAt(worker: Child, idle: Usage, system: System, forMs: number): Promise<Looks> {
  const pollsBefore = await polls(system);
  const until = Date.now() + forMs;
  let rssBytes = 0;
  await system.until(
    "the worker has been looked at",
    async () => {
      rssBytes = Math.max(rssBytes, (await worker.measure()).rssBytes);
      return Date.now() >= until;
    },
    { everyMs: LOOK_EVERY_MS, limitMs: 2 * forMs + LIMIT_MS },
  );
  const polled = (await polls(system)) - pollsBefore;
  return { idle, rssBytes, end: await worker.measure({ collect: true }), polls: polled };
}

async function polls(system: System): Promise<number> {
  const { requests } = await system.books();
  return Object.values(requests["replicate get"] ?? {}).reduce((sum, one) => sum + one, 0);
}

/** Every key, its name and its entry in the keyspace included; ids in the names give way to a `*`. */
async function bytesByKind(redis: Redis, signal: AbortSignal): Promise<ReadonlyMap<string, number>> {
  const bytes = new Map<string, number>();
  for await (const keys of redis.scanStream({ count: 1_000 }) as AsyncIterable<readonly string[]>) {
    signal.throwIfAborted();
    const sizes = await Promise.all(keys.map((key) => redis.memory("USAGE", key, "SAMPLES", 0)));
    for (const [at, key] of keys.entries()) {
      const kind = key.replaceAll(/[0-9a-z]{20}([-:]\d+)*/g, "*");
      bytes.set(kind, (bytes.get(kind) ?? 0) + (sizes[at] ?? 0));
    }
  }
  return bytes;
}

async function measureWaiting(rows: number, signal: AbortSignal): Promise<readonly string[]> {
  await using system = await startSystem({ emulator: {}, signal });
  const before = await redisUse(system.services.redis);
  await system.submit(madeRows("picture", rows, signal));
  const bytes = (await redisUse(system.services.redis)).memoryBytes - before.memoryBytes;
  return [`a batch of ${fixed(rows, 0)} rows that waits`, fixed(bytes, 0), fixed(bytes / rows, 3), ""];
}

function mega(bytes: number): string {
  return fixed(bytes / 1_048_576, 1);
}
