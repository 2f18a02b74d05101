/**
 * Throughput: what one machine can carry when no limit holds it, and what an item costs on the way.
 *
 * Predictions of 2 s without any queueing at the provider, limits lifted on both sides, thousands of items at once:
 * `outlast/text`, which has nothing to copy, and `outlast/picture`, a PNG of some 10 kB each. Beside them, in the same
 * run and on a Redis of the same settings, bare BullMQ moves as many tiny jobs through four queues of the same
 * concurrency (`hops-process.ts`): the ceiling. All that with one worker process and with two.
 *
 * Items/s are counted from the first create that the emulator accepted to the last receipt, by their own stamps; the
 * middle 80 % leave out the way in and the way out. Costs are counted from the submission to the last end: CPU of
 * whole processes, Redis's own counters. A command that a script calls counts as a command, and not as a round trip.
 */

import { availableParallelism } from "node:os";
import { Queue } from "bullmq";
import { Redis } from "ioredis";
import { readReceipt } from "../../src/bucket/records.ts";
import { isSettled, progressOf } from "../../src/core/batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import type { BenchOptions } from "./bench.ts";
import { Child } from "./child.ts";
import { HOP_JOB, HOPS, type HopsEnded, type HopsOrder } from "./hops-process.ts";
import type { Usage } from "./probe.ts";
import { madeRows } from "./prompts.ts";
import { type Rates, ratesOf } from "./rates.ts";
import { callsIn, type RedisUse, redisUse, redisUseBetween } from "./redis-use.ts";
import { type System, startSystem, UNLIMITED } from "./system.ts";
import { fixed, printNote, printTable } from "./table.ts";

const ITEMS = 4_000;
const ITEMS_SHORT = 600;
const LIMIT_MS = 300_000;
const COMMANDS_SHOWN = 10;
const CORES = availableParallelism();
const MODELS = ["text", "picture"] as const;
const PROCESSES = [1, 2] as const;

type Measured = {
  readonly name: string;
  readonly processes: number;
  readonly items: number;
  readonly rates: Rates;
  readonly redis: RedisUse;
  /** Of all worker processes. */
  readonly workerCpuMs: number;
  /** The share of its time that the busiest worker's event loop worked. */
  readonly loopBusy: number;
  readonly emulatorCpuMs: number | null;
  /** By the emulator's books; null where there is none. */
  readonly polls: number | null;
  readonly trouble: number;
};

