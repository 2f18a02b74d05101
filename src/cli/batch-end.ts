/** What a person is told of a batch that has come to rest: the totals, where everything lies, what to do about the rest. */

import path from "node:path";
import { type BatchReport, pauseOf, reportBatch } from "../batches/report-batch.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { Batch } from "../core/batch.ts";
import { bytes, duration, number } from "../core/figures.ts";
import { OBJECT_KEYS } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import type { CommandServices } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { paintFor } from "./live-lines.ts";
import { OUTLAST, say } from "./output.ts";
import { totalsOf } from "./progress-bar.ts";

export function sayEnd(bucket: Pick<Bucket, "urlOf">, report: BatchReport): void {
  say(totalsOf(report, paintFor(process.stderr)));
  for (const line of endLines(bucket, report)) say(line);
}

function endLines(bucket: Pick<Bucket, "urlOf">, report: BatchReport): readonly string[] {
  const { batch, metrics, finished_at: finishedAt } = report;
  const results = OBJECT_KEYS.results(batch);
  const lines = [];
  if (metrics.output_files > 0) {
    const files = `${number(metrics.output_files)} file${metrics.output_files === 1 ? "" : "s"}`;
    lines.push(`${files}, ${bytes(metrics.output_bytes)}, in ${bucket.urlOf(`${path.posix.dirname(results)}/items`)}`);
  }
  if (finishedAt !== null) {
    lines.push(`a line for each item in ${bucket.urlOf(results)}`);
    const took = duration(Date.parse(finishedAt) - Date.parse(report.opened_at));
    lines.push(`took ${took}; ${duration(metrics.predict_time * SECOND)} of predictions`);
  }
  if (report.failed > 0) lines.push(`why items failed: ${OUTLAST} results ${batch}`);
  if (report.unclear > 0) {
    lines.push(
      `${number(report.unclear)} unclear: nobody knows whether the provider took them, and none is sent again on a guess`,
      `what is known of them: ${OUTLAST} audit ${batch}; to decide: ${OUTLAST} resolve ${batch} --resend or --fail`,
    );
  }
  if (report.duplicates > 0) {
    lines.push(`${number(report.duplicates)} predictions bought twice; to see them: ${OUTLAST} audit ${batch}`);
  }
  if (report.not_saved > 0) lines.push(`${notSavedWords(report)}; to see them: ${OUTLAST} audit ${batch}`);
  const pause = pauseOf(report);
  if (pause !== null && report.waiting > 0) lines.push(harmless(pause), resumeOf(report));
  return lines;
}

export function notSavedWords({ not_saved: count }: Pick<BatchReport, "not_saved">): string {
  return `${number(count)} succeeded, ${count === 1 ? "is" : "are"} paid for, and couldn't be saved whole`;
}

/** Why nothing more of the batch is bought at the moment, if so. */
export async function sayHeld({ ledger }: Pick<CommandServices, "ledger">, { id }: Pick<Batch, "id">): Promise<void> {
  const report = await reportBatch(ledger, id);
  const pause = report === null ? null : pauseOf(report);
  if (report !== null && pause !== null) say(`nothing more is bought yet: ${harmless(pause)}; ${resumeOf(report)}`);
}

/** What to do, or to type once what caused a pause is mended. */
export function resumeOf({ batch, account, paused_by }: BatchReport): string {
  if (paused_by === "unclear")
    return `most resolve by themselves; to look, and to decide: ${OUTLAST} audit, ${OUTLAST} resolve`;
  return `to let it go on: ${OUTLAST} resume ${paused_by === "account" ? `--account ${account}` : batch}`;
}
