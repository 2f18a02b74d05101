/**
 * One chaos run: items are submitted, most as a batch and some one by one while it runs; the storm passes over the fleet;
 * then nothing is done any more until nothing happens any more; and the outcome is judged.
 */

import { writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { EmulatorOptions } from "../../src/emulator/options.ts";
import type { BatchId, BatchReport, ResultLine } from "../../src/index.ts";
import { RETRY_FAILED, readDecisions } from "./decisions.ts";
import { readEvidence } from "./evidence.ts";
import { faults, listRules } from "./faults.ts";
import { drawItems, type Item } from "./items.ts";
import { judge, type Verdict } from "./judge.ts";
import { type StormCounts, type StormPlan, storm } from "./storm.ts";
import { startWorld, type World } from "./world.ts";

export type RunPlan = {
  readonly seed: string;
  readonly folder: string;
  readonly items: number;
  readonly hostile: boolean;
  readonly workers: number;
  readonly createsPerMinute: number;
  /** The share of creates that buy and aren't clearly answered. */
  readonly unclear: number;
  /** Of each kind of unclear answer; null: any number. */
  readonly most: number | null;
  readonly lagMs: number;
  readonly settlingSeconds: number;
  /** Null: nothing is done to the fleet. */
  readonly storm: Omit<StormPlan, "seed"> | null;
  readonly limitMs: number;
};

export type RunDeps = { readonly tell: (what: string) => void; readonly signal: AbortSignal };

export type RunResult = {
  readonly verdict: Verdict;
  readonly storm: StormCounts;
  readonly seconds: number;
  readonly roundTripsPerItem: number;
};

/** The share of items that come one by one, so many at a time. */
const SINGLES = 0.1;
const SINGLES_AT_ONCE = 4;
const LOOK_MS = 500;
const SETTLED_LOOK_MS = 1_000;
const ENQUEUE_TRIES = 60;
/** Deadline of a create, clocks that differ, and two sweeps: what the settling time is added to. */
const EVIDENCE_MS = 30_000 + 30_000 + 2 * 15_000;
/** For the keeper, and for a machine with other work. */
const SLACK_MS = 60_000;

export async function runOnce(plan: RunPlan, { tell, signal: stopped }: RunDeps): Promise<RunResult> {
  const startedMs = performance.now();
  const over = new AbortController();
  const limit = AbortSignal.timeout(plan.limitMs);
  const signal = AbortSignal.any([stopped, over.signal, limit]);
  const items = drawItems({ seed: plan.seed, count: plan.items, failing: true, hostile: plan.hostile });
  await using world = await startWorld({ ...plan, emulator: emulatorOf(plan), isTold: plan.storm !== null });
  if (plan.unclear > 0) for (const fault of faults(plan)) world.emulator.arm(fault);
  for (let started = 0; started < plan.workers; started++) world.startWorker();

  const alone = Math.floor(plan.items * SINGLES);
  const file = await submit(world, items.slice(alone));
  const batches = new Set<BatchId>([file]);
  const enqueued = enqueueAll(world, items.slice(0, alone), batches, plan, signal);
  const watch = new Watch(world, batches, plan.items);
  const watching = watch.run(signal);
  const counts: StormCounts = { kills: 0, freezes: 0, redisLosses: 0, foreign: 0, holds: 0, redriven: 0 };
  const pass = async () => {
    await Promise.all([passStorm(world, plan, counts, { batches, watch, tell, signal }), enqueued]);
    const { delivered } = world.emulator.books().webhooks;
    tell(
      `left alone after ${counts.holds} pauses, ${counts.redriven} redriven and ${delivered} told with ${watch.shown()}`,
    );
    await settled(world, watch, plan, signal);
  };
  try {
    await pass().catch((error: unknown) => {
      if (stopped.aborted || !limit.aborted) throw error;
      tell(`judged at its limit with ${watch.shown()}`);
    });
    const trips = await world.redis.roundTrips();
    if (world.endedByThemselves() > 0)
      tell(`${world.endedByThemselves()} workers had ended by themselves, see their logs`);
    await world.drain().catch((error: unknown) => tell(String(error)));
    return {
      verdict: await judgeWorld(world, plan, items, { file, batches }),
      storm: counts,
      seconds: (performance.now() - startedMs) / 1_000,
      roundTripsPerItem: trips / plan.items,
    };
  } catch (error) {
    if (stopped.aborted) throw stopped.reason;
    throw new Error(`the run broke off with ${watch.shown()}: ${String(error)}`, { cause: error });
  } finally {
    over.abort();
    await Promise.allSettled([watching, enqueued]);
  }
}

function emulatorOf(plan: RunPlan): EmulatorOptions {
  return {
    seed: plan.seed,
    createsPerMinute: Number.POSITIVE_INFINITY,
    readsPerMinute: Number.POSITIVE_INFINITY,
    runMs: { medianMs: 1_500, spread: 0.5 },
    list: listRules(plan),
    foreignTwins: plan.hostile ? 0.05 : 0,
  };
}

async function passStorm(
  world: World,
  { seed, items, storm: plan }: RunPlan,
  counts: StormCounts,
  { batches, watch, tell, signal }: RunDeps & { readonly watch: Watch; readonly batches: ReadonlySet<BatchId> },
): Promise<void> {
  if (plan === null) return;
  const progress = () => watch.ended / items;
  await storm(world, { ...plan, seed }, counts, {
    batches,
    progress,
    tell: (what) => tell(`${what} with ${watch.shown()}`),
    signal,
  });
}

async function judgeWorld(
  { client, emulator, services, folder }: World,
  { hostile }: RunPlan,
  items: readonly Item[],
  { file, batches }: { readonly file: BatchId; readonly batches: ReadonlySet<BatchId> },
): Promise<Verdict> {
  const lines: ResultLine[] = [];
  const reports: BatchReport[] = [];
  for (const batch of batches) {
    reports.push(await client.status(batch));
    lines.push(...(await Array.fromAsync(client.results(batch))));
  }
  const decisions = await readDecisions(services.bucket, batches, file);
  const evidence = hostile ? await readEvidence(emulator, services, lines) : null;
  const verdict = await judge({ items, lines, reports, decisions }, emulator, services.bucket, evidence);
  await writeFile(path.join(folder, "offenders.json"), JSON.stringify(verdict.offenders, null, 2));
  return verdict;
}

async function submit(world: World, items: readonly Item[]): Promise<BatchId> {
  const { batch } = await world.client.submit(
    items.map(({ id, model, input }) => ({ id, model, input })),
    { name: "chaos", retryFailed: RETRY_FAILED },
  );
  return batch;
}

/**
 * In small groups over the run's first half. Whoever isn't answered, as while Redis is down, asks again with the same
 * id.
 */
async function enqueueAll(
  { client }: World,
  items: readonly Item[],
  batches: Set<BatchId>,
  { items: all, createsPerMinute }: RunPlan,
  signal: AbortSignal,
): Promise<void> {
  const groups = Math.max(Math.ceil(items.length / SINGLES_AT_ONCE), 1);
  const pauseMs = ((all / createsPerMinute) * 60_000) / groups;
  for (let at = 0; at < items.length; at += SINGLES_AT_ONCE) {
    await sleep(pauseMs, undefined, { signal });
    await Promise.all(
      items.slice(at, at + SINGLES_AT_ONCE).map(async ({ id, model, input }) => {
        for (let tried = 1; ; tried++) {
          try {
            batches.add((await client.enqueue({ id, model, input })).batch);
            return;
          } catch (error) {
            if (tried === ENQUEUE_TRIES) throw error;
            await sleep(LOOK_MS, undefined, { signal });
          }
        }
      }),
    );
  }
}

/** Looks at the batches again and again, also while Redis is away or knows nothing. */
class Watch {
  ended = 0;
  unclear = 0;
  /** When a count changed last. */
  changedMs = performance.now();
  #seen = "";
  readonly #world: World;
  readonly #batches: ReadonlySet<BatchId>;
  readonly #items: number;

  constructor(world: World, batches: ReadonlySet<BatchId>, items: number) {
    this.#world = world;
    this.#batches = batches;
    this.#items = items;
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const reports = await this.reports().catch(() => null); // asked again
      if (reports !== null) this.#take(reports);
      await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  reports(): Promise<readonly BatchReport[]> {
    return Promise.all([...this.#batches].map((batch) => this.#world.client.status(batch)));
  }

  shown(): string {
    return `${this.ended} of ${this.#items} items ended, ${this.unclear} unclear`;
  }

  #take(reports: readonly BatchReport[]): void {
    const seen = JSON.stringify(
      reports.map(({ saved, failed, unclear, waiting }) => [saved, failed, unclear, waiting]),
    );
    if (seen !== this.#seen) this.changedMs = performance.now();
    this.#seen = seen;
    this.ended = sum(reports.map(({ saved, failed, canceled }) => saved + failed + canceled));
    this.unclear = sum(reports.map(({ unclear }) => unclear));
  }
}

/** Until all has ended and the batch is finished, or until nothing has changed for longer than any evidence takes. */
async function settled(world: World, watch: Watch, { items, settlingSeconds }: RunPlan, signal: AbortSignal) {
  const patienceMs = EVIDENCE_MS + settlingSeconds * 1_000 + SLACK_MS;
  for (;;) {
    await sleep(SETTLED_LOOK_MS, undefined, { signal });
    const isQuiet = performance.now() - watch.changedMs > patienceMs;
    const reports = watch.ended === items || isQuiet ? await watch.reports() : [];
    const { starting, processing } = world.emulator.books().predictions;
    if (starting + processing > 0 && !isQuiet) continue;
    if (isQuiet || (watch.ended === items && reports.some(({ finished_at }) => finished_at !== null))) return;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
