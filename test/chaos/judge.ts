/**
 * Holds what a chaos run came to against the emulator's books and models, and against the bytes in the bucket; our own
 * books only have to say the same.
 *
 *   paid twice   creates of an input beyond the purchases that were decided for the items that have it (`decisions.ts`)
 *   lost         items that neither ended nor are unclear; or failed, though their prediction didn't; purchases that were
 *                decided and never made
 *   wrong        outputs that aren't, byte for byte, what the model makes of the item's input; predictions held by an item
 *                they weren't bought for
 *   unclear      items of which nobody knows whether they were bought
 *   books        totals of status and manifest that aren't those of the provider's books; forged webhooks that were taken
 *   foreign      predictions of others that were canceled
 *
 * In a hostile run, where strangers buy our very inputs and the list empties some, one of their predictions may stand in
 * for ours, and an item may stay unclear for good: but only where the evidence leaves it open (`evidence.ts`).
 */

import type { Bucket } from "../../src/bucket/bucket.ts";
import { readManifest } from "../../src/bucket/records.ts";
import type { PredictionRow } from "../../src/emulator/books.ts";
import type { Emulator } from "../../src/emulator/emulator.ts";
import type { BatchReport, ResultLine } from "../../src/index.ts";
import { type Decisions, predictionsOf, purchasesOf } from "./decisions.ts";
import type { Evidence } from "./evidence.ts";
import { digestIn, type Item } from "./items.ts";
import { compareOutput } from "./outputs.ts";

export type Outcome = {
  readonly items: readonly Item[];
  readonly lines: readonly ResultLine[];
  readonly reports: readonly BatchReport[];
  readonly decisions: Decisions;
};

export const OFFENCES = ["paid twice", "lost", "wrong", "unclear", "books", "foreign"] as const;
export type Offence = (typeof OFFENCES)[number];

export type Verdict = {
  readonly creates: number;
  /** Purchases that were decided: one of each item, and those again of what failed. */
  readonly decided: number;
  readonly counts: Readonly<Record<Offence, number>>;
  /** Unclear items that evidence can't resolve; not among `counts`. */
  readonly undecidable: number;
  readonly offenders: readonly Offender[];
};

/** For whoever has to find out why. */
type Offender = {
  readonly offence: Offence;
  readonly says: string;
  readonly item: Item | null;
  readonly line: ResultLine | null;
  /** The books' rows of this input, and of the prediction that the item holds. */
  readonly bought: readonly PredictionRow[];
};

/** `evidence`: null where no item may stay unclear. */
export async function judge(
  outcome: Outcome,
  emulator: Emulator,
  bucket: Bucket,
  evidence: Evidence | null,
): Promise<Verdict> {
  const { items, lines, reports } = outcome;
  const books = readBooks(emulator, lines);
  const offenders: Offender[] = [];
  const sums = { predictMs: 0, files: 0, bytes: 0 };
  let undecidable = 0;
  const purchases = new Map<Item, number>();

  for (const item of items) {
    const found = await judgeItem(item, books, bucket, evidence);
    sums.predictMs += found.predictMs;
    sums.files += found.files;
    sums.bytes += found.bytes;
    undecidable += found.undecidable ? 1 : 0;
    const [line] = books.lines.get(item.id) ?? [];
    purchases.set(item, line === undefined ? 1 : purchasesOf(line, outcome.decisions, books.rows));
    for (const [offence, says] of found.offences) offenders.push(offender(offence, says, item, books));
  }
  const wanted = Map.groupBy(items, digestIn);
  for (const { digest, creates } of emulator.inputRows()) {
    const wanting = wanted.get(digest) ?? [];
    const decided = wanting.reduce((sum, item) => sum + (purchases.get(item) ?? 0), 0);
    const says = `${creates} creates for ${wanting.length} items, of ${decided} that were decided`;
    for (let surplus = creates - decided; surplus > 0; surplus--) {
      offenders.push(offender("paid twice", says, wanting[0] ?? null, books));
    }
    // What isn't ended is told of already.
    const haveEnded = wanting.every((item) => hasEnded(books.lines.get(item.id)));
    for (let missing = haveEnded ? decided - creates : 0; missing > 0; missing--) {
      offenders.push(offender("lost", says, wanting[0] ?? null, books));
    }
  }
  const { forged_taken: forged } = emulator.books().webhooks;
  if (forged > 0) offenders.push(offender("books", `${forged} forged webhooks were taken`, null, books));
  for (const says of await disagreements(lines, reports, sums, bucket)) {
    offenders.push(offender("books", says, null, books));
  }
  for (const { id, foreign, status } of books.rows.values()) {
    if (foreign && (status === "canceled" || status === "aborted")) {
      offenders.push(offender("foreign", `${id} was ${status}`, null, books));
    }
  }
  const counts: Record<Offence, number> = { "paid twice": 0, lost: 0, wrong: 0, unclear: 0, books: 0, foreign: 0 };
  for (const { offence } of offenders) counts[offence]++;
  const decided = [...purchases.values()].reduce((sum, count) => sum + count, 0);
  return { creates: emulator.books().creates.total, decided, counts, undecidable, offenders };
}

/** The provider's books, beside who holds what by ours. */
type Books = {
  readonly rows: ReadonlyMap<string, PredictionRow>;
  readonly byDigest: ReadonlyMap<string, readonly PredictionRow[]>;
  /** By the row's own id. */
  readonly lines: ReadonlyMap<string | null, readonly ResultLine[]>;
  /** By the prediction's id: whose last attempt has it, or an earlier one. */
  readonly holders: ReadonlyMap<string, readonly ResultLine[]>;
};

