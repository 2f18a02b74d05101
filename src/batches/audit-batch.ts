/**
 * Holds three books of an account against one another: the bucket's receipts, Redis's working state, the provider's list.
 *
 * In this order, so that an audit of a system at work finds no contradictions where there are none: the list first; then
 * batch by batch what the bucket holds, then where Redis says that items stand, and then the receipts, since a receipt
 * is written before its item's end. What is still nobody's on the list is looked up in Redis once more, and held
 * against the rows of all batches. Memory is bounded by what is read of the list, however large the batches are.
 *
 * It only reads: a crash leaves nothing, and running it again is all there is to do.
 */

import { type KeptItem, listKeptItems, nothingKept } from "../bucket/attempts.ts";
import { type Bucket, BucketError } from "../bucket/bucket.ts";
import { parseRow, readRow } from "../bucket/input-parts.ts";
import { readReceipt } from "../bucket/records.ts";
import {
  type AuditTotals,
  auditExitCode,
  type Judgement,
  judgeItem,
  type ListBook,
  openListBook,
  openTally,
  probablyAlive,
  type Share,
  whyUnlisted,
} from "../core/auditing.ts";
import { type ItemByte, type ItemState, isEnd } from "../core/item.ts";
import { couldBe } from "../core/matching.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  errandId,
  itemId,
  OBJECT_KEYS,
  parseErrandId,
} from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import { billedTimeMs, notSavedBy, predictTimeMs, type Receipt } from "../core/receipt.ts";
import { latestAfterIntentMs, type SweepPolicy } from "../core/sweeping.ts";
import type { BatchStanding, Ledger, OpenItemFields } from "../ledger/ledger.ts";
import type { AccountFinding, AuditFinding, ListTotals, OfItem, OfPrediction, Sum } from "./audit-findings.ts";
import { placeItems } from "./place-items.ts";
import { type ListDeps, type ReadList, readProviderList } from "./read-list.ts";

export type AuditDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "standing" | "readStates" | "readItem" | "partOf" | "holdersAmong" | "intents">;
  /** A text: why the provider's list isn't read. */
  readonly list: Pick<ListDeps, "list" | "pauseMs" | "maxPages"> | string;
  readonly policy: SweepPolicy;
  readonly clock: () => number;
};

const STATES_AT_ONCE = 1_024;
const READS_AT_ONCE = 32;
const ROWS_AT_ONCE = 64;
const IDS_AT_ONCE = 500;
const FOREIGN_EXAMPLES = 5;
/** An account has twenty unclear items before nothing more is bought; more can come from claims that Redis lost. */
const MAX_UNCLEAR_LOOKED_FOR = 1_000;
const MAX_INTENTS = 10_000;

/** What all steps of one audit share. */
type Audit = {
  readonly account: AccountName;
  readonly deps: AuditDeps;
  readonly read: ReadList | null;
  readonly book: ListBook;
  /** By item: which attempt Redis knows to hold which of the listed predictions. */
  readonly bound: ReadonlyMap<string, ReadonlyMap<number, string>>;
  readonly tally: ReturnType<typeof openTally>;
  readonly unlisted: Record<"unread" | "young" | "vanished", number>;
  readonly unclear: { readonly ref: AttemptRef; readonly fromMs: number | null; readonly toMs: number }[];
};

/** The findings of an account's batches; the last one holds the totals. Batches that Redis doesn't know are left out. */
export async function* auditAccount(
  account: AccountName,
  batches: readonly BatchId[],
  deps: AuditDeps,
  signal: AbortSignal,
): AsyncGenerator<AuditFinding> {
  const standings = await standingsOf(account, batches, deps);
  const read = await readList(account, standings, deps, signal);
  const runs = read?.runs ?? [];
  const audit: Audit = {
    account,
    deps,
    read,
    book: openListBook(runs),
    bound: boundByItem(runs),
    tally: openTally(),
    unlisted: { unread: 0, young: 0, vanished: 0 },
    unclear: [],
  };
  let moving = 0;
  for (const { batch } of standings) {
    const stoodStill = yield* auditBatch(audit, batch.id, signal);
    if (!stoodStill) moving++;
  }
  await lookAgain(audit);
  yield* findUnclear(audit);
  for (const { batch } of standings) yield* compareRows(audit, batch, signal);

  const foreign: string[] = [];
  for (const run of audit.book.groups()) {
    audit.tally.listed(run.group, run.predictTimeMs);
    if (run.group === "foreign" && foreign.length < FOREIGN_EXAMPLES) foreign.push(run.id);
    if (run.group !== "matching" && run.group !== "silent") continue;
    yield {
      finding: "unexplained",
      account,
      ...ofPrediction(run.id, audit.book),
      why: run.group,
      could_be: run.couldBe,
    };
  }
  yield totalsOf(audit, standings, moving, foreign);
}

