/**
 * Makes the working state of a batch again that Redis has lost, from what the bucket has of it. Nothing is bought by
 * it: what may have been bought, and has no receipt, is unclear, and the account's sweep looks for it on the provider's
 * list.
 *
 * The batch appears in Redis whole, by one script, or not at all. If this process dies before, nothing has happened.
 */

import { readBatchActs } from "../bucket/acts.ts";
import { type KeptItem, listKeptItems } from "../bucket/attempts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { type Manifest, readManifest, readReceipt } from "../bucket/records.ts";
import { readWindows, windowAt } from "../bucket/window-notes.ts";
import type { Batch } from "../core/batch.ts";
import { failureGroup } from "../core/failing.ts";
import { readItemByte } from "../core/item.ts";
import { errandId } from "../core/naming.ts";
import { openRecall, type RecordedAttempt, type RecordedItem } from "../core/recalling.ts";
import { billedTimeMs, failedByProvider, notSavedBy, type Receipt } from "../core/receipt.ts";
import { DEFAULT_SWEEP_POLICY } from "../core/sweeping.ts";
import { HOUR } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { noteIdentities, readPart, voidRows } from "./complete-part.ts";
import { type Acted, judgeActs } from "./judge-acts.ts";

export type RebuildDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "restoreBatch">;
};

export type Rebuilt = {
  readonly batch: Batch;
  readonly unclear: number;
  /** What people had decided. */
  readonly acted: Acted;
};

const READS_AT_ONCE = 32;
/** Older predictions aren't looked for on a list any more: it shows their inputs for an hour. */
const LISTED_FOR_MS = 2 * HOUR;

/** Opens a batch that the bucket has: as it was, where Redis doesn't know it. Null: Redis knows it. */
export async function openKnownBatch(
  batch: Batch,
  deps: RebuildDeps & { readonly ledger: Pick<Ledger, "standing">; readonly clock: () => number },
): Promise<Rebuilt | null> {
  const standing = await deps.ledger.standing(batch.account, batch.id);
  return standing === null ? rebuildBatch(batch, deps.clock(), deps) : null;
}

/** `lostByMs`: by when Redis had lost the batch. */
export async function rebuildBatch(opened: Batch, lostByMs: number, deps: RebuildDeps): Promise<Rebuilt> {
  const { bucket, ledger } = deps;
  const rows = opened.kind === "singles" ? await readSingles(bucket, opened) : rowsOfFile(opened);
  const batch: Batch = { ...opened, items: rows.items };
  const windows = await readWindows(bucket, batch.id);
  const acted = judgeActs(await readBatchActs(bucket, batch.id));
  const endedByMs = endOf(await readManifest(bucket, batch.id));
  const fed = Math.min((windows.at(-1)?.last ?? -1) + 1, batch.items);

  const recall = openRecall({
    items: batch.items,
    retryFailed: batch.retryFailed,
    fed,
    boughtFromMs: (index) => {
      const createdAtMs = rows.createdAtMs(index);
      // A row that came after Redis was lost can't have been bought on it.
      if (createdAtMs > lostByMs + DEFAULT_SWEEP_POLICY.skewMs) return null;
      return Math.max(windowAt(windows, index)?.notedAtMs ?? batch.openedAtMs, createdAtMs);
    },
    lostByMs,
    redriven: acted.redriven,
    isVoid: (index) => rows.voids.has(index),
    canceled: acted.canceled,
    canceledAtMs: acted.canceledAtMs,
    walkedAtMs: acted.walkedAtMs,
    endedByMs,
  });
  const duplicates: string[] = [];
  const bound = new Map<string, string>();
  for await (const { item, held, surplus } of recordedItems(bucket, batch)) {
    recall.take(item);
    duplicates.push(...surplus);
    for (const { prediction, errand, sinceMs } of held) {
      if (sinceMs > lostByMs - LISTED_FOR_MS) bound.set(prediction, errand);
    }
  }
  const recalled = recall.end();
  await ledger.restoreBatch({
    ...recalled,
    batch,
    fed,
    cursor: Math.min(fed, firstWaiting(recalled.bytes)),
    parts: rows.parts,
    duplicates,
    bound,
    lostByMs,
    acts: acted.acts,
    paused: acted.paused,
    canceledAtMs: acted.canceledAtMs,
    finishedAtMs:
      endedByMs === null || (acted.redrivenAtMs ?? Number.NEGATIVE_INFINITY) >= endedByMs ? null : endedByMs,
  });
  return { batch, unclear: recalled.unclear.length, acted };
}

