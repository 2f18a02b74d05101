/**
 * Books a prediction that was bought for an attempt which holds another: in the bucket, so that it is on record; in Redis,
 * so that it is shown; and it is canceled at the provider, if it still runs, so that paying stops. Doing so again changes
 * nothing; nor does it where the prediction turns out to be the attempt's own, which may have ended since.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { readReceipt, writeDuplicate } from "../bucket/records.ts";
import type { AttemptRef } from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";

export type BookDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "addDuplicate" | "readItem">;
  readonly provider: Pick<Provider, "cancel">;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: () => number;
};

const CANCEL_MS = 15_000;

export async function bookDuplicate(ref: AttemptRef, prediction: PredictionId, deps: BookDeps): Promise<void> {
  if (await isItsOwn(ref, prediction, deps)) return;
  await writeDuplicate(deps.bucket, ref, prediction, deps.clock());
  await deps.ledger.addDuplicate(ref, prediction);
  deps.warn({ ...ref, prediction }, "a prediction was bought for an item that has another; it is booked and canceled");
  try {
    await deps.provider.cancel?.(prediction, AbortSignal.timeout(CANCEL_MS));
  } catch (error) {
    if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
    deps.warn({ ...ref, prediction, err: error }, "the surplus prediction couldn't be canceled; it may run to its end");
  }
}

/** Whether it is the prediction that the attempt has, or had: an open one's hash says so, then its receipt. */
export async function isItsOwn(
  ref: AttemptRef,
  prediction: PredictionId,
  { bucket, ledger }: { readonly bucket: Bucket; readonly ledger: Pick<Ledger, "readItem"> },
): Promise<boolean> {
  const { attempt, fields } = await ledger.readItem(ref);
  if (attempt === ref.attempt && fields.prediction_id !== undefined) return fields.prediction_id === prediction;
  return (await readReceipt(bucket, ref))?.prediction_id === prediction;
}
