/**
 * A batch's input as the batch's own copy: parts of JSONL, each with a line index.
 *
 * The index (`input-<n>.idx`) is a list of 8-byte big-endian numbers: the item index of the part's first row, then
 * the byte offset at which each row ends. So row r of a part is found by reading 16 bytes, and any row's bytes by
 * one ranged get, however large the batch is. A small part of singles has none: it is read whole instead.
 */

import assert from "node:assert/strict";
import { z } from "zod";
import { type BatchId, OBJECT_KEYS } from "../core/naming.ts";
import { type Target, WEBHOOK_EVENTS, type WebhookEvent } from "../core/prediction.ts";
import { type Bucket, BucketError } from "./bucket.ts";
import { isObject } from "./records.ts";

const NUMBER_BYTES = 8;
/** A part of singles up to this size goes without an index, which would cost as much as the part. */
const UNINDEXED_BYTES = 64 * 1024;

export type PlacedRow = { readonly index: number; readonly offset: number; readonly length: number };

export function encodeIndex(first: number, rowEnds: readonly number[]): Buffer {
  const index = Buffer.alloc(NUMBER_BYTES * (rowEnds.length + 1));
  for (const [at, number] of [first, ...rowEnds].entries()) index.writeBigUInt64BE(BigInt(number), at * NUMBER_BYTES);
  return index;
}

/** Writes the index that a part of singles needs, if it needs one. `rowEnds`: as byte offsets. */
export async function indexSingles(
  bucket: Bucket,
  batch: BatchId,
  { part, first }: { readonly part: number; readonly first: number },
  rowEnds: readonly number[],
): Promise<void> {
  if ((rowEnds.at(-1) ?? 0) <= UNINDEXED_BYTES) return;
  const contentType = "application/octet-stream";
  await bucket.put(OBJECT_KEYS.inputIndex(batch, part), encodeIndex(first, rowEnds), { contentType });
}

/**
 * Where up to `count` rows from item `index` on stand in a part; fewer at the part's end, none past it.
 * `first`: the item index of the part's first row.
 */
export async function placeRows(
  bucket: Bucket,
  batch: BatchId,
  { part, first }: { readonly part: number; readonly first: number },
  index: number,
  count: number,
): Promise<readonly PlacedRow[]> {
  const row = index - first;
  assert.ok(row >= 0, `item ${index} stands before part ${part}, which begins at ${first}`);
  const slice = await bucket.getRange(
    OBJECT_KEYS.inputIndex(batch, part),
    row * NUMBER_BYTES,
    (count + 1) * NUMBER_BYTES,
  );
  if (slice === null) return placeInSmallPart(bucket, batch, part, index, row, count);
  // The number before the first wanted row is where the row before it ends - or, for row 0, the part's first index.
  const [before = 0, ...ends] = numbersOf(slice);
  let offset = row === 0 ? 0 : before;
  return ends.map((end, at) => {
    const placed = { index: index + at, offset, length: end - offset };
    offset = end;
    return placed;
  });
}

async function placeInSmallPart(
  bucket: Bucket,
  batch: BatchId,
  part: number,
  index: number,
  row: number,
  count: number,
): Promise<readonly PlacedRow[]> {
  const key = OBJECT_KEYS.input(batch, part);
  const body = await bucket.get(key, { maxBytes: UNINDEXED_BYTES }).catch((error: unknown) => {
    if (error instanceof BucketError && error.code === "too-large") return null;
    throw error;
  });
  if (body === null) throw new Error(`the input index of part ${part} of batch ${batch} is missing in ${bucket.url}`);
  const places: PlacedRow[] = [];
  let offset = 0;
  for (let at = 0; offset < body.length && places.length < count; at++) {
    const end = body.indexOf("\n", offset) + 1 || body.length;
    if (at >= row) places.push({ index: index + at - row, offset, length: end - offset });
    offset = end;
  }
  return places;
}

/** A row as the batch keeps it: one line of JSON, validated when it was admitted. */
export type StoredRow = {
  readonly input: Readonly<Record<string, unknown>>;
  /** The row's own id. */
  readonly id?: string | undefined;
  readonly target: Target;
  /** Singles only: the producer's queue that gets the result, and the digests that identify the input. */
  readonly reply_to?: string | undefined;
  readonly identity?: string | undefined;
  readonly input_sha256?: string | undefined;
  /** Of a single without an identity: what tells it from another with the same input. */
  readonly nonce?: string | undefined;
  /** Singles only: when it was admitted (ISO 8601). */
  readonly created_at?: string | undefined;
  /** When the prediction is to be ended, where its client said so (ISO 8601). */
  readonly deadline?: string | undefined;
  /** Whom its client wants to be told. */
  readonly webhook?: RowWebhook | undefined;
};

/** `base_url`: where the client reached the API, so that the URLs it is told lead there too. */
export type RowWebhook = {
  readonly url: string;
  readonly events: readonly WebhookEvent[];
  readonly base_url: string;
};

const target = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("version"), version: z.string() }),
  z.object({ kind: z.literal("model"), owner: z.string(), name: z.string() }),
  z.object({ kind: z.literal("deployment"), owner: z.string(), name: z.string() }),
]);

const storedRow = z.object({
  // As it is: a record's schema would copy it, and lose a key named __proto__ on the way.
  input: z.custom<Readonly<Record<string, unknown>>>(isObject),
  id: z.string().optional(),
  target,
  reply_to: z.string().optional(),
  identity: z.string().optional(),
  input_sha256: z.string().optional(),
  nonce: z.string().optional(),
  created_at: z.iso.datetime().optional(),
  deadline: z.iso.datetime().optional(),
  webhook: z.object({ url: z.string(), events: z.array(z.enum(WEBHOOK_EVENTS)), base_url: z.string() }).optional(),
});

export function parseRow(line: string): StoredRow {
  return storedRow.parse(JSON.parse(line));
}

export async function readRow(
  bucket: Bucket,
  batch: BatchId,
  place: { readonly part: number; readonly offset: number; readonly length: number },
): Promise<StoredRow> {
  const key = OBJECT_KEYS.input(batch, place.part);
  const bytes = await bucket.getRange(key, place.offset, place.length);
  if (bytes === null || bytes.length !== place.length) {
    throw new Error(`a row of ${bucket.urlOf(key)} (${place.length} bytes from ${place.offset}) is missing`);
  }
  return parseRow(bytes.toString("utf8"));
}

function numbersOf(bytes: Buffer): number[] {
  return Array.from({ length: Math.floor(bytes.length / NUMBER_BYTES) }, (_, at) =>
    Number(bytes.readBigUInt64BE(at * NUMBER_BYTES)),
  );
}
