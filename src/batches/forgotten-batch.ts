/**
 * The guard against buying again what a lost Redis had bought: a batch that the bucket knows to have been fed, and
 * Redis doesn't know, isn't opened anew.
 */

import type { Bucket } from "../bucket/bucket.ts";
import type { Batch } from "../core/batch.ts";
import type { ObjectKey } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

/** Feeding the batch could buy its items a second time. */
export class BatchForgotten extends Error {
  override readonly name = "BatchForgotten";
}

/** `trace`: the object that is written before the batch's first row is fed. Throws BatchForgotten. */
export async function requireRemembered(
  { bucket, ledger }: { readonly bucket: Bucket; readonly ledger: Pick<Ledger, "standing"> },
  { id, account, name }: Batch,
  trace: ObjectKey,
): Promise<void> {
  if ((await ledger.standing(account, id)) !== null || (await bucket.head(trace)) === null) return;
  throw new BatchForgotten(
    `batch ${id} (${name}) has been fed, says ${bucket.urlOf(trace)}, but Redis doesn't know it (was it emptied or replaced?): ` +
      "feeding it again could pay twice. Bring Redis's data back, or make a new batch of it (submit --again)",
  );
}
