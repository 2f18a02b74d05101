/**
 * The keeper: finds what was dropped. Every open item stands in a sorted set by its last touch; one that nobody has
 * touched for ten minutes gets the errand that its state implies, added if it is missing, retried if it failed.
 * Adding an errand that exists changes nothing, so a busy item is merely looked at.
 *
 * It also keeps feeds and sweeps running and finishes batches whose end nobody noticed. Dying in between loses nothing:
 * the next run, a minute later, looks again.
 */

import { haveAllEnded } from "../src/core/batch.ts";
import type { ItemByte } from "../src/core/item.ts";
import { type Errand, errandFor, UNTOUCHED_MS } from "../src/core/keeping.ts";
import { type AccountName, type AttemptRef, type BatchId, errandId } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import type { BatchStanding, OpenItemFields } from "../src/ledger/ledger.ts";

export type KeepDeps = {
  readonly accounts: readonly AccountName[];
  readonly untouched: (account: AccountName, beforeMs: number, limit: number) => Promise<readonly AttemptRef[]>;
  readonly readItem: (ref: AttemptRef) => Promise<ItemByte & { readonly fields: Partial<OpenItemFields> }>;
  readonly touch: (ref: AttemptRef, nowMs: number) => Promise<void>;
  /** It isn't open after all. */
  readonly close: (ref: AttemptRef) => Promise<void>;
  /** Adds the errand, or gives a failed one its tries again. */
  readonly revive: (ref: AttemptRef, errand: Errand, fields: Partial<OpenItemFields>) => Promise<void>;
  /** The errands that never end: the account's feed and its sweep. */
  readonly reviveErrands: (account: AccountName) => Promise<void>;
  readonly unfinishedBatches: (account: AccountName, limit: number) => Promise<readonly BatchId[]>;
  readonly standing: (account: AccountName, batch: BatchId) => Promise<BatchStanding | null>;
  readonly enqueueFinish: (account: AccountName, batch: BatchId) => Promise<void>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: () => number;
};

/** A run looks at so many items of an account, the longest untouched first, and at so many of its oldest batches. */
const LIMIT = 1_000;

export async function keepItems(deps: KeepDeps, signal: AbortSignal): Promise<StageOutcome> {
  for (const account of deps.accounts) {
    await deps.reviveErrands(account);
    for (const ref of await deps.untouched(account, deps.clock() - UNTOUCHED_MS, LIMIT)) {
      if (signal.aborted) return DONE;
      // One that can't be helped must not keep the others waiting.
      await keepItem(ref, deps).catch(async (error: unknown) => {
        deps.warn({ item: errandId(ref), err: error }, "an item stands still and couldn't be given its errand");
        await deps.touch(ref, deps.clock());
      });
    }
    for (const batch of await deps.unfinishedBatches(account, LIMIT)) {
      const standing = await deps.standing(account, batch);
      if (standing !== null && standing.batch.items > 0 && haveAllEnded(standing.counts))
        await deps.enqueueFinish(account, batch);
    }
  }
  return DONE;
}

async function keepItem(ref: AttemptRef, deps: KeepDeps): Promise<void> {
  const item = await deps.readItem(ref);
  const errand = item.attempt === ref.attempt ? errandFor(item.state) : null;
  if (errand === null) return deps.close(ref);
  await deps.revive(ref, errand, item.fields);
  await deps.touch(ref, deps.clock());
}
