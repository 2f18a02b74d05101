/**
 * Pauses a batch, lets it go on, or cancels it: a person's decision, recorded in the bucket before it takes effect.
 *
 * All three act at once: claims look at the batch's flag, so what is in the create queue already is turned away too. A
 * cancel's walk over the items is the feed's work (`workers/feed-batches.ts`). If this process dies after the act,
 * nothing has happened but for the note that somebody wanted it; it can be said again.
 */

import { writeBatchAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { Batch } from "../core/batch.ts";
import type { BatchStanding, HoldAnswer, Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { pausedBy } from "./judge-acts.ts";

/** The batch stands so that this can't be done to it; the message says how it stands. */
export class CannotHold extends Error {
  override readonly name = "CannotHold";
}

export type Hold = "pause" | "resume" | "cancel";

export type HoldDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "pauseBatch" | "resumeBatch" | "cancelBatch" | "nextAct" | "isOpen">;
  readonly queues: Pick<Queues, "wakeFeed">;
  readonly clock: () => number;
};

/** Answers whether it changed anything. Throws CannotHold. */
export async function holdBatch(standing: BatchStanding, act: Hold, deps: HoldDeps): Promise<boolean> {
  const { batch, finishedAtMs, canceledAtMs } = standing;
  if (act === "cancel" && batch.kind === "singles") {
    throw new CannotHold(`batch ${batch.id} holds single predictions, and more may come: cancel them one by one`);
  }
  if (finishedAtMs !== null) throw new CannotHold(`batch ${batch.id} has finished`);
  if (canceledAtMs !== null && act !== "cancel") throw new CannotHold(`batch ${batch.id} is canceled`);
  if (isSo(standing, act) && (await deps.ledger.isOpen(batch.account))) return false;

  const nowMs = deps.clock();
  await writeBatchAct(deps.bucket, batch.id, await deps.ledger.nextAct(batch), { act }, nowMs);
  const answer = await takeEffect(batch, act, nowMs, deps);
  if (answer === "over") throw new CannotHold(`batch ${batch.id} has ended, or was canceled, at this moment`);
  await deps.queues.wakeFeed(batch.account);
  return answer === "done";
}

/** As far as Redis knows: one that may have lost the last decision isn't believed, and this one goes on record. */
function isSo({ paused, canceledAtMs }: BatchStanding, act: Hold): boolean {
  switch (act) {
    case "pause":
      return paused !== null;
    case "resume":
      return paused === null;
    case "cancel":
      return canceledAtMs !== null;
    default:
      return act satisfies never;
  }
}

function takeEffect(batch: Batch, act: Hold, nowMs: number, { ledger }: HoldDeps): Promise<HoldAnswer> {
  switch (act) {
    case "pause":
      return ledger.pauseBatch(batch, pausedBy(nowMs));
    case "resume":
      return ledger.resumeBatch(batch);
    case "cancel":
      return ledger.cancelBatch(batch, nowMs);
    default:
      return act satisfies never;
  }
}