async function standingsOf(account: AccountName, batches: readonly BatchId[], { ledger }: AuditDeps) {
  const standings: BatchStanding[] = [];
  for (const id of batches) {
    const standing = await ledger.standing(account, id);
    if (standing !== null) standings.push(standing);
  }
  return standings;
}

/** From the first moment at which something may have been bought to the last; null where there is nothing to read. */
async function readList(
  account: AccountName,
  standings: readonly BatchStanding[],
  { ledger, list, policy, clock }: AuditDeps,
  signal: AbortSignal,
): Promise<ReadList | null> {
  if (typeof list === "string" || standings.length === 0) return null;
  const nowMs = clock();
  const afterEndMs = policy.requestDeadlineMs + policy.skewMs;
  const fromMs = standings.reduce((first, { batch }) => Math.min(first, batch.openedAtMs), nowMs) - policy.skewMs;
  const toMs = standings.reduce((last, { finishedAtMs }) => Math.max(last, (finishedAtMs ?? nowMs) + afterEndMs), 0);
  return readProviderList(account, { fromMs, toMs }, { ...list, ledger, clock }, signal);
}

function boundByItem(runs: ReadList["runs"]): Audit["bound"] {
  const bound = new Map<string, Map<number, string>>();
  for (const { id, holder } of runs) {
    const ref = holder === null ? null : parseErrandId(holder);
    if (ref === null) continue;
    const key = itemId(ref.batch, ref.index);
    bound.set(key, (bound.get(key) ?? new Map<number, string>()).set(ref.attempt, id));
  }
  return bound;
}

// ── the items of a batch ──────────────────────────────────────────────────────

type Seen = {
  readonly index: number;
  readonly byte: ItemByte;
  readonly fields: Partial<OpenItemFields>;
  readonly kept: KeptItem;
  readonly judgement: Judgement;
};

/** What receipts and bytes add up to. */
type Sums = {
  readonly counts: Map<ItemState, number>;
  predictTimeMs: bigint;
  outputBytes: bigint;
  outputFiles: bigint;
  notSaved: bigint;
};

/** Answers whether the batch stood still meanwhile, so that its totals could be compared. */
async function* auditBatch(audit: Audit, batch: BatchId, signal: AbortSignal): AsyncGenerator<AuditFinding, boolean> {
  const { account, deps } = audit;
  const before = await deps.ledger.standing(account, batch);
  if (before === null) return true;
  const sums: Sums = { counts: new Map(), predictTimeMs: 0n, outputBytes: 0n, outputFiles: 0n, notSaved: 0n };
  const kept = listKeptItems(deps.bucket, batch);
  let next = await kept.next();
  for (let start = 0; start < before.batch.items; start += STATES_AT_ONCE) {
    signal.throwIfAborted();
    const end = Math.min(start + STATES_AT_ONCE, before.batch.items);
    const inBucket = new Map<number, KeptItem>();
    for (; next.done !== true && next.value.index < end; next = await kept.next())
      inBucket.set(next.value.index, next.value);
    const bytes = await deps.ledger.readStates(account, batch, start, end - start);
    for (let at = 0; at < bytes.length; at += READS_AT_ONCE) {
      const some = bytes.slice(at, at + READS_AT_ONCE).map((byte, offset) => ({ byte, index: start + at + offset }));
      const seen = await Promise.all(
        some.map(({ byte, index }) => lookAt(audit, batch, index, byte, inBucket.get(index) ?? nothingKept(index))),
      );
      for (const item of seen) yield* take(audit, batch, item, sums);
    }
  }
  const surplus = next.done === true ? null : next.value.index;
  await kept.return(undefined);
  const after = await deps.ledger.standing(account, batch);
  if (after === null || !standsStill(before, after)) return false;
  if (surplus !== null) {
    const what = `the bucket has objects of item ${surplus}, and Redis knows ${before.batch.items} items`;
    yield disagreement(audit, batch, null, what);
  }
  for (const what of wrongTotals(before, sums)) yield disagreement(audit, batch, null, what);
  return true;
}

