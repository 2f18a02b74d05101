/**
 * How an attempt ends, between the stage that knows and the stage that records it: in the item's hash while it is
 * small, else in the bucket as `items/<index>/answer.<attempt>.json`. A job never carries it.
 */

import { z } from "zod";
import { type AttemptRef, OBJECT_KEYS } from "../core/naming.ts";
import type { Ending } from "../core/receipt.ts";
import type { Bucket } from "./bucket.ts";
import { isObject, JSON_TYPE, readJson } from "./records.ts";

const MAX_IN_REDIS_BYTES = 8 * 1024;
const IN_BUCKET = "bucket";

const ending = z.custom<Ending>(isObject);

/** Answers what goes into the item's hash. Repeating it with the same ending changes nothing. */
export async function keepEnding(bucket: Bucket, ref: AttemptRef, value: Ending): Promise<string> {
  const json = JSON.stringify(value);
  if (Buffer.byteLength(json) <= MAX_IN_REDIS_BYTES) return json;
  await bucket.put(OBJECT_KEYS.answer(ref.batch, ref.index, ref.attempt), json, JSON_TYPE);
  return IN_BUCKET;
}

/** From what the item's hash holds. */
export async function readEnding(bucket: Bucket, ref: AttemptRef, kept: string): Promise<Ending> {
  if (kept !== IN_BUCKET) return ending.parse(JSON.parse(kept));
  const key = OBJECT_KEYS.answer(ref.batch, ref.index, ref.attempt);
  const found = await readJson(bucket, key, ending);
  if (found === null)
    throw new Error(`${bucket.urlOf(key)} is missing: the answer of an attempt that isn't recorded yet`);
  return found;
}
