/** How late ends were known: from the provider's `completed_at` to the receipt, a little after it is known. */

import { readReceipt } from "../../src/bucket/records.ts";
import type { BatchId } from "../../src/core/naming.ts";
import type { System } from "./system.ts";

export type Ended = { readonly completedAtMs: number; readonly recordedAtMs: number; readonly lateMs: number };

/** Of the items that have a receipt; nothing here was bought twice, or the books tell. */
export async function endsOf({ services }: System, batch: BatchId, items: number): Promise<readonly Ended[]> {
  const ends: Ended[] = [];
  for (let index = 0; index < items; index++) {
    const receipt = await readReceipt(services.bucket, { batch, index, attempt: 1 });
    if (receipt?.completed_at == null) continue;
    const [completedAtMs, recordedAtMs] = [Date.parse(receipt.completed_at), Date.parse(receipt.recorded_at)];
    ends.push({ completedAtMs, recordedAtMs, lateMs: recordedAtMs - completedAtMs });
  }
  return ends;
}
