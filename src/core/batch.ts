/** What a batch is, how far it is, and when it will be done. */

import { ITEM_STATES, type ItemState, isEnd } from "./item.ts";
import type { AccountName, BatchId } from "./naming.ts";
import { SECOND } from "./time.ts";

/** `file`: rows that came together, closed from the start. `singles`: one per tenant, account and UTC day; it grows. */
export type BatchKind = "file" | "singles";

export type Batch = {
  readonly id: BatchId;
  readonly kind: BatchKind;
  readonly name: string;
  readonly tenant: string;
  readonly account: AccountName;
  readonly items: number;
  readonly openedAtMs: number;
  /** So many more attempts are bought of an item whose attempts the provider itself failed. */
  readonly retryFailed: number;
};

/** Items by state; they add up to the batch's items. */
export type StateCounts = Readonly<Record<ItemState, number>>;

/** What its attempts came to. */
export type BatchSums = {
  readonly predict_time_ms: bigint;
  readonly output_bytes: bigint;
  readonly output_files: bigint;
  /** Predictions that succeeded, and so are paid for, and whose output isn't in the bucket, or not all of it. */
  readonly not_saved: bigint;
};

/** The states as people see them. */
export type Progress = {
  readonly items: number;
  readonly waiting: number;
  readonly inFlight: number;
  readonly saved: number;
  readonly failed: number;
  readonly canceled: number;
  readonly unclear: number;
};

/** A batch in which there is nothing has nothing that hasn't ended. */
export function haveAllEnded(counts: StateCounts): boolean {
  return ITEM_STATES.every((state) => isEnd(state) || counts[state] === 0);
}

const SHOWN_AS = {
  waiting: "waiting",
  claimed: "inFlight",
  running: "inFlight",
  copying: "inFlight",
  recording: "inFlight",
  saved: "saved",
  failed: "failed",
  canceled: "canceled",
  unclear: "unclear",
} as const satisfies Record<ItemState, Exclude<keyof Progress, "items">>;

export function shownAs(state: ItemState): Exclude<keyof Progress, "items"> {
  return SHOWN_AS[state];
}

export function progressOf(counts: StateCounts): Progress {
  const progress = { items: 0, waiting: 0, inFlight: 0, saved: 0, failed: 0, canceled: 0, unclear: 0 };
  for (const state of ITEM_STATES) {
    progress.items += counts[state];
    progress[SHOWN_AS[state]] += counts[state];
  }
  return progress;
}

export type BatchState = "open" | "running" | "paused" | "finished" | "canceled";

/** `paused`: why nothing more is bought, whether of the batch or of its account. `canceled`: by a person, as a whole. */
export function batchState(batch: {
  readonly progress: Progress;
  readonly paused: string | null;
  readonly canceled: boolean;
  readonly finished: boolean;
}): BatchState {
  const { progress } = batch;
  if (batch.canceled) return "canceled";
  if (batch.finished) return "finished";
  if (batch.paused !== null) return "paused";
  return progress.waiting === progress.items ? "open" : "running";
}

/** Whether anything can still happen without a person: nothing waits that could be fed, and nothing is in flight. */
export function isSettled(progress: Progress, paused: string | null): boolean {
  return progress.inFlight === 0 && (progress.waiting === 0 || paused !== null);
}

/** The exit code of a command that waited: the highest that applies. */
export function exitCodeOf(progress: Progress, paused: string | null): 0 | 2 | 3 | 4 {
  if (progress.unclear > 0) return 4;
  if (paused !== null && progress.waiting > 0) return 3;
  return progress.failed + progress.canceled > 0 ? 2 : 0;
}

export type Estimate = {
  /** Until the last item ends; null where nobody can say. */
  readonly etaMs: number | null;
  /** In a person's words: what the end is waiting for. */
  readonly reason: string;
};

/**
 * When the batch will be done, and why then. `perSecond` is the rate at which items ended lately; the account's
 * limit bounds it from above, so that a fast start promises nothing.
 */
export function estimateEnd(facts: {
  readonly progress: Progress;
  readonly endedPerSecond: number;
  readonly createsPerMinute: number;
  /** Why nothing more is bought, in a person's words. */
  readonly paused: string | null;
  /** Why less is bought than could be, in a person's words. */
  readonly held: string | null;
}): Estimate {
  const { progress, endedPerSecond, createsPerMinute, paused, held } = facts;
  const left = progress.waiting + progress.inFlight;
  if (paused !== null) return { etaMs: null, reason: paused };
  if (left === 0) {
    const held = progress.unclear > 0 ? `${count(progress.unclear, "item")} unclear` : "all items have ended";
    return { etaMs: 0, reason: held };
  }
  if (progress.waiting === 0) {
    const etaMs = endedPerSecond > 0 ? (left / endedPerSecond) * SECOND : null;
    return { etaMs, reason: `${count(left, "prediction")} still running or being copied` };
  }
  const limitPerSecond = createsPerMinute / 60;
  const byLimitMs = (progress.waiting / limitPerSecond) * SECOND;
  const bySpeedMs = endedPerSecond > 0 ? (left / endedPerSecond) * SECOND : byLimitMs;
  if (held !== null) return { etaMs: endedPerSecond > 0 ? Math.max(bySpeedMs, byLimitMs) : null, reason: held };
  return bySpeedMs > byLimitMs * 1.5
    ? { etaMs: bySpeedMs, reason: `items end at ${endedPerSecond.toFixed(1)} a second` }
    : { etaMs: Math.max(bySpeedMs, byLimitMs), reason: `the limit of ${createsPerMinute} creates a minute` };
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
