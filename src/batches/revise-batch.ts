/**
 * Puts right a batch that Redis knows, and of whose last moments it may have lost some: what people had decided, parts and
 * windows of rows that it doesn't know, attempts that were opened, receipts. What may have been bought since Redis's last
 * sure word and has no receipt is unclear over that whole time. Doing it again changes nothing.
 */

import { readBatchActs } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import { readWindow, readWindows, windowAt } from "../bucket/window-notes.ts";
import type { Batch } from "../core/batch.ts";
import { failureGroup } from "../core/failing.ts";
import { type ItemByte, isEnd } from "../core/item.ts";
import type { AttemptRef } from "../core/naming.ts";
import { predictionId } from "../core/prediction.ts";
import { DEFAULT_SWEEP_POLICY } from "../core/sweeping.ts";
import type { BatchStanding, CancelWalk, Ledger, LostSpan } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { completeParts } from "./complete-part.ts";
import { type Acted, judgeActs } from "./judge-acts.ts";
import { readItemRow } from "./place-items.ts";
import { carryOn } from "./repair-item.ts";
import { CANCELED_BY_A_PERSON, withdrawItem } from "./withdraw-item.ts";

export type ReviseDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<
    Ledger,
    | "standing"
    | "publishPart"
    | "doubtLost"
    | "readStates"
    | "move"
    | "markItem"
    | "redrive"
    | "readItem"
    | "partOf"
    | "pauseBatch"
    | "resumeBatch"
    | "cancelBatch"
    | "walkCancel"
  >;
  readonly queues: Pick<Queues, "record" | "follow" | "notify" | "reply" | "finish">;
  readonly clock: () => number;
};

const STRETCH = 65_536;
const SLICE = 500;
/** Items of a canceled batch in one script, as the feed walks them. */
const WALKED_AT_ONCE = 2_000;
const READS_AT_ONCE = 32;

/** Answers how many of its items are unclear for what was lost, and what people had decided. */
export async function reviseBatch(
  standing: BatchStanding,
  lost: LostSpan,
  deps: ReviseDeps,
): Promise<{ readonly unclear: number; readonly acted: Acted }> {
  const acted = judgeActs(await readBatchActs(deps.bucket, standing.batch.id));
  await reviseHolds(standing, acted, deps);
  await redriveLost(standing, acted, lost, deps);
  await repairLost(standing.batch, acted, deps);

  await publishLostParts(standing, deps);
  const now = (await deps.ledger.standing(standing.batch.account, standing.batch.id)) ?? standing;
  const fed = Math.min(await fedByNotes(now, deps), now.batch.items);
  const late = await lateFrom(now, fed, lost, deps);
  let windows: ReturnType<typeof readWindows> | null = null;
  const given: Given = { fed, cursor: late, windows: () => (windows ??= readWindows(deps.bucket, now.batch.id)) };
  let unclear = 0;
  for (let start = 0; start < late; start += STRETCH) {
    const length = Math.min(STRETCH, late - start);
    const states = await deps.ledger.readStates(now.batch.account, now.batch.id, start, length);
    const open = states.flatMap((item, at) => (mayBeBought(item) ? [start + at] : []));
    for (let at = 0; at < open.length; at += SLICE) {
      const slice = open.slice(at, at + SLICE).map((index) => refOf(now.batch, index, states[index - start]));
      unclear += await reviseSlice(now.batch, given, slice, acted, lost, deps);
    }
  }
  // Their rows are given out again by their index, wherever the cursor stands.
  for (const index of [...acted.redriven.keys()].filter((one) => one >= late)) {
    const [item] = await deps.ledger.readStates(now.batch.account, now.batch.id, index, 1);
    if (item === undefined || !mayBeBought(item)) continue;
    unclear += await reviseSlice(now.batch, given, [refOf(now.batch, index, item)], acted, lost, deps);
  }
  for (const index of acted.canceled) await endCanceled(now.batch, index, deps);
  return { unclear, acted };
}

/** What the bucket says of the rows that were given out. */
type Given = {
  /** Those below it were. */
  readonly fed: number;
  /** The row that the feed is to go on with. */
  readonly cursor: number;
  /** As they were noted; read once. */
  readonly windows: () => ReturnType<typeof readWindows>;
};

function mayBeBought({ state }: ItemByte): boolean {
  return state === "waiting" || state === "claimed" || state === "unclear";
}

function refOf({ account, id }: Batch, index: number, item: ItemByte | undefined): AttemptRef {
  return { account, batch: id, index, attempt: item?.attempt ?? 1 };
}

