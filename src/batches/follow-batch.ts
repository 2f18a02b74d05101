/** Finding a batch by its id, and watching it until nothing more happens by itself. */

import { setTimeout as sleep } from "node:timers/promises";
import { type BatchKind, isSettled } from "../core/batch.ts";
import { type BatchId, parseBatchId } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import type { BatchStanding, Ledger } from "../ledger/ledger.ts";
import { type BatchReport, type HoldsReader, progressIn, reportBatch } from "./report-batch.ts";

/** Nothing of that id is known here. */
export class UnknownBatch extends Error {
  override readonly name = "UnknownBatch";

  constructor(text: string) {
    super(
      parseBatchId(text) === null
        ? `${JSON.stringify(text.slice(0, 80))} is no batch's id (20 characters)`
        : `there is no batch ${text} here`,
    );
  }
}

/** Throws UnknownBatch. */
export async function findBatch(ledger: Pick<Ledger, "accountOf" | "standing">, text: string): Promise<BatchStanding> {
  const id = parseBatchId(text);
  const account = id === null ? null : await ledger.accountOf(id);
  const standing = id === null || account === null ? null : await ledger.standing(account, id);
  if (standing === null) throw new UnknownBatch(text);
  return standing;
}

/** Throws UnknownBatch. */
export async function requireReport(
  ledger: Pick<Ledger, "accountOf" | "standing"> & HoldsReader,
  text: string,
): Promise<BatchReport> {
  const id = parseBatchId(text);
  const report = id === null ? null : await reportBatch(ledger, id);
  if (report === null) throw new UnknownBatch(text);
  return report;
}

/**
 * The batch as it stands now, then again after each change. Ends when nothing more happens without a person: all
 * items have ended and the results are written, or what is left waits for a paused account, or is unclear and nobody but a
 * person can tell any more. Aborting
 * `signal` ends it early, and touches no batch. One small question to Redis a second, however large the batch.
 */
export async function* followBatch(
  ledger: Pick<Ledger, "accountOf" | "standing" | "resolvesByItself"> & HoldsReader,
  batch: BatchId,
  { signal, pollMs = SECOND }: { readonly signal?: AbortSignal; readonly pollMs?: number } = {},
): AsyncGenerator<BatchReport, void, undefined> {
  const { kind } = (await findBatch(ledger, batch)).batch;
  let shown = "";
  while (signal?.aborted !== true) {
    const report = await requireReport(ledger, batch);
    const text = JSON.stringify(report);
    if (text !== shown) yield report;
    shown = text;
    const rests = isSettled(progressIn(report), report.paused) && !awaitsResults(report, kind);
    const resolves = rests && report.unclear > 0 && (await ledger.resolvesByItself(report.account, Date.now()));
    if (rests && !resolves) return;
    await sleep(pollMs, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }
}

/** Whether all items have ended and their results are still to be written. Singles get theirs when their day is over. */
export function awaitsResults(report: BatchReport, kind: BatchKind): boolean {
  const { items, saved, failed, canceled, finished_at: finishedAt } = report;
  return kind === "file" && finishedAt === null && saved + failed + canceled === items;
}
