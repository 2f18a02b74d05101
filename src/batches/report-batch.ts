/** How a batch stands, in the shape that leaves the process: `status --json`, the library, the watcher. */

import { batchState, type Estimate, estimateEnd, type Progress, progressOf } from "../core/batch.ts";
import type { AccountName, BatchId } from "../core/naming.ts";
import { type AccountHolds, type BatchStanding, isUnclearHalt, type Ledger } from "../ledger/ledger.ts";

export type BatchReport = {
  readonly batch: BatchId;
  readonly name: string;
  readonly state: "open" | "running" | "paused" | "finished" | "canceled";
  readonly items: number;
  readonly waiting: number;
  readonly in_flight: number;
  readonly saved: number;
  readonly failed: number;
  readonly canceled: number;
  readonly unclear: number;
  /** Predictions that were bought for an item which had one; each is noted beside the item's receipt. */
  readonly duplicates: number;
  /** Predictions that succeeded, and so are paid for, and whose output isn't in the bucket, or not all of it. */
  readonly not_saved: number;
  readonly account: AccountName;
  /** Why nothing more of it is bought, or null; `paused_by`: who has to let it go on, or the account's unclear items. */
  readonly paused: string | null;
  readonly paused_by: "batch" | "account" | "unclear" | null;
  /**
   * Why its account can't be opened on this Redis, or null: nothing of it is bought until it can, and that is tried by
   * itself.
   */
  readonly unopened: string | null;
  /** Why less of it is bought than could be, though nothing is paused: saving is behind, or the bucket is down; or null. */
  readonly held: string | null;
  readonly canceled_at: string | null;
  readonly opened_at: string;
  readonly finished_at: string | null;
  readonly metrics: { readonly predict_time: number; readonly output_files: number; readonly output_bytes: number };
};

/** Null: Redis knows no such batch. */
export async function reportBatch(
  ledger: Pick<Ledger, "accountOf" | "standing" | "accountHolds">,
  batch: BatchId,
): Promise<BatchReport | null> {
  const account = await ledger.accountOf(batch);
  if (account === null) return null;
  const [standing, holds] = await Promise.all([ledger.standing(account, batch), ledger.accountHolds(account)]);
  return standing === null ? null : reportOf(standing, holds);
}

export function reportOf(
  { batch, counts, sums, duplicates, finishedAtMs, paused: batchPaused, canceledAtMs }: BatchStanding,
  holds: AccountHolds,
): BatchReport {
  const progress = progressOf(counts);
  // A canceled batch buys nothing more: no pause holds it.
  const canceled = canceledAtMs !== null;
  const paused = canceled ? null : (batchPaused ?? holds.paused);
  return {
    batch: batch.id,
    name: batch.name,
    state: batchState({ progress, paused, canceled, finished: finishedAtMs !== null }),
    items: progress.items,
    waiting: progress.waiting,
    in_flight: progress.inFlight,
    saved: progress.saved,
    failed: progress.failed,
    canceled: progress.canceled,
    unclear: progress.unclear,
    duplicates,
    not_saved: Number(sums.not_saved),
    account: batch.account,
    paused,
    paused_by: paused === null ? null : batchPaused !== null ? "batch" : isUnclearHalt(paused) ? "unclear" : "account",
    unopened: finishedAtMs === null ? holds.unopened : null,
    held: paused === null && !canceled && progress.waiting > 0 ? holds.held : null,
    canceled_at: canceledAtMs === null ? null : new Date(canceledAtMs).toISOString(),
    opened_at: new Date(batch.openedAtMs).toISOString(),
    finished_at: finishedAtMs === null ? null : new Date(finishedAtMs).toISOString(),
    metrics: {
      predict_time: Number(sums.predict_time_ms) / 1_000,
      output_files: Number(sums.output_files),
      output_bytes: Number(sums.output_bytes),
    },
  };
}

export function progressIn(report: BatchReport): Progress {
  const { items, waiting, in_flight: inFlight, saved, failed, canceled, unclear } = report;
  return { items, waiting, inFlight, saved, failed, canceled, unclear };
}

export function estimateFor(report: BatchReport, endedPerSecond: number, createsPerMinute: number): Estimate {
  const { held } = report;
  const paused = pauseOf(report) ?? report.unopened;
  return estimateEnd({ progress: progressIn(report), endedPerSecond, createsPerMinute, paused, held });
}

/** In a person's words, or null. */
export function pauseOf({ paused, paused_by, account }: BatchReport): string | null {
  if (paused === null || paused_by === "batch") return paused;
  return paused_by === "unclear" ? `account ${account} is held: ${paused}` : `account ${account} is paused: ${paused}`;
}