/** What has a receipt is recorded by it; the rest is unclear. */
async function reviseSlice(
  batch: Batch,
  given: Given,
  refs: readonly AttemptRef[],
  acted: Acted,
  lost: LostSpan,
  deps: ReviseDeps,
): Promise<number> {
  const unknown: AttemptRef[] = [];
  for (let at = 0; at < refs.length; at += READS_AT_ONCE) {
    const found = await Promise.all(
      refs.slice(at, at + READS_AT_ONCE).map(async (ref) => ({ ref, receipt: await readReceipt(deps.bucket, ref) })),
    );
    for (const { ref, receipt } of found) {
      if (receipt === null) unknown.push(ref);
      else await recall(ref, receipt.prediction_id, acted.redriven.get(ref.index), deps);
    }
  }
  return doubt(batch, given, unknown, acted, lost, deps);
}

/**
 * Each since the last claim that Redis knows of, or since it was given out, came, or was opened again, if that was
 * later.
 */
async function doubt(
  batch: Batch,
  given: Given,
  refs: readonly AttemptRef[],
  acted: Acted,
  lost: LostSpan,
  deps: ReviseDeps,
): Promise<number> {
  const windows = refs.length === 0 ? [] : await given.windows();
  const sinceMs = new Map<number, number>();
  for (let at = 0; at < refs.length; at += READS_AT_ONCE) {
    await Promise.all(
      refs.slice(at, at + READS_AT_ONCE).map(async (ref) => {
        const givenAtMs = windowAt(windows, ref.index)?.notedAtMs ?? lost.fromMs;
        const openedAtMs = ref.attempt === 1 ? await cameAt(batch, ref.index, deps) : await openedAt(ref, acted, deps);
        sinceMs.set(ref.index, Math.min(Math.max(lost.fromMs, givenAtMs, openedAtMs), lost.toMs));
      }),
    );
  }
  const indexes = refs.map(({ index }) => index);
  let doubted = 0;
  for (const [fromMs, some] of Map.groupBy(indexes, (index) => sinceMs.get(index) ?? lost.fromMs)) {
    doubted += (await deps.ledger.doubtLost(batch, given, some, { fromMs, toMs: lost.toMs })) ?? 0;
  }
  return doubted;
}

/** An attempt was opened after the one before had ended, and after whoever redrove it said so. */
async function openedAt(ref: AttemptRef, acted: Acted, { bucket }: ReviseDeps): Promise<number> {
  const before = await readReceipt(bucket, { ...ref, attempt: ref.attempt - 1 });
  const redriven = acted.redriven.get(ref.index);
  const saidAtMs = redriven?.ended === ref.attempt - 1 ? redriven.atMs : Number.NEGATIVE_INFINITY;
  return Math.max(before === null ? Number.NEGATIVE_INFINITY : Date.parse(before.recorded_at), saidAtMs);
}

/** Before it came, a single can't have been bought; rows of a file came with their batch. */
async function cameAt(batch: Batch, index: number, deps: ReviseDeps): Promise<number> {
  if (batch.kind === "file") return batch.openedAtMs;
  const { created_at: created } = await readItemRow(deps, { account: batch.account, batch: batch.id, index });
  return created === undefined ? batch.openedAtMs : Date.parse(created);
}

async function recall(
  ref: AttemptRef,
  prediction: string | null,
  redriven: { readonly ended: number; readonly atMs: number } | undefined,
  { ledger, queues, clock }: ReviseDeps,
): Promise<void> {
  const id = prediction === null ? null : predictionId(prediction);
  const isRedriven = redriven !== undefined && redriven.ended === ref.attempt;
  const options = { nowMs: clock(), ...(isRedriven && { set: { redriven: String(redriven.atMs) } }) };
  let recalled = await ledger.move(ref, "recall", { ...options, ...(id !== null && { predictionId: id }) });
  // A twin, or an earlier attempt, holds it by now; the receipt stands all the same.
  if (recalled.answer === "taken") recalled = await ledger.move(ref, "recall", options);
  if (recalled.answer !== "lost") await queues.record(ref);
}

/** Up to which row the bucket says that they were given out: windows stand one behind another. */
async function fedByNotes({ batch, cursor, noted }: BatchStanding, { bucket }: ReviseDeps): Promise<number> {
  let fed = Math.max(cursor, noted);
  for (let next = fed; ; next = fed) {
    const window = await readWindow(bucket, batch.id, next);
    if (window === null) return fed;
    fed = window.last + 1;
  }
}

/** Parts that the bucket has beyond what Redis knows. */
async function publishLostParts({ batch, parts }: BatchStanding, deps: ReviseDeps): Promise<void> {
  if (batch.kind === "singles") await completeParts(deps, batch, { part: parts, first: batch.items });
}

/**
 * The first row below `fed` that came too late to be bought on the lost Redis; `fed` where none did. A window of singles is
 * noted before all of its rows are there, and whoever admits goes on while nobody feeds. Rows stand in the order in which
 * they came.
 */
