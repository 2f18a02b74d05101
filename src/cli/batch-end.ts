/** What a person is told of a batch that has come to rest: the totals, where everything lies, what to do about the rest. */

import path from "node:path";
import type { BatchReport } from "../batches/report-batch.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { OBJECT_KEYS } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import { harmless } from "./columns.ts";
import { paintFor } from "./live-lines.ts";
import { OUTLAST, say } from "./output.ts";
import { bytes, duration, number, totalsOf } from "./progress-bar.ts";

export function sayEnd(bucket: Pick<Bucket, "urlOf">, report: BatchReport): void {
  say(totalsOf(report, paintFor(process.stderr)));
  for (const line of endLines(bucket, report)) say(line);
}

function endLines(bucket: Pick<Bucket, "urlOf">, report: BatchReport): readonly string[] {
  const { batch, account, metrics, paused, finished_at: finishedAt } = report;
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
    lines.push(`${number(report.unclear)} unclear: nobody knows whether the provider took them; none is sent again`);
  }
  if (paused !== null && report.waiting > 0) {
    lines.push(`account ${account} is paused: ${harmless(paused)}`);
    lines.push(`when that is mended: ${OUTLAST} resume --account ${account}`);
  }
  return lines;
}
