/** An item by its id: where it stands, what is known of it while it is open, and its row. */

import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import type { Batch } from "../core/batch.ts";
import type { ItemState } from "../core/item.ts";
import { type AttemptRef, parseItemId } from "../core/naming.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import { readItemRow } from "./place-items.ts";

/** What never changes of an item. */
export type FoundRow = Omit<AttemptRef, "attempt"> & { readonly row: StoredRow; readonly of: Batch };

export type FoundItem = AttemptRef & FoundRow & { readonly state: ItemState; readonly fields: Partial<OpenItemFields> };

export type FindRowDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "accountOf" | "standing" | "partOf">;
};

export type FindDeps = FindRowDeps & { readonly ledger: Pick<Ledger, "readItem"> };

/** Null: nothing of that id is known here. */
export async function findItem(deps: FindDeps, text: string): Promise<FoundItem | null> {
  const found = await findRow(deps, text);
  return found === null ? null : { ...found, ...(await deps.ledger.readItem(found)) };
}

/** Null: nothing of that id is known here. */
export async function findRow({ bucket, ledger }: FindRowDeps, text: string): Promise<FoundRow | null> {
  const place = parseItemId(text);
  const account = place === null ? null : await ledger.accountOf(place.batch);
  const standing = place === null || account === null ? null : await ledger.standing(account, place.batch);
  if (place === null || account === null || standing === null || place.index >= standing.batch.items) return null;
  const item = { account, ...place };
  return { ...item, row: await readItemRow({ bucket, ledger }, item), of: standing.batch };
}
