/**
 * Saves what was paid for and isn't saved, while the provider still has it: a new attempt that buys nothing, but carries on
 * with the prediction of the one that ended. A person's decision, recorded in the bucket before it takes effect.
 *
 * If this process dies after the script, the keeper gives the attempt its errand.
 */

import { writeBatchAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import { failureGroup } from "../core/failing.ts";
import { isEnd } from "../core/item.ts";
import type { AttemptRef } from "../core/naming.ts";
import { type PredictionId, predictionId } from "../core/prediction.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { claimFields } from "./claim-fields.ts";
import { readItemRow } from "./place-items.ts";

export type CarryDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "redrive" | "readItem" | "partOf">;
  readonly queues: Pick<Queues, "follow">;
  readonly clock: () => number;
};

export type RepairDeps = CarryDeps & { readonly ledger: Pick<Ledger, "nextAct"> };

/**
 * `ended`: the item's last attempt; `startedAtMs`: when its prediction was created. Answers whether it is being saved now;
 * false: the item stands otherwise by now.
 */
export async function repairItem(
  ended: AttemptRef,
  prediction: string,
  startedAtMs: number,
  deps: RepairDeps,
): Promise<boolean> {
  const { account, batch, index, attempt } = ended;
  const item = await deps.ledger.readItem(ended);
  if (item.attempt !== attempt || !isEnd(item.state) || item.state === "saved") return false;
  const act = { act: "repair" as const, items: [[index, attempt, prediction] as [number, number, string]] };
  await writeBatchAct(deps.bucket, batch, await deps.ledger.nextAct({ account, id: batch }), act, deps.clock());
  return carryOn(ended, prediction, startedAtMs, deps);
}

/** The part of it that takes effect. */
export async function carryOn(
  ended: AttemptRef,
  prediction: string,
  startedAtMs: number,
  deps: CarryDeps,
): Promise<boolean> {
  const { bucket, ledger, queues, clock } = deps;
  const { account, batch, index, attempt } = ended;
  const row = await readItemRow(deps, ended);
  const receipt = await readReceipt(bucket, ended);
  const id = predictionId(prediction);
  const carried = {
    index,
    ended: attempt,
    carry: { prediction: id, set: claimFields(row) },
    ...(receipt?.status === "failed" && { failure: failureGroup(receipt.error) }),
  };
  const next = { ...ended, attempt: attempt + 1 };
  const opened = await ledger.redrive({ id: batch, account }, [carried], clock());
  // The script may have run before, and its answer was lost.
  if (opened !== 1 && !(await carries(next, id, ledger))) return false;
  await queues.follow(next, { id, startedAtMs, deadlineAtMs: null }, 0);
  return true;
}

/** Whether the attempt runs on that prediction. */
async function carries(ref: AttemptRef, prediction: PredictionId, ledger: CarryDeps["ledger"]): Promise<boolean> {
  const { attempt, state, fields } = await ledger.readItem(ref);
  return attempt === ref.attempt && state === "running" && fields.prediction_id === prediction;
}
