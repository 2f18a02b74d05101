/**
 * Ends an item that waits, unbought: a person canceled it, or its deadline passed. Its receipt says so.
 *
 * Order of effects: the item's byte, the receipt, whoever wants to hear of it, the batch's finish. Whoever dies in between
 * and comes again carries on; where nobody comes again the item is canceled without a receipt, as the items of a
 * canceled batch are.
 */

import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import { readEarlierAttempts, writeReceipt } from "../bucket/records.ts";
import { type AttemptRef, replyJobId } from "../core/naming.ts";
import { buildReceipt, resultLineOf } from "../core/receipt.ts";
import type { Ledger, MoveAnswer } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";

export type WithdrawDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "move">;
  readonly queues: Pick<Queues, "notify" | "reply" | "finish">;
  readonly clock: () => number;
};

/** What ended it: `canceled`, or `aborted` by its deadline, as the provider's own words have it. */
export type Withdrawal = { readonly as: "canceled" | "aborted"; readonly error: string };

export const CANCELED_BY_A_PERSON: Withdrawal = { as: "canceled", error: "canceled before it was bought" };

/** Answers `moved` or `already` where the item has ended so; `lost` where it doesn't wait any more; see `unopened`. */
export async function withdrawItem(
  ref: AttemptRef,
  row: StoredRow,
  { as, error }: Withdrawal,
  { bucket, ledger, queues, clock }: WithdrawDeps,
): Promise<MoveAnswer> {
  const nowMs = clock();
  const moved = await ledger.move(ref, "withdraw", { nowMs });
  if (moved.answer === "lost" || moved.answer === "unopened") return moved;

  const webhookEvents = row.webhook?.events ?? [];
  const receipt = await writeReceipt(
    bucket,
    ref,
    buildReceipt({
      ref,
      rowId: row.id ?? null,
      replyTo: row.reply_to ?? null,
      webhookEvents,
      predictionId: null,
      claimedAtMs: null,
      recordedAtMs: nowMs,
      ending: { end: "canceled", error, answer: null, copied: [], unboughtAs: as },
      earlier: await readEarlierAttempts(bucket, ref),
    }),
  );
  // It had ended before, for another reason; whoever ended it tells.
  if (receipt.error !== error) return moved;
  if (receipt.reply_to !== null) {
    await queues.reply(receipt.reply_to, replyJobId(ref), resultLineOf(receipt));
  }
  if (webhookEvents.some((event) => event !== "start")) await queues.notify(ref, "end");
  if (moved.left === 0) await queues.finish(ref.account, ref.batch);
  return moved;
}
