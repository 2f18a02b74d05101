/** Where items' rows stand in their batch's input, whichever part holds them, and what they say. */

import type { Bucket } from "../bucket/bucket.ts";
import { type PlacedRow, placeRows, readRow, type StoredRow } from "../bucket/input-parts.ts";
import type { AccountName, AttemptRef, BatchId } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

type PlaceDeps = { readonly bucket: Bucket; readonly ledger: Pick<Ledger, "partOf"> };

/** Up to `count` rows from item `index` on; fewer at the end of a part. */
export async function placeItems(
  { bucket, ledger }: PlaceDeps,
  account: AccountName,
  batch: BatchId,
  index: number,
  count: number,
): Promise<readonly (PlacedRow & { readonly part: number })[]> {
  const part = await ledger.partOf(account, batch, index);
  const places = await placeRows(bucket, batch, part, index, count);
  return places.map((place) => ({ ...place, part: part.part }));
}

/** What an item was asked for. */
export async function readItemRow(
  deps: PlaceDeps,
  { account, batch, index }: Omit<AttemptRef, "attempt">,
): Promise<StoredRow> {
  const [place] = await placeItems(deps, account, batch, index, 1);
  if (place === undefined) throw new Error(`item ${index} of batch ${batch} stands in no part of its input`);
  return readRow(deps.bucket, batch, place);
}
