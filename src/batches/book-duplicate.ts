/**
 * Books a prediction that was bought for an attempt which holds another: in the bucket, so that it is on record; in Redis,
 * so that it is shown; and it is canceled at the provider, if it still runs, so that paying stops. Doing so again changes
 * nothing.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { writeDuplicate } from "../bucket/records.ts";
import type { AttemptRef } from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";

export type BookDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "addDuplicate">;
  readonly provider: Pick<Provider, "cancel">;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: () => number;
};

const CANCEL_MS = 15_000;

export async function bookDuplicate(ref: AttemptRef, prediction: PredictionId, deps: BookDeps): Promise<void> {
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