function standsStill(before: BatchStanding, after: BatchStanding): boolean {
  const shown = ({ counts, sums, batch }: BatchStanding) =>
    JSON.stringify([counts, batch.items, Object.values(sums).map(String)]);
  return shown(before) === shown(after);
}

function wrongTotals({ counts, sums }: BatchStanding, found: Sums): readonly string[] {
  const states = Object.entries(counts).flatMap(([state, count]) => {
    const bytes = found.counts.get(state as ItemState) ?? 0;
    return bytes === count ? [] : [`the counters say that ${count} items are ${state}, the items' bytes say ${bytes}`];
  });
  const totals = [
    ["predict time (ms)", sums.predict_time_ms, found.predictTimeMs],
    ["bytes of outputs", sums.output_bytes, found.outputBytes],
    ["files", sums.output_files, found.outputFiles],
    ["predictions paid for and not saved", sums.not_saved, found.notSaved],
  ] as const;
  return [
    ...states,
    ...totals.flatMap(([what, redis, receipts]) =>
      redis === receipts ? [] : [`Redis adds up ${redis} ${what}, the receipts ${receipts}`],
    ),
  ];
}

async function lookAt(audit: Audit, batch: BatchId, index: number, found: ItemByte, kept: KeptItem): Promise<Seen> {
  const { account, deps } = audit;
  const { byte, fields } = await standingOf(audit, batch, index, found);
  const bound = new Map(audit.bound.get(itemId(batch, index)));
  if (fields.prediction_id !== undefined) bound.set(byte.attempt, fields.prediction_id);

  const asked = new Set(kept.receipts);
  if (byte.state === "saved" || byte.state === "failed" || (isEnd(byte.state) && bound.has(byte.attempt))) {
    asked.add(byte.attempt);
  }
  const damaged: string[] = [];
  const receipts = new Map<number, Receipt | null>();
  for (const attempt of asked) {
    const receipt = await readSoundReceipt(deps.bucket, { account, batch, index, attempt });
    if (receipt === "damaged") damaged.push(`the receipt of attempt ${attempt} can't be read`);
    receipts.set(attempt, receipt === "damaged" ? null : receipt);
  }
  const files = new Map(kept.files);
  for (const { key } of [...receipts.values()].flatMap((receipt) => receipt?.outputs ?? [])) {
    // It may have been written after the bucket was listed.
    const info = files.has(key) ? null : await deps.bucket.head(key);
    if (info !== null) files.set(key, info.bytes);
  }
  const judgement = judgeItem({ byte, receipts, bound, files });
  return {
    index,
    byte,
    fields,
    kept,
    judgement: { ...judgement, disagreements: [...damaged, ...judgement.disagreements] },
  };
}

/** An item and its hash are read one after the other: what ended in between is read again. */
async function standingOf(
  { account, deps }: Audit,
  batch: BatchId,
  index: number,
  found: ItemByte,
): Promise<{ readonly byte: ItemByte; readonly fields: Partial<OpenItemFields> }> {
  if (found.state === "waiting" || isEnd(found.state)) return { byte: found, fields: {} };
  const read = async () => {
    const { attempt, state, fields } = await deps.ledger.readItem({ account, batch, index });
    return { byte: { attempt, state }, fields };
  };
  const first = await read();
  return first.fields.nonce === undefined ? read() : first;
}

