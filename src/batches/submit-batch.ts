/**
 * Takes a whole file of inputs: validates every row, copies the input into the bucket as the batch's own, opens the
 * batch. Nothing is spent by it, and nothing is submitted unless every row is good.
 *
 * A batch's identity is its content, options and name, so that submitting it again after a crash, or by mistake, is
 * the same batch. Order of effects: input part, its index, batch.json (the batch exists from here on), Redis.
 */

import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import type { Bucket } from "../bucket/bucket.ts";
import { encodeIndex, type StoredRow } from "../bucket/input-parts.ts";
import { readBatch, writeBatch } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import { type BatchId, batchIdFrom, OBJECT_KEYS } from "../core/naming.ts";
import type { Row } from "../core/rows.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { openKnownBatch } from "./rebuild-batch.ts";
import type { AdmittingAccount } from "./single-input.ts";

/** A row as its reader found it, or why it isn't one. */
export type RowReading =
  | { readonly line: number; readonly row: Row }
  | { readonly line: number; readonly reason: string };

export type BadRow = { readonly line: number; readonly reason: string };

export type BatchOptions = {
  readonly name: string;
  readonly tenant: string;
  readonly account: AdmittingAccount;
  /** Take only the first so many rows. */
  readonly limit?: number;
  /** So many more attempts of an item whose attempts the provider itself failed. Default 0. */
  readonly retryFailed?: number;
  /** Make a new batch even if the same one was submitted before. */
  readonly again?: boolean;
};

/** At least one row is bad. Nothing was submitted. */
export class BadRows extends Error {
  override readonly name = "BadRows";
  readonly rows: readonly BadRow[];
  /** Whether there may be more: reading stopped at a hundred. */
  readonly more: boolean;

  constructor(rows: readonly BadRow[], more: boolean) {
    super(`${rows.length}${more ? " or more" : ""} bad row${rows.length === 1 ? "" : "s"}; nothing was submitted`);
    this.rows = rows;
    this.more = more;
  }
}

export type Submitted = {
  readonly batch: BatchId;
  readonly items: number;
  /** False: the same batch had been submitted before. */
  readonly fresh: boolean;
};

export type SubmitDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "openBatch" | "standing" | "restoreBatch">;
  readonly queues: Pick<Queues, "wakeFeed">;
  readonly clock: () => number;
};

const MAX_BAD_ROWS = 100;

/** Throws BadRows. A batch that Redis has forgotten is put back as it was; what was bought of it isn't bought again. */
export async function submitBatch(
  rows: AsyncIterable<RowReading>,
  options: BatchOptions,
  deps: SubmitDeps,
): Promise<Submitted> {
  await using staged = await stageRows(rows, options);
  const { tenant, account, name, retryFailed = 0 } = options;
  const identity = [
    "file",
    tenant,
    account.name,
    name,
    staged.sha256,
    ...(retryFailed > 0 ? [`retry ${retryFailed}`] : []),
    options.again === true ? randomUUID() : null,
  ];
  const id = batchIdFrom(createHash("sha256").update(JSON.stringify(identity)).digest());

  const standing = await readBatch(deps.bucket, id);
  const batch: Batch = standing ?? {
    id,
    kind: "file",
    name,
    tenant,
    account: account.name,
    items: staged.rowEnds.length,
    openedAtMs: deps.clock(),
    retryFailed,
  };
  if (standing === null) {
    await deps.bucket.putStream(OBJECT_KEYS.input(id, 0), createReadStream(staged.file), {
      contentType: "application/x-ndjson",
    });
    await deps.bucket.put(OBJECT_KEYS.inputIndex(id, 0), encodeIndex(0, staged.rowEnds), {
      contentType: "application/octet-stream",
    });
    await writeBatch(deps.bucket, batch);
  }
  await (standing === null ? deps.ledger.openBatch(batch) : openKnownBatch(batch, deps));
  await deps.queues.wakeFeed(batch.account);
  return { batch: id, items: batch.items, fresh: standing === null };
}

/** Validates and spends nothing, writes nothing. Answers how many rows there are. Throws BadRows. */
export async function checkRows(
  rows: AsyncIterable<RowReading>,
  options: Pick<BatchOptions, "account" | "limit">,
): Promise<number> {
  let count = 0;
  for await (const _row of goodRows(rows, options)) count++;
  return count;
}

type Staged = AsyncDisposable & { readonly file: string; readonly rowEnds: readonly number[]; readonly sha256: string };

/** Rows go to a temporary file first: the batch's id is known only when all have been read. */
async function stageRows(rows: AsyncIterable<RowReading>, options: BatchOptions): Promise<Staged> {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-submit-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const file = path.join(folder, "input.jsonl");
    const hash = createHash("sha256");
    const rowEnds: number[] = [];
    let end = 0;
    async function* lines() {
      for await (const row of goodRows(rows, options)) {
        const line = Buffer.from(`${JSON.stringify(row)}\n`);
        hash.update(line);
        end += line.length;
        rowEnds.push(end);
        yield line;
      }
    }
    await pipeline(lines(), createWriteStream(file));
    return { file, rowEnds, sha256: hash.digest("hex"), [Symbol.asyncDispose]: remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** The rows, as long as none is bad; then only the bad ones are counted on. Throws BadRows at the end. */
async function* goodRows(
  rows: AsyncIterable<RowReading>,
  { account, limit = Number.POSITIVE_INFINITY }: Pick<BatchOptions, "account" | "limit">,
): AsyncGenerator<StoredRow> {
  const bad: BadRow[] = [];
  let seen = 0;
  if (limit > 0) {
    for await (const reading of rows) {
      const found = "reason" in reading ? reading : storable(reading, account);
      if ("reason" in found) bad.push(found);
      else if (bad.length === 0) yield found.stored;
      if (++seen === limit || bad.length === MAX_BAD_ROWS) break;
    }
  }
  if (bad.length > 0) throw new BadRows(bad, bad.length === MAX_BAD_ROWS);
  if (seen === 0) throw new BadRows([{ line: 1, reason: "there are no rows" }], false);
}

function storable(
  { line, row }: { line: number; row: Row },
  account: AdmittingAccount,
): { readonly stored: StoredRow } | BadRow {
  const { target, id, input } = row;
  if (target === undefined) return { line, reason: "names no model" };
  if (!account.targets.has(target.kind)) {
    return {
      line,
      reason: `account ${account.name} can't run a ${target.kind}; it takes ${[...account.targets].join(", ")}`,
    };
  }
  return { stored: { input, target, ...(id !== undefined && { id }) } };
}
