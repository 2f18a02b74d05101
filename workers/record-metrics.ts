/**
 * Records an attempt's end: the receipt in the bucket first, then the item's byte and the batch's totals in one
 * script, exactly once. Then whoever asked for an answer gets it, and a batch whose last item this was is finished.
 *
 * What the provider itself failed is bought again, if the batch's people said so: the same script that ends the attempt
 * opens the next one, so that nothing is told of an end that isn't the item's.
 *
 * If this process dies:
 *   after the receipt     the next run adopts the receipt that it finds.
 *   after the end         the next run finds the item ended, reads the receipt and carries on: the answer may be
 *                         given twice (its job has the attempt's id), the totals are not added twice. A client's
 *                         webhook may be called twice, with one id.
 *   after the answer      the same.
 */

import { failureGroup } from "../src/core/failing.ts";
import { END_STEPS, type ItemByte, isEnd } from "../src/core/item.ts";
import { type AttemptRef, errandId, replyJobId } from "../src/core/naming.ts";
import { DONE, NOTHING, type StageOutcome } from "../src/core/outcome.ts";
import { WEBHOOK_EVENTS } from "../src/core/prediction.ts";
import {
  type AttemptLine,
  billedTimeMs,
  buildReceipt,
  type Ending,
  failedByProvider,
  notSavedBy,
  type Receipt,
  type ResultLine,
  resultLineOf,
} from "../src/core/receipt.ts";
import type { MoveAnswer, MoveOptions, OpenItemFields } from "../src/ledger/ledger.ts";
import type { RecordErrand } from "../src/queues/queues.ts";

export type RecordDeps = {
  readonly readItem: (ref: AttemptRef) => Promise<ItemByte & { readonly fields: Partial<OpenItemFields> }>;
  readonly readEnding: (ref: AttemptRef, kept: string) => Promise<Ending>;
  readonly readReceipt: (ref: AttemptRef) => Promise<Receipt | null>;
  readonly readEarlierAttempts: (ref: AttemptRef) => Promise<readonly AttemptLine[]>;
  /** Answers the receipt that stands in the bucket: this one, or an earlier run's. */
  readonly writeReceipt: (ref: AttemptRef, receipt: Receipt) => Promise<Receipt>;
  readonly move: (ref: AttemptRef, step: "save" | "fail" | "cancel", options: MoveOptions) => Promise<MoveAnswer>;
  readonly reply: (queue: string, id: string, line: ResultLine) => Promise<void>;
  readonly enqueueNotify: (ref: AttemptRef, event: "end") => Promise<void>;
  readonly enqueueFinish: (ref: AttemptRef) => Promise<void>;
  readonly wakeFeed: (ref: AttemptRef) => Promise<void>;
  readonly clock: () => number;
};

export async function recordMetrics(ref: RecordErrand, deps: RecordDeps): Promise<StageOutcome> {
  const receipt = await standingReceipt(ref, deps);
  if (receipt === null) return NOTHING;

  const ended = await deps.move(ref, END_STEPS[receipt.status], {
    nowMs: deps.clock(),
    sums: {
      predict_time_ms: billedTimeMs(receipt),
      output_bytes: receipt.outputs.reduce((sum, { bytes }) => sum + BigInt(bytes), 0n),
      output_files: BigInt(receipt.outputs.length),
      not_saved: notSavedBy(receipt),
    },
    ...(receipt.status === "failed" && { failure: failureGroup(receipt.error) }),
    ...(receipt.status === "saved" && receipt.outputs.length > 0 && { hasFiles: true }),
    ...(failedByProvider(receipt) && { retry: { recordedAtMs: Date.parse(receipt.recorded_at) } }),
  });
  if (ended.answer === "retried") {
    await deps.wakeFeed(ref);
    return DONE;
  }
  if (ended.answer === "lost") return NOTHING;

  if (receipt.reply_to !== null) await deps.reply(receipt.reply_to, replyJobId(ref), resultLineOf(receipt));
  if (receipt.webhook_events.some((event) => event !== "start")) await deps.enqueueNotify(ref, "end");
  if (ended.left === 0) await deps.enqueueFinish(ref);
  return DONE;
}

/** The attempt's receipt, written now or by an earlier run; null where there is nothing to record. */
async function standingReceipt(ref: RecordErrand, deps: RecordDeps): Promise<Receipt | null> {
  const item = await deps.readItem(ref);
  if (item.attempt !== ref.attempt) return null;
  if (isEnd(item.state)) return deps.readReceipt(ref);
  if (item.state !== "recording") return null;

  const { ending, prediction_id, row_id, reply_to, intent_at, webhook_events } = item.fields;
  if (ending === undefined) {
    // Redis had lost that the attempt was recorded, and was told by the receipt.
    const receipt = await deps.readReceipt(ref);
    if (receipt === null) throw new Error(`${errandId(ref)} is to be recorded, but Redis holds no ending for it`);
    return receipt;
  }
  return deps.writeReceipt(
    ref,
    buildReceipt({
      ref,
      rowId: row_id ?? null,
      replyTo: reply_to ?? null,
      webhookEvents: WEBHOOK_EVENTS.filter((event) => webhook_events?.split(",").includes(event) === true),
      predictionId: prediction_id ?? null,
      claimedAtMs: intent_at === undefined ? null : Number(intent_at),
      recordedAtMs: deps.clock(),
      ending: await deps.readEnding(ref, ending),
      earlier: ref.attempt === 1 ? [] : await deps.readEarlierAttempts(ref),
    }),
  );
}
