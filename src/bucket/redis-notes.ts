/**
 * Which Redis an account was on, and since when: a note each time that another one is found, numbered from 1. What was
 * claimed on the one before was claimed before its successor's note.
 */

import { z } from "zod";
import { type AccountName, OBJECT_KEYS } from "../core/naming.ts";
import type { Bucket } from "./bucket.ts";
import { JSON_TYPE, readJson } from "./records.ts";

const record = z.object({ redis: z.string(), noted_at: z.iso.datetime() });

const MAX_NOTES = 100_000;

export type RedisNote = {
  /** When this Redis was first noted: now, or earlier. */
  readonly notedAtMs: number;
  /** The account was on no other before. */
  readonly isFirst: boolean;
};

export async function noteRedis(
  bucket: Bucket,
  account: AccountName,
  redis: string,
  nowMs: number,
): Promise<RedisNote> {
  for (let n = await firstFree(bucket, account); n < MAX_NOTES; n++) {
    const before = n === 1 ? null : await readNote(bucket, account, n - 1);
    if (before?.redis === redis) return { notedAtMs: Date.parse(before.noted_at), isFirst: n === 2 };
    const note: z.input<typeof record> = { redis, noted_at: new Date(nowMs).toISOString() };
    if (await bucket.putOnce(OBJECT_KEYS.redisNote(account, n), JSON.stringify(note), JSON_TYPE))
      return { notedAtMs: nowMs, isFirst: n === 1 };
  }
  throw new Error(`account ${account} has ${MAX_NOTES} notes on Redis in ${bucket.url}: is it restarted all the time?`);
}

/** Doubling, then halving: notes are few, but each restart leaves one. */
async function firstFree(bucket: Bucket, account: AccountName): Promise<number> {
  const isTaken = async (n: number) => (await bucket.head(OBJECT_KEYS.redisNote(account, n))) !== null;
  let taken = 0;
  let free = 1;
  while (await isTaken(free)) [taken, free] = [free, free * 2];
  while (free - taken > 1) {
    const middle = Math.floor((taken + free) / 2);
    if (await isTaken(middle)) taken = middle;
    else free = middle;
  }
  return free;
}

async function readNote(bucket: Bucket, account: AccountName, n: number): Promise<z.infer<typeof record> | null> {
  return readJson(bucket, OBJECT_KEYS.redisNote(account, n), record);
}
