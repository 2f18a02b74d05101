/**
 * The JSON objects of the record: batch.json, answers, receipts, identities. Written once and read back by a
 * schema; whoever finds one there adopts it.
 */

import { z } from "zod";
import type { Batch } from "../core/batch.ts";
import {
  type AttemptRef,
  type BatchId,
  OBJECT_KEYS,
  type ObjectKey,
  parseAccountName,
  parseBatchId,
} from "../core/naming.ts";
import type { AttemptLine, Receipt } from "../core/receipt.ts";
import type { Bucket } from "./bucket.ts";

export const JSON_TYPE = { contentType: "application/json" };
/** An output of plain JSON may be long; a receipt repeats it. */
const MAX_RECORD_BYTES = 64 * 1024 * 1024;

// ── batch.json ────────────────────────────────────────────────────────────────

const batchRecord = z.object({
  batch: z.string(),
  kind: z.enum(["file", "singles"]),
  name: z.string(),
  tenant: z.string(),
  account: z.string(),
  items: z.number(),
  opened_at: z.iso.datetime(),
  retry_failed: z.number(),
});

export async function writeBatch(bucket: Bucket, batch: Batch): Promise<boolean> {
  const record: z.input<typeof batchRecord> = {
    batch: batch.id,
    kind: batch.kind,
    name: batch.name,
    tenant: batch.tenant,
    account: batch.account,
    items: batch.items,
    opened_at: new Date(batch.openedAtMs).toISOString(),
    retry_failed: batch.retryFailed,
  };
  return bucket.putOnce(OBJECT_KEYS.batch(batch.id), JSON.stringify(record), JSON_TYPE);
}

export async function readBatch(bucket: Bucket, id: BatchId): Promise<Batch | null> {
  const record = await readJson(bucket, OBJECT_KEYS.batch(id), batchRecord);
  if (record === null) return null;
  return {
    id: must(parseBatchId(record.batch), "batch id", record.batch),
    kind: record.kind,
    name: record.name,
    tenant: record.tenant,
    account: must(parseAccountName(record.account), "account", record.account),
    items: record.items,
    openedAtMs: Date.parse(record.opened_at),
    retryFailed: record.retry_failed,
  };
}

// ── receipts ──────────────────────────────────────────────────────────────────
// Ours, written by this version or an earlier one and never edited by hand: their types are believed.

/** Answers the receipt that stands in the bucket: this one, or the one that was there. */
export async function writeReceipt(bucket: Bucket, ref: AttemptRef, receipt: Receipt): Promise<Receipt> {
  const wrote = await bucket.putOnce(
    OBJECT_KEYS.receipt(ref.batch, ref.index, ref.attempt),
    JSON.stringify(receipt),
    JSON_TYPE,
  );
  return wrote ? receipt : ((await readReceipt(bucket, ref)) ?? receipt);
}

export async function readReceipt(bucket: Bucket, ref: Omit<AttemptRef, "account">): Promise<Receipt | null> {
  return readJson(bucket, OBJECT_KEYS.receipt(ref.batch, ref.index, ref.attempt), z.custom<Receipt>(isObject));
}

/**
 * The attempts before this one, oldest first. One that was canceled with its batch before it was bought has left no
 * receipt.
 */
export async function readEarlierAttempts(
  bucket: Bucket,
  { batch, index, attempt }: Omit<AttemptRef, "account">,
): Promise<readonly AttemptLine[]> {
  for (let earlier = attempt - 1; earlier > 0; earlier--) {
    const receipt = await readReceipt(bucket, { batch, index, attempt: earlier });
    if (receipt !== null) return receipt.attempts;
  }
  return [];
}

/** A prediction that was bought for an attempt which held another. */
export async function writeDuplicate(
  bucket: Bucket,
  { batch, index, attempt }: Omit<AttemptRef, "account">,
  prediction: string,
  nowMs: number,
): Promise<void> {
  const note = { batch, index, attempt, prediction_id: prediction, noted_at: new Date(nowMs).toISOString() };
  await bucket.putOnce(OBJECT_KEYS.duplicate(batch, index, prediction), JSON.stringify(note), JSON_TYPE);
}

const manifestRecord = z.looseObject({ results: z.looseObject({ sha256: z.string() }), finished_at: z.iso.datetime() });

export type Manifest = z.infer<typeof manifestRecord>;

/** The last object of a batch. One that tells of the same results stands; a redriven batch gets another. */
export async function writeManifest(bucket: Bucket, batch: BatchId, manifest: Manifest): Promise<void> {
  if ((await readManifest(bucket, batch))?.results.sha256 === manifest.results.sha256) return;
  await bucket.put(OBJECT_KEYS.manifest(batch), JSON.stringify(manifest), JSON_TYPE);
}

export async function readManifest(bucket: Bucket, batch: BatchId): Promise<Manifest | null> {
  return readJson(bucket, OBJECT_KEYS.manifest(batch), manifestRecord);
}

// ── identities ────────────────────────────────────────────────────────────────

const identity = z.object({
  batch: z.string(),
  index: z.number(),
  input_sha256: z.string(),
});

export type Identity = { readonly batch: BatchId; readonly index: number; readonly inputSha256: string };

/** Answers the identity that stands in the bucket: this one, or the one that was there. */
export async function writeIdentity(bucket: Bucket, key: ObjectKey, of: Identity): Promise<Identity> {
  const record: z.input<typeof identity> = { batch: of.batch, index: of.index, input_sha256: of.inputSha256 };
  return (await bucket.putOnce(key, JSON.stringify(record), JSON_TYPE))
    ? of
    : ((await readIdentity(bucket, key)) ?? of);
}

export async function readIdentity(bucket: Bucket, key: ObjectKey): Promise<Identity | null> {
  const record = await readJson(bucket, key, identity);
  if (record === null) return null;
  return {
    batch: must(parseBatchId(record.batch), "batch id", record.batch),
    index: record.index,
    inputSha256: record.input_sha256,
  };
}

// ── reading ───────────────────────────────────────────────────────────────────

export async function readJson<T>(bucket: Bucket, key: ObjectKey, schema: z.ZodType<T>): Promise<T | null> {
  const body = await bucket.get(key, { maxBytes: MAX_RECORD_BYTES });
  if (body === null) return null;
  try {
    return schema.parse(JSON.parse(body.toString("utf8")));
  } catch (cause) {
    throw new Error(`${bucket.urlOf(key)} isn't what Outlast wrote there; was it edited?`, { cause });
  }
}

export function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function must<T>(value: T | null, what: string, text: string): T {
  if (value === null) throw new TypeError(`not a ${what}: ${JSON.stringify(text)}`);
  return value;
}
