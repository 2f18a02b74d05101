/**
 * What people decided, as objects that are numbered from 1 and never change: each is written before its decision takes
 * effect, and read again where Redis was lost.
 */

import { z } from "zod";
import { type AccountName, type BatchId, OBJECT_KEYS, type ObjectKey } from "../core/naming.ts";
import type { Bucket } from "./bucket.ts";
import { JSON_TYPE, readJson } from "./records.ts";

const setting = z.object({ per_minute: z.number(), tolerates_burst: z.boolean() });

const schema = z.discriminatedUnion("act", [
  z.object({ act: z.literal("pause") }),
  z.object({ act: z.literal("resume") }),
  /** Of the batch, or of some items. */
  z.object({ act: z.literal("cancel"), items: z.array(z.number()).optional() }),
  /** Another attempt of each item, after the one that is named with it. */
  z.object({ act: z.literal("redrive"), items: z.array(z.tuple([z.number(), z.number()])) }),
  /** The same, without buying anything: the attempt carries on with the prediction that is named last. */
  z.object({ act: z.literal("repair"), items: z.array(z.tuple([z.number(), z.number(), z.string()])) }),
  /** Of an account: its rates a minute, set by hand; null: those of the settings again. */
  z.object({
    act: z.literal("limit"),
    creates: z.number().nullable().optional(),
    reads: z.number().nullable().optional(),
    /** The settings at that time: while they stay, so does what was set. */
    replaced: z.object({ creates: setting, reads: setting }).optional(),
  }),
  z.object({ act: z.literal("resolve"), as: z.enum(["resend", "fail"]), items: z.array(z.number()) }),
]);

export type Act = z.infer<typeof schema>;

/** `n`: its number. */
export type DatedAct = Act & { readonly n: number; readonly atMs: number };

/** Answers the number that the act got. */
export async function writeAccountAct(bucket: Bucket, account: AccountName, act: Act, nowMs: number): Promise<number> {
  return appendAct(bucket, (n) => OBJECT_KEYS.accountAct(account, n), 1, act, nowMs);
}

/** `from`: a number that is probably free. Answers the one that the act got. */
export async function writeBatchAct(
  bucket: Bucket,
  batch: BatchId,
  from: number,
  act: Act,
  nowMs: number,
): Promise<number> {
  return appendAct(bucket, (n) => OBJECT_KEYS.batchAct(batch, n), from, act, nowMs);
}

export async function readBatchActs(bucket: Bucket, batch: BatchId): Promise<readonly DatedAct[]> {
  return readActs(bucket, OBJECT_KEYS.batchActs(batch), (n) => OBJECT_KEYS.batchAct(batch, n));
}

export async function readAccountActs(bucket: Bucket, account: AccountName): Promise<readonly DatedAct[]> {
  return readActs(bucket, OBJECT_KEYS.accountActs(account), (n) => OBJECT_KEYS.accountAct(account, n));
}

/** Each canceled single leaves one, and an account isn't open on another Redis before they are read. */
const READS_AT_ONCE = 32;

/** In the order in which they were decided: a number that was free may have been taken later than the one behind it. */
async function readActs(
  bucket: Bucket,
  prefix: Parameters<Bucket["list"]>[0],
  keyOf: (n: number) => ObjectKey,
): Promise<readonly DatedAct[]> {
  const numbers: number[] = [];
  for await (const { key } of bucket.list(prefix)) {
    numbers.push(Number(/(\d+)\.json$/.exec(key)?.[1] ?? Number.NaN));
  }
  const acts: DatedAct[] = [];
  for (let at = 0; at < numbers.length; at += READS_AT_ONCE) {
    const read = numbers.slice(at, at + READS_AT_ONCE).map((n) => readAct(bucket, keyOf(n), n));
    acts.push(...(await Promise.all(read)).filter((act) => act !== null));
  }
  return acts.toSorted((a, b) => a.atMs - b.atMs || a.n - b.n);
}

async function readAct(bucket: Bucket, key: ObjectKey, n: number): Promise<DatedAct | null> {
  const read = await readJson(bucket, key, schema.and(z.object({ at: z.iso.datetime() })));
  return read === null ? null : { ...read, n, atMs: Date.parse(read.at) };
}

const MAX_ACTS = 1_000_000;

async function appendAct(
  bucket: Bucket,
  keyOf: (n: number) => ObjectKey,
  from: number,
  act: Act,
  nowMs: number,
): Promise<number> {
  const body = JSON.stringify({ ...act, at: new Date(nowMs).toISOString() });
  for (let n = from; n < from + MAX_ACTS; n++) {
    const key = keyOf(n);
    if ((await bucket.head(key)) === null && (await bucket.putOnce(key, body, JSON_TYPE))) return n;
  }
  throw new Error(`no free number for ${bucket.urlOf(keyOf(from))} was found behind ${MAX_ACTS} others`);
}