async function readSoundReceipt(bucket: Bucket, ref: AttemptRef): Promise<Receipt | "damaged" | null> {
  try {
    const receipt = await readReceipt(bucket, ref);
    return receipt === null || (Array.isArray(receipt.outputs) && Array.isArray(receipt.attempts))
      ? receipt
      : "damaged";
  } catch (error) {
    if (error instanceof BucketError) throw error;
    return "damaged";
  }
}

function* take(
  audit: Audit,
  batch: BatchId,
  { index, byte, fields, kept, judgement }: Seen,
  sums: Sums,
): Generator<AuditFinding> {
  const { account, tally, book } = audit;
  const item = itemId(batch, index);
  const of: OfItem = { account, batch, item, index };
  sums.counts.set(byte.state, (sums.counts.get(byte.state) ?? 0) + 1);
  const own = new Set<string>();
  for (const { attempt, receipt, ...standing } of judgement.attempts) {
    const predictionId = "predictionId" in standing ? standing.predictionId : null;
    const listed = predictionId === null ? null : book.find(predictionId);
    const billedMs = receipt === null ? (listed?.predictTimeMs ?? null) : predictTimeMs(receipt.metrics);
    tally.attempt(standing, standing.kind === "carried" ? 0n : (billedMs ?? 0n));
    if (receipt !== null && (attempt < byte.attempt || (attempt === byte.attempt && isEnd(byte.state)))) {
      sums.predictTimeMs += billedTimeMs(receipt);
      sums.outputBytes += receipt.outputs.reduce((sum, { bytes }) => sum + BigInt(bytes), 0n);
      sums.outputFiles += BigInt(receipt.outputs.length);
      sums.notSaved += notSavedBy(receipt);
    }
    const createdAtMs = createdAt(audit, receipt, fields, listed?.createdAtMs);
    if (predictionId !== null && !own.has(predictionId)) {
      own.add(predictionId);
      const before = book.hold(predictionId, item);
      if (before !== null && before !== item) {
        yield disagreement(audit, batch, index, `prediction ${predictionId} is held by item ${before}, too`);
      }
      if (audit.read !== null && listed === null) {
        const why = whyUnlisted(createdAtMs, audit.read.span, audit.deps.policy);
        audit.unlisted[why]++;
        if (why === "vanished") yield { finding: "vanished", ...of, attempt, prediction_id: predictionId };
      }
    }
    if (standing.kind === "not-saved" || standing.kind === "in-flight") {
      const status = listed?.status ?? receipt?.prediction_status ?? null;
      yield {
        finding: standing.kind === "not-saved" ? "not_saved" : "in_flight",
        ...of,
        attempt,
        prediction_id: predictionId,
        why: standing.kind === "not-saved" ? standing.why : byte.state,
        error: standing.kind === "not-saved" ? standing.error : null,
        created_at: iso(createdAtMs),
        predict_time: secondsOf(billedMs),
        alive:
          predictionId !== null &&
          probablyAlive({ createdAtMs, status, dataRemoved: listed?.dataRemoved ?? false, nowMs: nowOf(audit) }),
      };
    }
    if (standing.kind === "unclear") {
      const toMs = Number(fields.intent_at ?? Number.NaN);
      const fromMs = Number(fields.intent_from ?? toMs);
      audit.unclear.push({
        ref: { account, batch, index, attempt },
        fromMs: Number.isNaN(fromMs) ? null : fromMs,
        toMs,
      });
    }
  }
  const last = judgement.attempts.at(-1);
  if (byte.state === "failed" || byte.state === "canceled" || last?.kind === "not-saved") tally.unsavedItem();
  for (const what of judgement.disagreements) yield disagreement(audit, batch, index, what);
  for (const prediction of kept.duplicates.filter((id) => !own.has(id))) {
    book.book(prediction);
    tally.duplicate(book.find(prediction)?.predictTimeMs ?? 0n);
    yield { finding: "duplicate", ...of, ...ofPrediction(prediction, book) };
  }
}

