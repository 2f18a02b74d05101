/** Where items' rows stand in their batch's input, whichever part holds them. */

import type { Bucket } from "../bucket/bucket.ts";
import { type PlacedRow, placeRows } from "../bucket/input-parts.ts";
import type { AccountName, BatchId } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

/** Up to `count` rows from item `index` on; fewer at the end of a part. */
export async function placeItems(
  { bucket, ledger }: { readonly bucket: Bucket; readonly ledger: Pick<Ledger, "partOf"> },
  account: AccountName,
  batch: BatchId,
  index: number,
  count: number,
): Promise<readonly (PlacedRow & { readonly part: number })[]> {
  const part = await ledger.partOf(account, batch, index);
  const places = await placeRows(bucket, batch, part, index, count);
  return places.map((place) => ({ ...place, part: part.part }));
}
