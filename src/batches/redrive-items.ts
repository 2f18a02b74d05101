/**
 * Opens another attempt of items that have ended unsaved: a person's decision to spend again, recorded in the bucket
 * before it takes effect. The earlier attempt's receipt and outputs stay.
 *
 * It goes by slices: each is an act with its items, then one script. If this process dies in between, the slices that are
 * done are done, and saying it again does the rest: an item that waits by then has not ended, and is left as it is.
 */

import { has, type MultiIntegerRange } from "multi-integer-range";
import { writeBatchAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import { type Batch, haveAllEnded } from "../core/batch.ts";
import { failureGroup } from "../core/failing.ts";
import { type ItemByte, MAX_ATTEMPT } from "../core/item.ts";
import type { Ledger, Redriven } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { CannotHold } from "./hold-batch.ts";

/** Which of the items that have ended unsaved. */
export type RedriveChoice = {
  readonly ends: ReadonlySet<"failed" | "canceled">;
  /** Only these. */
  readonly indexes?: MultiIntegerRange;
  /** Only those whose error has these words in it. */
  readonly error?: string;
};

export type RedriveDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "standing" | "isCanceling" | "readStates" | "redrive" | "nextAct">;
  readonly queues: Pick<Queues, "wakeFeed">;
  readonly clock: () => number;
};

const STATES_AT_ONCE = 65_536;
/** Items of one act and one script. */
const SLICE = 500;
const READS_AT_ONCE = 32;

/** Answers how many items wait to be bought again. Throws CannotHold while items of a canceled batch haven't ended. */
export async function redriveItems(batch: Batch, choice: RedriveChoice, deps: RedriveDeps): Promise<number> {
  await requireOver(batch, deps);
  let opened = 0;
  for (let start = 0; start < batch.items; start += STATES_AT_ONCE) {
    const length = Math.min(STATES_AT_ONCE, batch.items - start);
    const states = await deps.ledger.readStates(batch.account, batch.id, start, length);
    const candidates = states.flatMap((item, at) => (isChosen(start + at, item, choice) ? start + at : []));
    for (let at = 0; at < candidates.length; at += SLICE) {
      const slice = candidates
        .slice(at, at + SLICE)
        .map((index) => ({ index, ended: attemptOf(states, start, index) }));
      opened += await redriveSlice(batch, await withFailures(batch, slice, choice, deps), deps);
    }
  }
  if (opened > 0) await deps.queues.wakeFeed(batch.account);
  return opened;
}

/** What still is on its way in a canceled batch is ended by its cancel, which a redrive would take back. */
async function requireOver(batch: Batch, { ledger }: RedriveDeps): Promise<void> {
  const standing = await ledger.standing(batch.account, batch.id);
  if (standing === null || standing.canceledAtMs === null) return;
  if (!haveAllEnded(standing.counts) || (await ledger.isCanceling(batch))) throw stillCanceled(batch);
}

function stillCanceled({ id }: Batch): CannotHold {
  return new CannotHold(`batch ${id} is canceled, and some of its items haven't ended yet: redrive it when they have`);
}

function isChosen(index: number, { state, attempt }: ItemByte, { ends, indexes }: RedriveChoice): boolean {
  if ((state !== "failed" && state !== "canceled") || !ends.has(state) || attempt === MAX_ATTEMPT) return false;
  return indexes === undefined || has(indexes, [[index, index]]);
}

function attemptOf(states: readonly ItemByte[], start: number, index: number): number {
  return states[index - start]?.attempt ?? 1;
}

/** Those whose error is the one that was asked for, and which group of failures each leaves. */
async function withFailures(
  { id: batch, kind }: Batch,
  items: readonly { readonly index: number; readonly ended: number }[],
  { error }: RedriveChoice,
  { bucket }: RedriveDeps,
): Promise<readonly Redriven[]> {
  const chosen: Redriven[] = [];
  for (let at = 0; at < items.length; at += READS_AT_ONCE) {
    const receipts = await Promise.all(
      items.slice(at, at + READS_AT_ONCE).map(async ({ index, ended }) => {
        return { index, ended, receipt: await readReceipt(bucket, { batch, index, attempt: ended }) };
      }),
    );
    for (const { index, ended, receipt } of receipts) {
      // A single that ended without a receipt is void: its input is another item.
      if (receipt === null && kind === "singles") continue;
      if (error !== undefined && receipt?.error?.toLowerCase().includes(error.toLowerCase()) !== true) continue;
      chosen.push({ index, ended, ...(receipt?.status === "failed" && { failure: failureGroup(receipt.error) }) });
    }
  }
  return chosen;
}

async function redriveSlice(batch: Batch, items: readonly Redriven[], deps: RedriveDeps): Promise<number> {
  if (items.length === 0) return 0;
  // Before the act: one that never takes effect would be believed where Redis is lost.
  await requireOver(batch, deps);
  const nowMs = deps.clock();
  const act = { act: "redrive" as const, items: items.map(({ index, ended }): [number, number] => [index, ended]) };
  await writeBatchAct(deps.bucket, batch.id, await deps.ledger.nextAct(batch), act, nowMs);
  const opened = await deps.ledger.redrive(batch, items, nowMs);
  if (opened === null) throw stillCanceled(batch);
  return opened === items.length ? opened : countOpened(batch, items, deps);
}

/** The script may have run before, and its answer was lost: what it opened then is opened all the same. */
async function countOpened(
  { account, id }: Batch,
  items: readonly Redriven[],
  { ledger }: RedriveDeps,
): Promise<number> {
  const now = await Promise.all(items.map(({ index }) => ledger.readStates(account, id, index, 1)));
  return items.filter(({ ended }, at) => (now[at]?.[0]?.attempt ?? 0) > ended).length;
}
