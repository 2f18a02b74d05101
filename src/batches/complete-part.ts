/**
 * What makes a part of singles count, once it is in the bucket: its index, its rows' identities, and that its rows may be
 * fed. Whoever comes upon a part that its writer left incomplete does the rest; doing it again changes nothing.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { indexSingles, parseRow, type StoredRow } from "../bucket/input-parts.ts";
import { type Identity, writeIdentity } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import { OBJECT_KEYS } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

export const MAX_PART_BYTES = 64 * 1024 * 1024;
/** Of a part whose only row is a large one. */
export const MAX_READ_BYTES = 2 * MAX_PART_BYTES;

/** A part's number, and the index of its first row. */
export type Place = { readonly part: number; readonly first: number };

export type Line = { readonly row: StoredRow; readonly line: string };

export type PartDeps = { readonly bucket: Bucket; readonly ledger: Pick<Ledger, "publishPart"> };

/** Null: there is no such part. */
export async function readPart(
  bucket: Bucket,
  { id }: Pick<Batch, "id">,
  part: number,
): Promise<readonly Line[] | null> {
  const body = await bucket.get(OBJECT_KEYS.input(id, part), { maxBytes: MAX_READ_BYTES });
  return body === null ? null : linesOf(body);
}

export function linesOf(part: Buffer): readonly Line[] {
  return part
    .toString("utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => ({ line: `${line}\n`, row: parseRow(line) }));
}

/**
 * Answers which identity stands for each row, null for a row without one; or null: Redis doesn't know the parts before it,
 * which it may have lost.
 */
export async function completePart(
  { bucket, ledger }: PartDeps,
  batch: Batch,
  { part, first }: Place,
  lines: readonly Line[],
): Promise<readonly (Identity | null)[] | null> {
  let end = 0;
  const ends = lines.map(({ line }) => (end += Buffer.byteLength(line)));
  await indexSingles(bucket, batch.id, { part, first }, ends);

  const standing = await noteIdentities(bucket, batch, first, lines);
  const voidIndexes = voidRows(batch, first, standing);
  const published = await ledger.publishPart(batch, { part, first, rows: lines.length, voidIndexes });
  return published === "missing" ? null : standing;
}

/** Completes all parts from this one on. */
export async function completeParts(deps: PartDeps, batch: Batch, from: Place): Promise<void> {
  let { part, first } = from;
  for (;;) {
    const lines = await readPart(deps.bucket, batch, part);
    if (lines === null) return;
    if ((await completePart(deps, batch, { part, first }, lines)) === null) {
      throw new Error(
        `Redis lost the parts of batch ${batch.id} that come before part ${part}, while they were published`,
      );
    }
    [part, first] = [part + 1, first + lines.length];
  }
}

/** The same, of a part's rows from `first` on. */
export async function noteIdentities(
  bucket: Bucket,
  batch: Batch,
  first: number,
  lines: readonly Line[],
): Promise<readonly (Identity | null)[]> {
  return Promise.all(
    lines.map(async ({ row }, at) => {
      if (row.identity === undefined || row.input_sha256 === undefined) return null;
      const mine: Identity = { batch: batch.id, index: first + at, inputSha256: row.input_sha256 };
      return writeIdentity(bucket, OBJECT_KEYS.identity(batch.tenant, row.identity), mine);
    }),
  );
}

/** Rows whose identity names another item: they are never bought. */
export function voidRows(batch: Batch, first: number, standing: readonly (Identity | null)[]): readonly number[] {
  return standing.flatMap((identity, at) =>
    identity === null || (identity.batch === batch.id && identity.index === first + at) ? [] : [first + at],
  );
}
