/**
 * How an attempt ends, between the stage that knows and the stage that records it: in the item's hash while it is
 * small, else in the bucket as `items/<index>/answer.<attempt>.json`. A job never carries it.
 *
 * What copy made of an answer is an object of its own (`copied.<attempt>.json`): a poll that comes back late writes the
 * answer again before the item's byte tells it that it is late, and must not undo what was copied meanwhile.
 */

import { z } from "zod";
import { type AttemptRef, OBJECT_KEYS } from "../core/naming.ts";
import type { Ending } from "../core/receipt.ts";
import type { Bucket } from "./bucket.ts";
import { isObject, JSON_TYPE, readJson } from "./records.ts";

const MAX_IN_REDIS_BYTES = 8 * 1024;
/** What the item's hash says of an ending in the bucket, by who knew it. */
const IN_BUCKET = { answer: "bucket", copied: "bucket:copied" } as const;

const ending = z.custom<Ending>(isObject);

/** Answers what goes into the item's hash. Repeating it with the same ending changes nothing. */
export async function keepEnding(
  bucket: Bucket,
  ref: AttemptRef,
  value: Ending,
  by: keyof typeof IN_BUCKET = "answer",
): Promise<string> {
  const json = JSON.stringify(value);
  if (Buffer.byteLength(json) <= MAX_IN_REDIS_BYTES) return json;
  await bucket.put(OBJECT_KEYS[by](ref.batch, ref.index, ref.attempt), json, JSON_TYPE);
  return IN_BUCKET[by];
}

/** From what the item's hash holds. */
export async function readEnding(bucket: Bucket, ref: AttemptRef, kept: string): Promise<Ending> {
  const by = kept === IN_BUCKET.answer ? "answer" : kept === IN_BUCKET.copied ? "copied" : null;
  if (by === null) return ending.parse(JSON.parse(kept));
  const key = OBJECT_KEYS[by](ref.batch, ref.index, ref.attempt);
  const found = await readJson(bucket, key, ending);
  if (found === null)
    throw new Error(`${bucket.urlOf(key)} is missing: the answer of an attempt that isn't recorded yet`);
  return found;
}
