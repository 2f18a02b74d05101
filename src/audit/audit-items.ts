/** The items of a batch: what the bucket keeps of each, held against where Redis says that it stands. */

import { type KeptItem, listKeptItems, nothingKept } from "../bucket/attempts.ts";
import { type Bucket, BucketError } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import { type Judgement, judgeItem, probablyAlive } from "../core/auditing.ts";
import { type ItemByte, type ItemState, isEnd } from "../core/item.ts";
import { whyUnlisted } from "../core/list-book.ts";
import { type AttemptRef, type BatchId, itemId } from "../core/naming.ts";
import { billedTimeMs, notSavedBy, predictTimeMs, type Receipt } from "../core/receipt.ts";
import type { BatchStanding, OpenItemFields } from "../ledger/ledger.ts";
import { type Audit, disagreement } from "./audit.ts";
import { type AuditFinding, iso, type OfItem, ofPrediction, secondsOf } from "./findings.ts";

const STATES_AT_ONCE = 1_024;
const READS_AT_ONCE = 32;

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
export async function* auditBatch(
  audit: Audit,
  batch: BatchId,
  signal: AbortSignal,
): AsyncGenerator<AuditFinding, boolean> {
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
