/** An item by its id: where it stands, what is known of it while it is open, and its row. */

import type { Bucket } from "../bucket/bucket.ts";
import { readRow, type StoredRow } from "../bucket/input-parts.ts";
import type { Batch } from "../core/batch.ts";
import type { ItemState } from "../core/item.ts";
import { type AttemptRef, parseItemId } from "../core/naming.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import { placeItems } from "./place-items.ts";

export type FoundItem = AttemptRef & {
  readonly state: ItemState;
  readonly fields: Partial<OpenItemFields>;
  readonly row: StoredRow;
  readonly of: Batch;
};

export type FindDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "accountOf" | "standing" | "readItem" | "partOf">;
};

/** Null: nothing of that id is known here. */
export async function findItem({ bucket, ledger }: FindDeps, text: string): Promise<FoundItem | null> {
  const place = parseItemId(text);
  const account = place === null ? null : await ledger.accountOf(place.batch);
  const standing = place === null || account === null ? null : await ledger.standing(account, place.batch);
  if (place === null || account === null || standing === null || place.index >= standing.batch.items) return null;
  const ref = { account, ...place };
  const [item, [placed]] = await Promise.all([
    ledger.readItem(ref),
    placeItems({ bucket, ledger }, account, place.batch, place.index, 1),
  ]);
  if (placed === undefined) throw new Error(`item ${text} stands in no part of its batch's input`);
  return { ...ref, ...item, row: await readRow(bucket, place.batch, placed), of: standing.batch };
}