/** On the provider's clock. */
function createdAt(
  { read }: Audit,
  receipt: Receipt | null,
  fields: Partial<OpenItemFields>,
  listedMs: number | undefined,
): number | null {
  const offsetMs = read?.offsetMs ?? 0;
  const times = [
    listedMs ?? Number.NaN,
    Date.parse(receipt?.created_at ?? ""),
    Date.parse(receipt?.claimed_at ?? "") + offsetMs,
    receipt === null ? Number(fields.intent_at ?? Number.NaN) + offsetMs : Number.NaN,
  ];
  return times.find((ms) => !Number.isNaN(ms)) ?? null;
}

function nowOf({ deps, read }: Audit): number {
  return deps.clock() + (read?.offsetMs ?? 0);
}

function disagreement({ account, tally }: Audit, batch: BatchId, index: number | null, what: string): AuditFinding {
  tally.disagreement();
  return { finding: "disagreement", account, batch, item: index === null ? null : itemId(batch, index), index, what };
}

// ── what is nobody's on the list ──────────────────────────────────────────────

/** What was on its way when the list was read may have been bound since; and Redis knows other batches' predictions. */
async function lookAgain({ account, deps, book }: Audit): Promise<void> {
  const ids = book.loose().map(({ id }) => id);
  for (let at = 0; at < ids.length; at += IDS_AT_ONCE) {
    const some: readonly PredictionId[] = ids.slice(at, at + IDS_AT_ONCE);
    for (const [id, holder] of await deps.ledger.holdersAmong(account, some, deps.clock())) book.bind(id, holder);
  }
}

async function* findUnclear(audit: Audit): AsyncGenerator<AuditFinding> {
  const { deps, book, read } = audit;
  const { skewMs } = deps.policy;
  const loose = book.loose();
  const offsetMs = read?.offsetMs ?? 0;
  const looked = audit.unclear.length === 0 ? [] : await deps.ledger.intents(audit.account, "unclear", MAX_INTENTS);
  const lookedFor = new Set(looked.map(({ ref }) => errandId(ref)));
  for (const [at, { ref, fromMs, toMs }] of audit.unclear.entries()) {
    const { account, batch, index, attempt } = ref;
    if (looked.length < MAX_INTENTS && !lookedFor.has(errandId(ref)) && (await isUnclear(deps, ref))) {
      yield disagreement(
        audit,
        batch,
        index,
        "Redis says unclear, and doesn't list it among those that are looked for",
      );
    }
    const inTime = loose.filter(
      ({ createdAtMs }) =>
        !(createdAtMs < (fromMs ?? Number.NaN) + offsetMs - skewMs) &&
        !(createdAtMs > toMs + offsetMs + latestAfterIntentMs(deps.policy)),
    );
    const input = inTime.length === 0 || at >= MAX_UNCLEAR_LOOKED_FOR ? null : await inputOf(deps, ref);
    yield {
      finding: "unclear",
      account,
      batch,
      item: itemId(batch, index),
      index,
      attempt,
      since: iso(fromMs),
      candidates: input === null ? [] : inTime.filter((run) => couldBe(input, run.input)).map(({ id }) => id),
    };
  }
}

/** It may have been resolved meanwhile. */
async function isUnclear({ ledger }: AuditDeps, ref: AttemptRef): Promise<boolean> {
  const { attempt, state } = await ledger.readItem(ref);
  return attempt === ref.attempt && state === "unclear";
}

async function inputOf({ bucket, ledger }: AuditDeps, { account, batch, index }: AttemptRef) {
  const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
  return place === undefined ? null : (await readRow(bucket, batch, place)).input;
}

/** Whose could it be? Every row of a batch is asked, also those that say they were never sent. */
async function* compareRows(
  audit: Audit,
  batch: BatchStanding["batch"],
  signal: AbortSignal,
): AsyncGenerator<AuditFinding> {
  const { deps, book, read } = audit;
  if (read === null) return;
  const fromMs = batch.openedAtMs + read.offsetMs - deps.policy.skewMs;
  if (!book.open(batch.id, fromMs)) return;
  try {
    for (let index = 0; index < batch.items; ) {
      signal.throwIfAborted();
      const inputs = await readInputs(deps, batch, index);
      for (const [at, input] of inputs.entries()) book.compare(itemId(batch.id, index + at), input, fromMs);
      index += inputs.length;
    }
  } catch (error) {
    if (error instanceof BucketError || signal.aborted) throw error;
    // What can't be compared could be ours.
    book.suspect(batch.id, fromMs);
    yield disagreement(audit, batch.id, null, `its input can't be read: ${(error as Error).message}`);
  }
}

