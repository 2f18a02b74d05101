/**
 * Where the items of a batch stand, when only the bucket knows: what a batch is made of again that Redis has lost.
 *
 * A receipt says how an attempt ended. What has none and may have been bought is unclear: its row was given out, as the
 * window's note says, or an attempt was opened, by a person or after a failure of the provider's own. Everything else
 * waits. Nothing here says that something wasn't bought: only evidence does that.
 */

import { MAX_GROUPS, OTHER_ERRORS } from "./failing.ts";
import { type ItemByte, type ItemEnd, type ItemState, MAX_ATTEMPT, writeItemByte } from "./item.ts";

/** An attempt's receipt, as far as the batch's totals need it. */
export type RecordedAttempt = {
  readonly attempt: number;
  readonly end: ItemEnd;
  readonly recordedAtMs: number;
  /** The group of failures it belongs to; null unless it failed. */
  readonly failure: string | null;
  /** Whether it failed by the provider's own doing. */
  readonly byProvider: boolean;
  readonly billedMs: bigint;
  readonly files: number;
  readonly fileBytes: bigint;
  /** What it adds to the predictions that are paid for and not saved. */
  readonly notSaved: bigint;
};

/** An item that has left something in the bucket. */
export type RecordedItem = {
  readonly index: number;
  /** Oldest first; one that was canceled with its batch, unbought, has no receipt. */
  readonly attempts: readonly RecordedAttempt[];
};

export type RecallFacts = {
  readonly items: number;
  readonly retryFailed: number;
  /** Rows below it were given out, so far as the bucket knows. */
  readonly fed: number;
  /** When a row can have been bought first (ms); null: its turn came later than Redis was lost. */
  readonly boughtFromMs: (index: number) => number | null;
  /** When Redis was lost, at the latest. */
  readonly lostByMs: number;
  /** Attempts that people ended and opened again: by index, the last one that was ended, and when. */
  readonly redriven: ReadonlyMap<number, { readonly ended: number; readonly atMs: number }>;
  /** Rows that are void, since their input is another item. */
  readonly isVoid: (index: number) => boolean;
  /** Items that a person canceled. */
  readonly canceled: ReadonlySet<number>;
  /** When the batch was canceled as a whole; null: it wasn't. */
  readonly canceledAtMs: number | null;
  /** When it had been canceled as a whole, before some items were redriven: what wasn't given out then ended unbought. */
  readonly walkedAtMs: number | null;
  /** When all items had ended: what had no receipt then was canceled unbought. Null: they never had. */
  readonly endedByMs: number | null;
};

export type RecalledItem = ItemByte & {
  /** Of an unclear one: between which moments it may have been bought. */
  readonly span: { readonly fromMs: number; readonly toMs: number } | null;
};

/** Where an item stands; `recorded`: oldest first. */
export function recallItem(index: number, recorded: readonly RecordedAttempt[], facts: RecallFacts): RecalledItem {
  const last = recorded.at(-1);
  const redriven = facts.redriven.get(index);
  if (redriven !== undefined && redriven.ended >= (last?.attempt ?? 1)) {
    return unclear(redriven.ended + 1, redriven.atMs, facts);
  }
  if (last !== undefined) {
    return isRetried(index, last, facts)
      ? unclear(last.attempt + 1, last.recordedAtMs, facts)
      : standing(last.attempt, last.end);
  }
  if (facts.endedByMs !== null || facts.isVoid(index)) return standing(1, "canceled");
  const fromMs = index < facts.fed ? facts.boughtFromMs(index) : null;
  if (fromMs !== null) return unclear(1, fromMs, facts);
  return standing(1, facts.walkedAtMs === null ? "waiting" : "canceled");
}

/** As the script that ends an attempt decides it (move.lua). */
function isRetried(
  index: number,
  { end, byProvider, attempt, recordedAtMs }: RecordedAttempt,
  facts: RecallFacts,
): boolean {
  const hadEnded = facts.endedByMs !== null && recordedAtMs <= facts.endedByMs;
  const canceledAtMs = facts.canceledAtMs ?? (facts.redriven.has(index) ? null : facts.walkedAtMs);
  const isOver = hadEnded || (canceledAtMs !== null && recordedAtMs >= canceledAtMs);
  return end === "failed" && byProvider && attempt <= facts.retryFailed && attempt < MAX_ATTEMPT && !isOver;
}

