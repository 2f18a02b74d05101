/** An item, read from wherever it stands, in the shape of Replicate's API. */

import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import { readReceipt } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import { isEnd } from "../core/item.ts";
import { type ItemId, itemId } from "../core/naming.ts";
import { type AskedFor, type PredictionLinks, type PredictionView, predictionView } from "../core/prediction-view.ts";
import type { Receipt } from "../core/receipt.ts";
import type { FoundItem } from "./find-item.ts";

export async function describePrediction(
  bucket: Bucket,
  found: FoundItem,
  links: PredictionLinks,
): Promise<PredictionView> {
  const { row, of, batch, index, state } = found;
  const receipt = isEnd(state) ? await readReceipt(bucket, found) : null;
  return viewOf({ ...found, asked: askedForBy(itemId(batch, index), row, of) }, receipt, links);
}

export function viewOf(
  { asked, state, fields }: Pick<FoundItem, "state" | "fields"> & { readonly asked: AskedFor },
  receipt: Receipt | null,
  links: PredictionLinks,
): PredictionView {
  const { status: seenStatus = null, started_at: startedAt = null } = fields;
  return predictionView(asked, { state, seenStatus, startedAt, receipt }, links);
}

/** A row of a file was asked for when its batch was opened. */
export function askedForBy(item: ItemId, row: StoredRow, { openedAtMs }: Pick<Batch, "openedAtMs">): AskedFor {
  return {
    item,
    input: row.input,
    target: row.target,
    createdAt: row.created_at ?? new Date(openedAtMs).toISOString(),
    deadline: row.deadline ?? null,
    webhook: row.webhook ?? null,
  };
}
