/**
 * What people do in a chaos run, drawn from the seed: every few seconds a batch is paused and, some seconds later, let
 * go on; and items that failed are bought again. Whoever isn't answered, as while Redis is away or knows nothing, says
 * it again.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { CannotHold, type Hold, holdBatch } from "../../src/batches/hold-batch.ts";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import type { BatchId } from "../../src/core/naming.ts";
import { drawFraction } from "../../src/emulator/chance.ts";
import type { BatchStanding } from "../../src/ledger/ledger.ts";
import { every } from "./every.ts";
import type { World } from "./world.ts";

export type PeoplePlan = {
  readonly seed: string;
  /** Pauses between one thing and the next. */
  readonly everyMs: { readonly hold: Range; readonly redrive: Range };
  readonly heldMs: Range;
};

type Range = readonly [from: number, to: number];

export type PeopleCounts = { holds: number; redriven: number };

export type PeopleDeps = {
  readonly batches: ReadonlySet<BatchId>;
  /** They come to an end. */
  readonly until: AbortSignal;
  /** Nobody waits for anything any more. */
  readonly signal: AbortSignal;
};

const AGAIN_MS = 500;
const TRIES = 120;
/** Of the items that failed and were found so. */
const REDRIVEN = 0.7;
/** Some fail for ever. */
const MOST_ATTEMPTS = 4;

/** Resolves when they have come to an end, and nothing is paused any more. */
export async function people(world: World, plan: PeoplePlan, counts: PeopleCounts, deps: PeopleDeps): Promise<void> {
  const draw = (what: string, [from, to]: Range) => from + (to - from) * drawFraction(plan.seed, what);
  const chosen = (what: string) => [...deps.batches][Math.floor(draw(what, [0, deps.batches.size]))];

  const holding = every(deps.until, async (turn) => {
    await sleep(draw(`pause before hold ${turn}`, plan.everyMs.hold), undefined, { signal: deps.until });
    const batch = chosen(`held ${turn}`);
    if (batch === undefined) return;
    await say(world, batch, deps, (standing) => hold(world, standing, "pause"));
    counts.holds++;
    await sleep(draw(`held for ${turn}`, plan.heldMs), undefined, { signal: deps.signal });
    await say(world, batch, deps, (standing) => hold(world, standing, "resume"));
  });
  const redriving = every(deps.until, async (turn) => {
    await sleep(draw(`pause before redrive ${turn}`, plan.everyMs.redrive), undefined, { signal: deps.until });
    for (const batch of deps.batches) {
      counts.redriven += await say(world, batch, deps, (standing) => redrive(world, standing, plan.seed));
    }
  });
  await Promise.all([holding, redriving]);
}

/** Until it is heard; throws what kept it from being heard for so long. */
async function say<T>(
  { services }: World,
  batch: BatchId,
  { signal }: PeopleDeps,
  what: (standing: BatchStanding) => Promise<T>,
): Promise<T> {
  for (let tried = 1; ; tried++) {
    try {
      const account = await services.ledger.accountOf(batch);
      const standing = account === null ? null : await services.ledger.standing(account, batch);
      if (standing !== null) return await what(standing);
      if (tried === TRIES) throw new Error(`Redis doesn't come to know batch ${batch} again`);
    } catch (error) {
      if (tried === TRIES) throw error;
    }
    await sleep(AGAIN_MS, undefined, { signal });
  }
}

async function hold({ services }: World, standing: BatchStanding, act: Hold): Promise<void> {
  try {
    await holdBatch(standing, act, { ...services, clock: Date.now });
  } catch (error) {
    if (!(error instanceof CannotHold)) throw error; // it has finished
  }
}

/** Answers how many wait to be bought again. */
async function redrive({ services }: World, { batch }: BatchStanding, seed: string): Promise<number> {
  const states = await services.ledger.readStates(batch.account, batch.id, 0, batch.items);
  const indexes = states.flatMap(({ state, attempt }, index): [number, number][] => {
    const isWanted = drawFraction(seed, `redrive ${batch.kind} ${index} after ${attempt}`) < REDRIVEN;
    return state === "failed" && attempt < MOST_ATTEMPTS && isWanted ? [[index, index]] : [];
  });
  if (indexes.length === 0) return 0;
  return redriveItems(batch, { ends: new Set(["failed"]), indexes }, { ...services, clock: Date.now });
}