/** Of some rows from an index on, at least one. */
async function readInputs(
  { bucket, ledger }: AuditDeps,
  { account, id, items }: BatchStanding["batch"],
  index: number,
) {
  const places = await placeItems({ bucket, ledger }, account, id, index, Math.min(ROWS_AT_ONCE, items - index));
  const [first] = places;
  const last = places.at(-1);
  if (first === undefined || last === undefined) throw new Error(`item ${index} stands in no part of it`);
  const bytes = await bucket.getRange(
    OBJECT_KEYS.input(id, first.part),
    first.offset,
    last.offset + last.length - first.offset,
  );
  if (bytes === null || bytes.length !== last.offset + last.length - first.offset)
    throw new Error(`part ${first.part} is short`);
  return places.map(({ offset, length }) => {
    const start = offset - first.offset;
    return parseRow(bytes.toString("utf8", start, start + length)).input;
  });
}

// ── shapes ────────────────────────────────────────────────────────────────────

function totalsOf(
  { account, deps, read, book, tally, unlisted }: Audit,
  standings: readonly BatchStanding[],
  moving: number,
  foreign: readonly string[],
): AccountFinding {
  const totals = tally.totals();
  const { attempts, causes, duplicates, disagreements } = totals;
  const bySize = [...causes].toSorted(([, a], [, b]) => b.count - a.count);
  return {
    finding: "account",
    account,
    batches: standings.length,
    items: standings.reduce((sum, { batch }) => sum + batch.items, 0),
    exit_code: auditExitCode(totals),
    saved: sumOf(attempts.saved),
    not_saved: { ...sumOf(attempts["not-saved"]), causes: bySize.map(([why, share]) => ({ why, ...sumOf(share) })) },
    in_flight: sumOf(attempts["in-flight"]),
    sending: attempts.sending.count,
    unclear: attempts.unclear.count,
    not_bought: attempts["not-bought"].count,
    carried: attempts.carried.count,
    duplicates: sumOf(duplicates),
    disagreements,
    moving,
    list: read === null ? null : listTotals(read, book, totals, unlisted, foreign),
    list_stopped_by: typeof deps.list === "string" ? deps.list : (read?.stoppedBy ?? null),
  };
}

function listTotals(
  { span }: ReadList,
  book: ListBook,
  { list }: AuditTotals,
  unlisted: Audit["unlisted"],
  foreign: readonly string[],
): ListTotals {
  return {
    predictions: book.size,
    complete: span.complete,
    from: new Date(span.afterMs).toISOString(),
    to: new Date(span.beforeMs).toISOString(),
    oldest: iso(span.oldestMs),
    held: sumOf(list.held),
    elsewhere: sumOf(list.elsewhere),
    duplicates: sumOf(list.duplicate),
    matching: sumOf(list.matching),
    silent: sumOf(list.silent),
    foreign: { ...sumOf(list.foreign), examples: foreign },
    unlisted,
  };
}

function ofPrediction(id: string, book: ListBook): OfPrediction {
  const listed = book.find(id);
  return {
    prediction_id: id,
    status: listed?.status ?? null,
    created_at: iso(listed?.createdAtMs ?? null),
    predict_time: secondsOf(listed?.predictTimeMs ?? null),
  };
}

function sumOf({ count, predictTimeMs: ms }: Share): Sum {
  return { count, predict_time: Number(ms) / 1_000 };
}

function secondsOf(ms: bigint | null): number | null {
  return ms === null ? null : Number(ms) / 1_000;
}

function iso(ms: number | null): string | null {
  return ms === null || !Number.isFinite(ms) ? null : new Date(ms).toISOString();
}