function standing(attempt: number, state: ItemState): RecalledItem {
  return { attempt, state, span: null };
}

function unclear(attempt: number, fromMs: number, { lostByMs }: RecallFacts): RecalledItem {
  return { attempt, state: "unclear", span: { fromMs: Math.min(fromMs, lostByMs), toMs: lostByMs } };
}

/** What the batch's hash and lists hold again. */
export type RecalledBatch = {
  readonly bytes: Uint8Array;
  readonly counts: ReadonlyMap<ItemState, number>;
  readonly sums: Readonly<Record<"predict_time_ms" | "output_bytes" | "output_files" | "not_saved", bigint>>;
  readonly failures: ReadonlyMap<string, { readonly count: number; readonly example: number }>;
  /** The items that were saved last and have files, newest first. */
  readonly latest: readonly number[];
  readonly unclear: readonly {
    readonly index: number;
    readonly attempt: number;
    readonly fromMs: number;
    readonly toMs: number;
    readonly cancel: boolean;
  }[];
};

/** A batch shows what was saved last of so many items. */
export const MAX_LATEST = 24;

export type Recall = {
  /** In the order of their indexes. */
  take(item: RecordedItem): void;
  end(): RecalledBatch;
};

export function openRecall(facts: RecallFacts): Recall {
  const bytes = new Uint8Array(facts.items);
  const counts = new Map<ItemState, number>();
  const sums = { predict_time_ms: 0n, output_bytes: 0n, output_files: 0n, not_saved: 0n };
  const failures = new Map<string, { count: number; example: number }>();
  const unclearItems: RecalledBatch["unclear"][number][] = [];
  let saved: { index: number; atMs: number }[] = [];
  let next = 0;

  function place(index: number, attempts: readonly RecordedAttempt[]): RecalledItem {
    const item = recallItem(index, attempts, facts);
    bytes[index] = writeItemByte(item);
    counts.set(item.state, (counts.get(item.state) ?? 0) + 1);
    if (item.span !== null) {
      unclearItems.push({ index, attempt: item.attempt, ...item.span, cancel: isToEnd(index) });
    }
    return item;
  }

  /** By a person's word, as soon as somebody knows what became of it. */
  function isToEnd(index: number): boolean {
    return facts.canceled.has(index) || (facts.walkedAtMs !== null && !facts.redriven.has(index));
  }

  function addFailure(failure: string, index: number): void {
    const isFull = failures.size >= MAX_GROUPS - 1 && !failures.has(failure);
    const group = isFull ? OTHER_ERRORS : failure;
    const { count = 0, example = index } = failures.get(group) ?? {};
    failures.set(group, { count: count + 1, example });
  }

  return {
    take({ index, attempts }) {
      if (index >= facts.items) return;
      for (; next < index; next++) place(next, []);
      next = index + 1;
      const item = place(index, attempts);
      for (const { billedMs, fileBytes, files, notSaved } of attempts) {
        sums.predict_time_ms += billedMs;
        sums.output_bytes += fileBytes;
        sums.output_files += BigInt(files);
        sums.not_saved += notSaved;
      }
      const last = attempts.at(-1);
      if (last === undefined || item.attempt !== last.attempt) return;
      if (item.state === "failed" && last.failure !== null) addFailure(last.failure, index);
      if (item.state === "saved" && last.files > 0) saved = newestFirst([...saved, { index, atMs: last.recordedAtMs }]);
    },
    end() {
      for (; next < facts.items; next++) place(next, []);
      return { bytes, counts, sums, failures, latest: saved.map(({ index }) => index), unclear: unclearItems };
    },
  };
}

function newestFirst<T extends { readonly atMs: number }>(saved: readonly T[]): T[] {
  return saved.toSorted((a, b) => b.atMs - a.atMs).slice(0, MAX_LATEST);
}
