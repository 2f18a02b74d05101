/**
 * Tens of thousands in flight: what following costs while hardly anything ends.
 *
 * Creates are let through as fast as they go, reads are held to Replicate's published 3,000 a minute, which the emulator
 * enforces; runs take longer than the whole measurement. When all run and a while has passed, a server and a worker are
 * watched: their CPU time and Redis's, and the emulator's own counter of reads, minute by minute.
 */

import { asked, mostAMinute, readsIn } from "./asked.ts";
import type { BenchOptions } from "./bench.ts";
import type { Child } from "./child.ts";
import { madeRows } from "./prompts.ts";
import { redisUse } from "./redis-use.ts";
import { type System, startSystem, UNLIMITED } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const ITEMS = 30_000;
const ITEMS_SHORT = 3_000;
const READS_PER_MINUTE = 3_000;
const RUN_MINUTES = 50;
/** 2.5 KB. */
const MOST_REDIS_BYTES = 2_560;
const MOST_CORE_PERCENT = 25;
/** Between the last create and the first look. */
const CALM_MS = 60_000;
const WATCHED_MS = 120_000;
const WATCHED_SHORT_MS = 65_000;
const LOOK_MS = 2_000;
const LIMIT_MS = 1_200_000;

type Reading = { readonly atMs: number; readonly count: number };

export async function measureCrowd({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  await using system = await startSystem({
    emulator: {
      seed: "crowd",
      createsPerMinute: UNLIMITED.emulator.createsPerMinute,
      readsPerMinute: READS_PER_MINUTE,
      runMs: { medianMs: RUN_MINUTES * 60_000, spread: 0 },
    },
    env: { ...UNLIMITED.env, OUTLAST_READS_PER_MINUTE: String(READS_PER_MINUTE) },
    signal,
  });
  const { redis } = system.services;
  const { server } = await system.startServer();
  const worker = await system.startWorker();
  const before = await redisUse(redis);

  const readings: Reading[] = [];
  const read = async () => {
    const { requests } = await system.totals();
    readings.push({ atMs: Date.now(), count: readsIn(requests) });
    return requests;
  };
  const batch = await system.submit(madeRows("text", items, signal));
  const running = async () => {
    await read();
    return (await system.counts(batch)).running === items;
  };
  await system.until(`${items} predictions run`, running, { everyMs: LOOK_MS, limitMs: LIMIT_MS });
  const redisBytes = (await redisUse(redis)).memoryBytes - before.memoryBytes;
  await watch(system, CALM_MS, read);

  const processes = { worker, server };
  const [usedBefore, booksBefore] = [await used(system, processes), await read()];
  const startedMs = performance.now();
  await watch(system, short ? WATCHED_SHORT_MS : WATCHED_MS, read);
  const [usedAfter, booksAfter] = [await used(system, processes), await read()];
  const watchedMs = performance.now() - startedMs;
  if (!(await running())) throw new Error("predictions ended while they were watched");

  const perMinute = (route: string) =>
    fixed(((asked(booksAfter, route) - asked(booksBefore, route)) * 60_000) / watchedMs, 0);
  const corePercent = (of: (use: Used) => number) => ((of(usedAfter) - of(usedBefore)) * 100) / watchedMs;
  const all = corePercent(({ workerMs, serverMs, redisMs }) => workerMs + serverMs + redisMs);
  const most = mostAMinute(readings);
  const perItem = redisBytes / items;
  const { pages, pauseMs, toAgeMs } = await system.services.ledger.readFollowing(system.account.name);
  printTable(
    `${fixed(items, 0)} in flight, each for ${RUN_MINUTES} minutes; ${fixed(READS_PER_MINUTE, 0)} reads a minute`,
    ["", "", "goal"],
    [
      ["Redis bytes per item", fixed(perItem, 0), goal(perItem, "at most", MOST_REDIS_BYTES, 0)],
      ["CPU of all processes, % of a core", fixed(all, 1), goal(all, "at most", MOST_CORE_PERCENT, 0)],
      [
        "  worker",
        fixed(
          corePercent(({ workerMs }) => workerMs),
          1,
        ),
        "",
      ],
      [
        "  server",
        fixed(
          corePercent(({ serverMs }) => serverMs),
          1,
        ),
        "",
      ],
      [
        "  Redis",
        fixed(
          corePercent(({ redisMs }) => redisMs),
          1,
        ),
        "",
      ],
      ["most reads in any minute, creating included", fixed(most, 0), goal(most, "at most", READS_PER_MINUTE, 0)],
      ["refused (429)", fixed(asked(booksAfter, null, "429"), 0), ""],
      ["polls a minute", perMinute("get"), ""],
      ["pages of the list a minute", perMinute("list"), ""],
      ["pages of a sweep", fixed(pages, 0), ""],
      ["from one sweep to the next, s", fixed(pauseMs / 1_000, 1), ""],
      ["sweeps tell of ends up to an age of, s", fixed(toAgeMs / 1_000, 0), ""],
    ],
  );
  printNote(
    `scaled: creates without a limit, so that all are in flight within minutes; watched for ${fixed(watchedMs / 1_000, 0)} s`,
  );
}

type Used = { readonly workerMs: number; readonly serverMs: number; readonly redisMs: number };

async function used(
  { services: { redis } }: System,
  { worker, server }: { readonly worker: Child; readonly server: Child },
): Promise<Used> {
  const [{ cpuMs: workerMs }, { cpuMs: serverMs }, { cpuMs: redisMs }] = await Promise.all([
    worker.measure(),
    server.measure(),
    redisUse(redis),
  ]);
  return { workerMs, serverMs, redisMs };
}

async function watch(system: System, forMs: number, look: () => Promise<unknown>): Promise<void> {
  const untilMs = Date.now() + forMs;
  const isOver = async () => {
    await look();
    return Date.now() >= untilMs;
  };
  await system.until("it has been watched", isOver, { everyMs: LOOK_MS, limitMs: 2 * forMs + LIMIT_MS });
}