function readBooks(emulator: Emulator, lines: readonly ResultLine[]): Books {
  const rows = [...emulator.predictionRows()];
  return {
    rows: new Map(rows.map((row) => [row.id, row])),
    byDigest: Map.groupBy(rows, ({ digest }) => digest),
    lines: Map.groupBy(lines, ({ id }) => id),
    holders: holdersIn(lines),
  };
}

function holdersIn(lines: readonly ResultLine[]): ReadonlyMap<string, readonly ResultLine[]> {
  const holders = new Map<string, ResultLine[]>();
  for (const line of lines) {
    for (const prediction of predictionsOf(line)) holders.set(prediction, [...(holders.get(prediction) ?? []), line]);
  }
  return holders;
}

function hasEnded(lines: readonly ResultLine[] | undefined): boolean {
  return lines?.every(({ status }) => status === "saved" || status === "failed") === true;
}

type Found = {
  readonly offences: readonly (readonly [Offence, says: string])[];
  readonly undecidable: boolean;
  /** What it adds to the totals, by the books and the model. */
  readonly predictMs: number;
  readonly files: number;
  readonly bytes: number;
};

const NOTHING: Found = { offences: [], undecidable: false, predictMs: 0, files: 0, bytes: 0 };

async function judgeItem(item: Item, books: Books, bucket: Bucket, evidence: Evidence | null): Promise<Found> {
  const [line, ...more] = books.lines.get(item.id) ?? [];
  if (line === undefined) return { ...NOTHING, offences: [["lost", "it is nowhere"]] };
  if (more.length > 0) return { ...NOTHING, offences: [["wrong", `it has ${more.length + 1} lines`]] };
  // Also one whose last attempt came to nothing yet.
  const predictMs = billedMs(line, books);
  if (line.status === "unclear") {
    return evidence?.leavesOpen(item, line.item) === true
      ? { ...NOTHING, predictMs, undecidable: true }
      : { ...NOTHING, predictMs, offences: [["unclear", "nobody knows whether it was bought"]] };
  }
  if (line.status !== "saved" && line.status !== "failed") {
    return { ...NOTHING, offences: [["lost", `it is ${line.status}`]] };
  }
  const held = books.rows.get(line.prediction_id ?? "");
  if (held === undefined) {
    return { ...NOTHING, offences: [["lost", `it ${line.status} without a prediction: ${line.error}`]] };
  }

  const offences: [Offence, string][] = [];
  const holders = books.holders.get(held.id) ?? [];
  for (const prediction of predictionsOf(line)) {
    if (books.rows.get(prediction)?.digest === digestIn(item)) continue;
    offences.push(["wrong", `its prediction ${prediction} was bought for another input`]);
  }
  if (held.foreign && evidence === null) offences.push(["wrong", "its prediction was bought by somebody else"]);
  if (holders.length > 1) offences.push(["wrong", "another item holds its prediction too"]);
  if (line.status === "failed") {
    if (held.status !== "failed") offences.push(["lost", `it failed, its prediction ${held.status}: ${line.error}`]);
    return { ...NOTHING, offences, predictMs };
  }
  const { mistake, files, bytes } = await compareOutput(item, line, bucket);
  if (held.status !== "succeeded") offences.push(["wrong", `it is saved, its prediction ${held.status}`]);
  if (mistake !== null) offences.push(["wrong", mistake]);
  return { ...NOTHING, offences, predictMs, files, bytes };
}

/** Of all its attempts; what two hold is the first one's. */
function billedMs(line: ResultLine, { rows, holders }: Books): number {
  const own = [...predictionsOf(line)].filter((prediction) => holders.get(prediction)?.[0] === line);
  return own.reduce((sum, id) => sum + Math.round((rows.get(id)?.predict_time ?? 0) * 1_000), 0);
}

function offender(offence: Offence, says: string, item: Item | null, { lines, rows, byDigest }: Books): Offender {
  const [line = null] = item === null ? [] : (lines.get(item.id) ?? []);
  const held = rows.get(line?.prediction_id ?? "");
  const bought = new Set(item === null ? [] : byDigest.get(digestIn(item)));
  if (held !== undefined) bought.add(held);
  return { offence, says, item, line, bought: [...bought] };
}

/** Where our own totals differ from the books', or from one another. */
async function disagreements(
  lines: readonly ResultLine[],
  reports: readonly BatchReport[],
  books: { readonly predictMs: number; readonly files: number; readonly bytes: number },
  bucket: Bucket,
): Promise<readonly string[]> {
  const found: string[] = [];
  const expect = (what: string, ours: number, theirs: number) => {
    if (ours !== theirs) found.push(`${what}: ours ${ours}, the books' ${theirs}`);
  };
  const total = (read: (report: BatchReport) => number) => reports.reduce((sum, report) => sum + read(report), 0);
  expect(
    "predict time, ms",
    total(({ metrics }) => Math.round(metrics.predict_time * 1_000)),
    books.predictMs,
  );
  expect(
    "files",
    total(({ metrics }) => metrics.output_files),
    books.files,
  );
  expect(
    "bytes",
    total(({ metrics }) => metrics.output_bytes),
    books.bytes,
  );
  for (const status of ["saved", "failed", "canceled"] as const) {
    expect(
      status,
      total((report) => report[status]),
      lines.filter((line) => line.status === status).length,
    );
  }
  for (const report of reports) {
    if (report.finished_at === null) continue;
    const manifest: Readonly<Record<string, unknown>> | null = await readManifest(bucket, report.batch);
    if (JSON.stringify(manifest?.["metrics"]) !== JSON.stringify(report.metrics)) {
      found.push(`the manifest of ${report.batch} has ${JSON.stringify(manifest?.["metrics"])}`);
    }
  }
  return found;
}
