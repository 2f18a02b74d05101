/**
 * Holds a batch's files against its receipts: whether each is in the bucket, and as long as it was; deep, whether its bytes
 * are the very same.
 *
 * The bucket's list tells names and lengths, a page at a time; receipts are read a few at once, and files, where they are
 * read, as streams: memory is bounded however large batch and files are. It only reads: a crash leaves nothing.
 */

import { createHash } from "node:crypto";
import { type KeptItem, listKeptItems, nothingKept } from "../bucket/attempts.ts";
import { type Bucket, BucketError } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import type { ItemByte } from "../core/item.ts";
import { itemId } from "../core/naming.ts";
import type { KeptOutput, Receipt } from "../core/receipt.ts";
import { type Fault, judgeBytes, judgeLength, judgeOutput, needsReceipt } from "../core/verifying.ts";
import type { Ledger } from "../ledger/ledger.ts";

/** In the shape that leaves the process. */
export type VerifyFinding =
  | {
      readonly finding: Fault["kind"];
      readonly batch: string;
      readonly item: string;
      readonly index: number;
      readonly attempt: number;
      readonly key: string | null;
      readonly url: string | null;
      readonly what: string;
    }
  | VerifyTotals;

export type VerifyTotals = {
  readonly finding: "batch";
  readonly batch: string;
  readonly deep: boolean;
  readonly items: number;
  readonly receipts: number;
  /** By the receipts. */
  readonly files: number;
  readonly bytes: number;
  /** How many files were read whole. */
  readonly read: number;
  readonly faults: number;
  readonly exit_code: 0 | 2;
};

export type VerifyDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "readStates">;
  /** How far it is. */
  readonly tell: (progress: { readonly items: number; readonly bytesRead: number }) => void;
};

const STATES_AT_ONCE = 1_024;
const ITEMS_AT_ONCE = 16;
const READ_TRIES = 3;

/** The last finding holds the totals. Throws BucketError where the bucket is out of reach. */
export async function* verifyBatch(
  batch: Pick<Batch, "account" | "id" | "items">,
  { deep }: { readonly deep: boolean },
  deps: VerifyDeps,
  signal: AbortSignal,
): AsyncGenerator<VerifyFinding> {
  const { account, id, items } = batch;
  const sums = { receipts: 0, files: 0, bytes: 0, read: 0, faults: 0 };
  let done = 0;
  let bytesRead = 0;
  const read: ReadFile = (output) =>
    readFile(deps.bucket, output, signal, (bytes) => {
      bytesRead += bytes;
      deps.tell({ items: done, bytesRead });
    });
  const kept = listKeptItems(deps.bucket, id);
  let next = await kept.next();
  for (let start = 0; start < items; start += STATES_AT_ONCE) {
    const states = await deps.ledger.readStates(account, id, start, Math.min(STATES_AT_ONCE, items - start));
    for (let at = 0; at < states.length; at += ITEMS_AT_ONCE) {
      signal.throwIfAborted();
      const some = states.slice(at, at + ITEMS_AT_ONCE).map((byte, offset) => ({ byte, index: start + at + offset }));
      const inBucket = new Map<number, KeptItem>();
      for (; next.done !== true && next.value.index < start + at + some.length; next = await kept.next())
        inBucket.set(next.value.index, next.value);
      const verified = await Promise.all(
        some.map(({ byte, index }) =>
          verifyItem(batch, byte, inBucket.get(index) ?? nothingKept(index), deps.bucket, deep ? read : null),
        ),
      );
      for (const one of verified) {
        sums.receipts += one.receipts;
        sums.files += one.files;
        sums.bytes += one.bytes;
        sums.read += one.read;
        sums.faults += one.findings.length;
        yield* one.findings;
      }
      done += some.length;
      deps.tell({ items: done, bytesRead });
    }
  }
  await kept.return(undefined);
  yield { finding: "batch", batch: id, deep, items, ...sums, exit_code: sums.faults > 0 ? 2 : 0 };
}

type Verified = {
  readonly receipts: number;
  readonly files: number;
  readonly bytes: number;
  readonly read: number;
  readonly findings: readonly VerifyFinding[];
};

async function verifyItem(
  { id: batch }: Pick<Batch, "id">,
  byte: ItemByte,
  { index, receipts: listed, files }: KeptItem,
  bucket: Bucket,
  readAgain: ReadFile | null,
): Promise<Verified> {
  const findings: VerifyFinding[] = [];
  const outputs: KeptOutput[] = [];
  let receipts = 0;
  let read = 0;
  const attempts = new Set([...listed, ...(needsReceipt(byte, byte.attempt) ? [byte.attempt] : [])]);
  for (const attempt of [...attempts].toSorted((a, b) => a - b)) {
    const found = ({ kind, key, what }: Fault) => {
      const url = key === null ? null : bucket.urlOf(key);
      findings.push({ finding: kind, batch, item: itemId(batch, index), index, attempt, key, url, what });
    };
    const receipt = await readSound(bucket, { batch, index, attempt });
    if (typeof receipt === "string") {
      found({ kind: "receipt", key: null, what: receipt });
      continue;
    }
    receipts++;
    for (const fault of judgeOutput(receipt)) found(fault);
    for (const output of receipt.outputs) {
      outputs.push(output);
      // It may have been written after the bucket was listed.
      const fault = judgeLength(output, files.get(output.key) ?? (await bucket.head(output.key))?.bytes ?? null);
      if (fault !== null) found(fault);
      if (fault !== null || readAgain === null) continue;
      const differs = await readAgain(output);
      read++;
      if (differs !== null) found(differs);
    }
  }
  return { receipts, files: outputs.length, bytes: outputs.reduce((sum, { bytes }) => sum + bytes, 0), read, findings };
}

/** Or what is wrong with it. */
async function readSound(bucket: Bucket, ref: Parameters<typeof readReceipt>[1]): Promise<Receipt | string> {
  try {
    const receipt = await readReceipt(bucket, ref);
    if (receipt === null) return `the receipt of attempt ${ref.attempt} isn't in the bucket`;
    return Array.isArray(receipt.outputs) ? receipt : `the receipt of attempt ${ref.attempt} has no list of files`;
  } catch (error) {
    if (error instanceof BucketError) throw error;
    return `the receipt of attempt ${ref.attempt} can't be read`;
  }
}

/** Answers what is wrong with its bytes. */
type ReadFile = (output: KeptOutput) => Promise<Fault | null>;

async function readFile(
  bucket: Bucket,
  output: KeptOutput,
  signal: AbortSignal,
  counted: (bytes: number) => void,
): Promise<Fault | null> {
  const { key } = output;
  for (let tries = 1; ; tries++) {
    const hash = createHash("sha256");
    let bytes = 0;
    try {
      const body = await bucket.getStream(key);
      if (body === null) return judgeLength(output, null);
      for await (const chunk of body as AsyncIterable<Buffer>) {
        signal.throwIfAborted();
        hash.update(chunk);
        bytes += chunk.length;
        counted(chunk.length);
      }
      return judgeBytes(output, { bytes, sha256: hash.digest("hex") });
    } catch (error) {
      signal.throwIfAborted();
      if (tries < READ_TRIES) continue;
      if (error instanceof BucketError) throw error;
      return { kind: "unread", key, what: `reading it broke off after ${bytes} bytes: ${String(error)}` };
    }
  }
}