async function lateFrom(
  { batch, cursor }: BatchStanding,
  fed: number,
  lost: LostSpan,
  deps: ReviseDeps,
): Promise<number> {
  if (batch.kind === "file") return fed;
  const isLate = async (index: number) => (await cameAt(batch, index, deps)) > lost.toMs + DEFAULT_SWEEP_POLICY.skewMs;
  let [low, high] = [Math.min(cursor, fed), fed];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (await isLate(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** As people had decided it last. */
async function reviseHolds({ batch, ...held }: BatchStanding, acted: Acted, { ledger }: ReviseDeps): Promise<void> {
  if (held.finishedAtMs !== null) return;
  if (acted.canceledAtMs !== null) {
    if (held.canceledAtMs === null) await ledger.cancelBatch(batch, acted.canceledAtMs);
  } else if (acted.paused !== null) {
    if (held.paused === null) await ledger.pauseBatch(batch, acted.paused);
  } else if (held.paused !== null) {
    await ledger.resumeBatch(batch);
  }
}

/** Attempts that people had opened: each may have been bought since. */
async function redriveLost(
  { batch, canceledAtMs }: BatchStanding,
  acted: Acted,
  lost: LostSpan,
  deps: ReviseDeps,
): Promise<void> {
  const { bucket, ledger, clock } = deps;
  // The cancel that was taken back was over by then: what Redis still takes for open had ended by it.
  if (canceledAtMs !== null && acted.canceledAtMs === null) {
    await walkToTheEnd(batch, deps);
    await endByCancel(batch, acted, deps);
  }
  for (const [index, { ended, atMs }] of acted.redriven) {
    // Redis's last sure word is younger, and knows nothing of it: it never took effect.
    if (atMs < lost.fromMs - DEFAULT_SWEEP_POLICY.skewMs) continue;
    const [item] = await ledger.readStates(batch.account, batch.id, index, 1);
    if (item === undefined || item.attempt !== ended) continue;
    if (!isEnd(item.state)) {
      await ledger.markItem(refOf(batch, index, item), "redriven", String(atMs));
      continue;
    }
    const since = { fromMs: Math.min(Math.max(atMs, lost.fromMs), lost.toMs), toMs: lost.toMs };
    const receipt = await readReceipt(bucket, { batch: batch.id, index, attempt: ended });
    const failure = receipt?.status === "failed" ? { failure: failureGroup(receipt.error) } : {};
    await ledger.redrive(batch, [{ index, ended, lost: since, ...failure }], clock(), { cancelIsOver: true });
  }
}

/** Marks what is open of a canceled batch, but for what was redriven: whoever comes to know of it ends it. */
async function endByCancel(batch: Batch, acted: Acted, { ledger }: ReviseDeps): Promise<void> {
  for (let start = 0; start < batch.items; start += STRETCH) {
    const states = await ledger.readStates(batch.account, batch.id, start, Math.min(STRETCH, batch.items - start));
    for (const [at, item] of states.entries()) {
      if (isEnd(item.state) || item.state === "waiting" || acted.redriven.has(start + at)) continue;
      await ledger.markItem(refOf(batch, start + at, item), "cancel");
    }
  }
}

/** Attempts that were to carry on with a prediction that had been bought. */
export async function repairLost(batch: Batch, acted: Acted, deps: ReviseDeps): Promise<void> {
  for (const [index, { ended, prediction, atMs }] of acted.repaired) {
    const [item] = await deps.ledger.readStates(batch.account, batch.id, index, 1);
    if (item === undefined || item.attempt !== ended || !isEnd(item.state) || item.state === "saved") continue;
    await carryOn(refOf(batch, index, item), prediction, atMs, deps);
  }
}

async function walkToTheEnd({ account, id }: Batch, { ledger }: ReviseDeps): Promise<void> {
  let from: number | null = null;
  for (let over = false; !over; ) {
    const walked: CancelWalk = await ledger.walkCancel(account, id, from, WALKED_AT_ONCE);
    from = walked.next;
    over = walked.over;
  }
}

/**
 * A person canceled it. What surely wasn't bought ends now; the rest is canceled by whoever comes to know what became of it.
 * What may have been bought doesn't wait any more.
 */
export async function endCanceled(batch: Batch, index: number, deps: ReviseDeps): Promise<void> {
  const { ledger } = deps;
  const [item] = await ledger.readStates(batch.account, batch.id, index, 1);
  if (item === undefined || isEnd(item.state)) return;
  const ref = refOf(batch, index, item);
  if (item.state !== "waiting") {
    await ledger.markItem(ref, "cancel");
    return;
  }
  const move: Ledger["move"] = (of, step, options) => ledger.move(of, step, { ...options, unbought: true });
  await withdrawItem(ref, await readItemRow(deps, ref), CANCELED_BY_A_PERSON, { ...deps, ledger: { move } });
}
