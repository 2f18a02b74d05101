/**
 * What the bucket holds of a batch's items, by its list alone: which attempts have a receipt, which surplus predictions
 * were booked, how large the files are. One page of the list at a time is in memory, and nothing is fetched.
 */

import { type BatchId, OBJECT_KEYS, parseItemKey } from "../core/naming.ts";
import type { Bucket } from "./bucket.ts";

export type KeptItem = {
  readonly index: number;
  /** Attempts that have a receipt. */
  readonly receipts: readonly number[];
  /** Predictions that were bought for an attempt which held another. */
  readonly duplicates: readonly string[];
  /** Sizes in bytes by object key. */
  readonly files: ReadonlyMap<string, number>;
};

export function nothingKept(index: number): KeptItem {
  return { index, receipts: [], duplicates: [], files: new Map() };
}

/** In the order of their indexes; items that have nothing in the bucket are left out. */
export async function* listKeptItems(bucket: Bucket, batch: BatchId): AsyncGenerator<KeptItem> {
  let receipts: number[] = [];
  let duplicates: string[] = [];
  let files = new Map<string, number>();
  let index: number | null = null;
  for await (const { key, bytes } of bucket.list(OBJECT_KEYS.items(batch))) {
    const object = parseItemKey(key);
    if (object === null) continue;
    if (object.index !== index) {
      if (index !== null) yield { index, receipts, duplicates, files };
      [receipts, duplicates, files, index] = [[], [], new Map(), object.index];
    }
    if (object.kind === "receipt") receipts.push(object.attempt);
    else if (object.kind === "duplicate") duplicates.push(object.prediction);
    else files.set(key, bytes);
  }
  if (index !== null) yield { index, receipts, duplicates, files };
}