export async function measureThroughput({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  const runs: Measured[] = [];
  for (const processes of PROCESSES) {
    runs.push(await measureHops(processes, items, signal));
    for (const model of MODELS) runs.push(await measureModel(model, processes, items, signal));
  }
  const bare = new Map(runs.filter(({ polls }) => polls === null).map((run) => [run.processes, run]));

  printTable(
    `Throughput: ${fixed(items, 0)} items, predictions of 2 s, no limits`,
    ["", "items/s", "of bare", "middle 80 %", "polls/item", "not saved"],
    runs.map((run) => {
      const ceiling = bare.get(run.processes)?.rates;
      return [
        run.name,
        fixed(run.rates.perSecond, 0),
        ratio(run.rates.perSecond, ceiling?.perSecond),
        run.polls === null ? "" : fixed(run.rates.middlePerSecond, 0),
        run.polls === null ? "" : fixed(run.polls / run.items, 2),
        fixed(run.trouble, 0),
      ];
    }),
  );
  printNote("middle 80 %: of the receipts, which come bunched, since everything is created first");
  printTable(
    "What an item costs",
    ["", "Redis trips", "commands", "worker CPU ms", "Redis CPU ms", "emulator CPU ms", "loop busy", "cores allow"],
    runs.map(({ name, items: count, redis, workerCpuMs, emulatorCpuMs, loopBusy }) => [
      name,
      fixed(redis.reads / count, 1),
      fixed(callsIn(redis) / count, 1),
      fixed(workerCpuMs / count, 2),
      fixed(redis.cpuMs / count, 2),
      emulatorCpuMs === null ? "" : fixed(emulatorCpuMs / count, 2),
      `${fixed(loopBusy * 100, 0)} %`,
      `${fixed((count * 1_000 * CORES) / (workerCpuMs + redis.cpuMs + (emulatorCpuMs ?? 0)), 0)}/s`,
    ]),
  );
  printNote("trips: reads from sockets; loop busy: the busiest worker's event loop, which no second core can help");
  printNote(`cores allow: items/s at which all processes together would fill this machine's ${CORES} cores`);
  printCommands(runs.filter(({ processes }) => processes === 1));
}

/** The commands that most is asked of, beside one another. */
function printCommands(runs: readonly Measured[]): void {
  const perItem = (run: Measured, name: string) => (run.redis.calls.get(name) ?? 0) / run.items;
  const most = (name: string) => Math.max(...runs.map((run) => perItem(run, name)));
  const names = [...new Set(runs.flatMap(({ redis }) => [...redis.calls.keys()]))];
  printTable(
    "Redis commands per item, those inside scripts among them",
    ["", ...runs.map(({ name }) => name)],
    names
      .toSorted((a, b) => most(b) - most(a))
      .slice(0, COMMANDS_SHOWN)
      .map((name) => [name, ...runs.map((run) => fixed(perItem(run, name), 1))]),
  );
}

async function measureModel(
  model: (typeof MODELS)[number],
  processes: number,
  items: number,
  signal: AbortSignal,
): Promise<Measured> {
  await using system = await startSystem({
    emulator: { ...UNLIMITED.emulator, queueMs: { medianMs: 0, spread: 0 }, runMs: { medianMs: 2_000, spread: 0 } },
    env: UNLIMITED.env,
    signal,
  });
  const workers = await Promise.all(Array.from({ length: processes }, () => system.startWorker()));
  const meter = await startMeter(system.services.redis, workers, system.emulator);
  const batch = await system.submit(madeRows(model, items, signal));
  await system.until(`${items} items end`, async () => isSettled(progressOf(await system.counts(batch)), null), {
    everyMs: 100,
    limitMs: LIMIT_MS,
  });
  const used = await meter();

  const { prediction_list: predictions, requests } = await system.books();
  const startMs = predictions.reduce((first, { created_at: at }) => Math.min(first, Date.parse(at)), Infinity);
  return {
    name: `${model}, ${count(processes, "worker")}`,
    processes,
    items,
    rates: ratesOf(startMs, await recordedAt(system, batch, items)),
    ...used,
    polls: Object.values(requests["replicate get"] ?? {}).reduce((sum, one) => sum + one, 0),
    trouble: items - progressOf(await system.counts(batch)).saved,
  };
}

/** When each receipt was written. */
async function recordedAt({ services }: System, batch: BatchId, items: number): Promise<readonly number[]> {
  const times: number[] = [];
  for (let index = 0; index < items; index++) {
    const receipt = await readReceipt(services.bucket, { batch, index, attempt: 1 });
    if (receipt !== null) times.push(Date.parse(receipt.recorded_at));
  }
  return times;
}

async function measureHops(processes: number, items: number, signal: AbortSignal): Promise<Measured> {
  await using system = await startSystem({ emulator: {}, signal });
  await using opened = new AsyncDisposableStack();
  const redis = new Redis(system.redisUrl, { maxRetriesPerRequest: null });
  opened.defer(() => redis.disconnect());
  const first = new Queue(HOPS[0], { connection: redis, streams: { events: { maxLen: 1_000 } } });
  opened.defer(() => first.close());

  const ends: number[] = [];
  const children: Child[] = [];
  for (let n = 0; n < processes; n++) {
    const child = opened.use(new Child("test/bench/hops-process.ts"));
    child.listen((message) => {
      if (message.kind === "ended") ends.push(...(message as HopsEnded).atMs);
    });
    const ready = child.next("ready");
    const order: HopsOrder = { kind: "open", redisUrl: system.redisUrl };
    child.send(order);
    await ready;
    children.push(child);
  }
  const meter = await startMeter(redis, children, null);
  const jobs = Array.from({ length: items }, (_, n) => ({
    name: "errand",
    data: ["bench"],
    opts: { ...HOP_JOB, jobId: `row-${n}` },
  }));
  for (let at = 0; at < items; at += 500) await first.addBulk(jobs.slice(at, at + 500));
  const startMs = Date.now();
  for (const child of children) child.send({ kind: "go" });
  await system.until(`${items} jobs pass four queues`, async () => ends.length >= items, {
    everyMs: 50,
    limitMs: LIMIT_MS,
  });
  return {
    name: `bare BullMQ, ${count(processes, "worker")}`,
    processes,
    items,
    rates: ratesOf(startMs, ends),
    ...(await meter()),
    polls: null,
    trouble: 0,
  };
}

/** What is used from now on; the function it answers reads it off. */
async function startMeter(
  redis: Redis,
  workers: readonly Child[],
  emulator: Child | null,
): Promise<() => Promise<Pick<Measured, "redis" | "workerCpuMs" | "loopBusy" | "emulatorCpuMs">>> {
  const read = async () => ({
    workers: await Promise.all(workers.map((worker) => worker.measure())),
    emulator: (await emulator?.measure()) ?? null,
    redis: await redisUse(redis),
  });
  const before = await read();
  return async () => {
    const after = await read();
    const pairs = after.workers.map((usage, n) => [before.workers[n] as Usage, usage] as const);
    return {
      redis: redisUseBetween(before.redis, after.redis),
      workerCpuMs: pairs.reduce((sum, [was, is]) => sum + is.cpuMs - was.cpuMs, 0),
      loopBusy: Math.max(...pairs.map(([was, is]) => busyBetween(was, is))),
      emulatorCpuMs: after.emulator === null ? null : after.emulator.cpuMs - (before.emulator?.cpuMs ?? 0),
    };
  };
}

function busyBetween(before: Usage, after: Usage): number {
  const active = after.activeMs - before.activeMs;
  return active / (active + after.idleMs - before.idleMs);
}

function ratio(value: number, ceiling: number | undefined): string {
  return ceiling === undefined ? "" : fixed(value / ceiling, 2);
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