/** When all of its items had ended; some may have been redriven since. */
function endOf(manifest: Manifest | null): number | null {
  return manifest === null ? null : Date.parse(manifest.finished_at);
}

/** Rows that came later than Redis was lost may stand below others' window: the feed is to give them out. */
function firstWaiting(bytes: Uint8Array): number {
  const first = bytes.findIndex((byte) => readItemByte(byte).state === "waiting");
  return first === -1 ? bytes.length : first;
}

// ── the input ─────────────────────────────────────────────────────────────────

type Rows = {
  readonly items: number;
  /** The first index of each part. */
  readonly parts: readonly number[];
  readonly voids: ReadonlySet<number>;
  /** When a row came to be (ms); for a file, before everything. */
  readonly createdAtMs: (index: number) => number;
};

function rowsOfFile({ items }: Batch): Rows {
  return { items, parts: items > 0 ? [0] : [], voids: new Set(), createdAtMs: () => Number.NEGATIVE_INFINITY };
}

async function readSingles(bucket: Bucket, batch: Batch): Promise<Rows> {
  const parts: number[] = [];
  const voids = new Set<number>();
  const created: number[] = [];
  for (;;) {
    const lines = await readPart(bucket, batch, parts.length);
    if (lines === null) break;
    const first = created.length;
    parts.push(first);
    for (const index of voidRows(batch, first, await noteIdentities(bucket, batch, first, lines))) voids.add(index);
    created.push(...lines.map(({ row }) => Date.parse(row.created_at ?? "")));
  }
  return { items: created.length, parts, voids, createdAtMs: (index) => created[index] ?? Number.NaN };
}

// ── the receipts ──────────────────────────────────────────────────────────────

type Recorded = {
  readonly item: RecordedItem;
  /** Which predictions its attempts hold. */
  readonly held: readonly { readonly prediction: string; readonly errand: string; readonly sinceMs: number }[];
  /** Predictions that were bought beside them. */
  readonly surplus: readonly string[];
};

async function* recordedItems(bucket: Bucket, batch: Batch): AsyncGenerator<Recorded> {
  let slice: KeptItem[] = [];
  const read = () => Promise.all(slice.map((kept) => recordedItem(bucket, batch, kept)));
  for await (const kept of listKeptItems(bucket, batch.id)) {
    slice.push(kept);
    if (slice.length < READS_AT_ONCE) continue;
    yield* await read();
    slice = [];
  }
  yield* await read();
}

async function recordedItem(
  bucket: Bucket,
  { id: batch }: Batch,
  { index, receipts, duplicates }: KeptItem,
): Promise<Recorded> {
  const attempts: RecordedAttempt[] = [];
  const held: Recorded["held"][number][] = [];
  for (const attempt of receipts.toSorted((a, b) => a - b)) {
    const receipt = await readReceipt(bucket, { batch, index, attempt });
    if (receipt === null) continue;
    attempts.push(recordedAttempt(attempt, receipt));
    const { prediction_id: prediction, claimed_at: claimed, recorded_at: recorded } = receipt;
    const sinceMs = Date.parse(claimed ?? recorded);
    if (prediction !== null) held.push({ prediction, errand: errandId({ batch, index, attempt }), sinceMs });
  }
  return { item: { index, attempts }, held, surplus: duplicates };
}

function recordedAttempt(attempt: number, receipt: Receipt): RecordedAttempt {
  return {
    attempt,
    end: receipt.status,
    recordedAtMs: Date.parse(receipt.recorded_at),
    failure: receipt.status === "failed" ? failureGroup(receipt.error) : null,
    byProvider: failedByProvider(receipt),
    billedMs: billedTimeMs(receipt),
    files: receipt.outputs.length,
    fileBytes: receipt.outputs.reduce((sum, { bytes }) => sum + BigInt(bytes), 0n),
    notSaved: notSavedBy(receipt),
  };
}
