/** How a batch stands, in the shape that leaves the process: `status --json`, the library, the watcher. */

import { batchState, type Estimate, estimateEnd, type Progress, progressOf } from "../core/batch.ts";
import type { AccountName, BatchId } from "../core/naming.ts";
import type { BatchStanding, Ledger } from "../ledger/ledger.ts";

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
  readonly account: AccountName;
  /** Why the account is paused, or null. */
  readonly paused: string | null;
  readonly opened_at: string;
  readonly finished_at: string | null;
  readonly metrics: { readonly predict_time: number; readonly output_files: number; readonly output_bytes: number };
};

/** Null: Redis knows no such batch. */
export async function reportBatch(
  ledger: Pick<Ledger, "accountOf" | "standing" | "pausedReason">,
  batch: BatchId,
): Promise<BatchReport | null> {
  const account = await ledger.accountOf(batch);
  if (account === null) return null;
  const [standing, paused] = await Promise.all([ledger.standing(account, batch), ledger.pausedReason(account)]);
  return standing === null ? null : reportOf(standing, paused);
}

function reportOf({ batch, counts, sums, finishedAtMs }: BatchStanding, paused: string | null): BatchReport {
  const progress = progressOf(counts);
  return {
    batch: batch.id,
    name: batch.name,
    state: batchState({ progress, accountPaused: paused, finished: finishedAtMs !== null }),
    items: progress.items,
    waiting: progress.waiting,
    in_flight: progress.inFlight,
    saved: progress.saved,
    failed: progress.failed,
    canceled: progress.canceled,
    unclear: progress.unclear,
    account: batch.account,
    paused,
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
  return estimateEnd({ progress: progressIn(report), endedPerSecond, createsPerMinute, accountPaused: report.paused });
}
