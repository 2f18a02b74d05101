/**
 * What a chaos run does to its fleet, drawn from the seed: every few seconds a worker is killed without a word and
 * another started; one after another is frozen past its locks and goes on; Redis loses its last seconds, and once
 * everything; strangers buy on the account, and people pause and redrive (`people.ts`). The order of what befalls Redis
 * is tied to how far the items are, not to the clock, so that it strikes in the middle of work on a fast and on a slow
 * machine.
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { BatchId } from "../../src/core/naming.ts";
import { drawFraction } from "../../src/emulator/chance.ts";
import { every } from "./every.ts";
import { foreignOrder } from "./items.ts";
import { type PeopleCounts, type PeoplePlan, people } from "./people.ts";
import type { World } from "./world.ts";

export type StormPlan = {
  readonly seed: string;
  /** What befalls Redis once that share of the items has ended. */
  readonly redis: readonly { readonly at: number; readonly what: "loses its last seconds" | "loses everything" }[];
  readonly everyMs: { readonly kill: Range; readonly freeze: Range; readonly foreign: number };
  /** A lock lasts 10 s. */
  readonly frozenMs: Range;
  /** Kills end when that share of the items has ended, and all that was to befall Redis has. */
  readonly until: number;
  readonly people: Omit<PeoplePlan, "seed">;
  /** People end when that share of the items has ended, and the kills have. */
  readonly peopleUntil: number;
};

type Range = readonly [from: number, to: number];

export type StormCounts = PeopleCounts & { kills: number; freezes: number; redisLosses: number; foreign: number };

export type StormDeps = {
  readonly batches: ReadonlySet<BatchId>;
  /** The share of items that have ended, as far as is known. */
  readonly progress: () => number;
  readonly tell: (what: string) => void;
  readonly signal: AbortSignal;
};

/** A prefix of its writes so much older than the crash is what Redis comes back with. */
const LOST_MS: Range = [1_000, 3_000];
const LOOK_MS = 100;

/** Resolves when it is over, and counts as it goes; throws where the fleet can't be carried on. */
export async function storm(world: World, plan: StormPlan, counts: StormCounts, deps: StormDeps): Promise<void> {
  const over = new AbortController();
  const peopleOver = new AbortController();
  const until = AbortSignal.any([over.signal, deps.signal]);
  const draw = (what: string, [from, to]: Range) => from + (to - from) * drawFraction(plan.seed, what);
  const victim = (what: string) => {
    const awake = world.workers().filter((worker) => !worker.isFrozen());
    return awake[Math.floor(draw(what, [0, awake.length]))];
  };

  const killing = every(until, async (turn) => {
    await sleep(draw(`pause before kill ${turn}`, plan.everyMs.kill), undefined, { signal: until });
    await victim(`kill ${turn}`)?.kill();
    world.startWorker();
    counts.kills++;
  });
  const freezing = every(until, async (turn) => {
    await sleep(draw(`pause before freeze ${turn}`, plan.everyMs.freeze), undefined, { signal: until });
    const worker = victim(`freeze ${turn}`);
    worker?.freeze();
    counts.freezes++;
    // Past its locks, even if the storm is over before.
    await sleep(draw(`frozen ${turn}`, plan.frozenMs), undefined, { signal: deps.signal }).finally(() =>
      worker?.thaw(),
    );
  });
  const buying = every(until, async (turn) => {
    await sleep(plan.everyMs.foreign, undefined, { signal: until });
    world.emulator.buyForeign(foreignOrder(turn));
    counts.foreign++;
  });
  const peopleUntil = AbortSignal.any([peopleOver.signal, deps.signal]);
  const acting = people(world, { ...plan.people, seed: plan.seed }, counts, { ...deps, until: peopleUntil });
  const redis = (async () => {
    for (const [turn, { at, what }] of plan.redis.entries()) {
      await reached(at, deps, until);
      deps.tell(`Redis ${what}`);
      if (what === "loses everything") {
        await world.redis.loseAll();
        await world.command(["rebuild"]);
      } else {
        await world.redis.loseLast(draw(`lost ${turn}`, LOST_MS));
      }
      counts.redisLosses++;
    }
    await reached(plan.until, deps, until);
  })();

  try {
    // The others go on until they are told to stop; one that fails ends the run.
    await Promise.race([redis, ...[killing, freezing, buying, acting].map((going) => going.then(() => redis))]);
    over.abort();
    await Promise.race([reached(plan.peopleUntil, deps, peopleUntil), acting]);
  } finally {
    over.abort();
    peopleOver.abort();
    await Promise.allSettled([killing, freezing, buying, redis, acting]);
  }
  await acting;
}

async function reached(share: number, { progress }: StormDeps, signal: AbortSignal): Promise<void> {
  while (progress() < share) await sleep(LOOK_MS, undefined, { signal });
}
