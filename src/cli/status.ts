/** `outlast status`: the batches, or one batch, or one item of it; or the accounts. */

import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { findBatch, requireReport, UnknownBatch } from "../batches/follow-batch.ts";
import { readItemResult } from "../batches/read-results.ts";
import { type BatchReport, pauseOf, progressIn, reportBatch } from "../batches/report-batch.ts";
import { exitCodeOf } from "../core/batch.ts";
import { bytes, duration, number } from "../core/figures.ts";
import { OBJECT_KEYS, parseItemId } from "../core/naming.ts";
import type { ResultLine } from "../core/receipt.ts";
import { SECOND } from "../core/time.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { showAccounts } from "./account-lines.ts";
import { notSavedWords, resumeOf } from "./batch-end.ts";
import { cut, fields, harmless, shortTime, table } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";
import { PLAIN, totalsOf } from "./progress-bar.ts";
import { commandConfig } from "./settings.ts";

const HELP = `
Examples:
  ${OUTLAST} status
  ${OUTLAST} status 0k4tz2m8x1c7v9b3n5q6 --json
  ${OUTLAST} status --accounts

The exit code for a batch: 0, or 2 where items failed or were canceled, 3 where a pause holds it, 4 where some are unclear.`;

type StatusOptions = { readonly limit: number; readonly accounts?: boolean; readonly json?: boolean };

export function statusCommand(): Command {
  return new Command("status")
    .description("how the batches stand, or one batch, or one item")
    .argument("[id]", "a batch's id (20 characters) or an item's (26)")
    .option("--accounts", "the accounts instead: rates, refusals, what runs, what came of requests")
    .option("--limit <n>", "list so many batches, newest first", wholeNumber, 20)
    .option("--json", "a line of JSON for each")
    .addHelpText("after", HELP)
    .action(async (id: string | undefined, options: StatusOptions) => {
      if (id !== undefined && options.accounts === true) {
        throw new CommandError("say a batch or an item, or --accounts, not both");
      }
      await using services = await openServices(await commandConfig(process.env), "command");
      const json = options.json === true;
      if (options.accounts === true) await showAccounts(services, json);
      else if (id === undefined) await listBatches(services, options.limit, json);
      else if (parseItemId(id) === null) await showBatch(services, id, json);
      else await showItem(services, id, json);
    });
}

async function listBatches({ ledger }: CommandServices, limit: number, json: boolean): Promise<void> {
  const reports: BatchReport[] = [];
  for (const id of await ledger.listBatches(limit)) {
    const report = await reportBatch(ledger, id);
    if (report !== null) reports.push(report);
  }
  if (json) {
    for (const report of reports) await printJson(report);
    return;
  }
  if (reports.length === 0) return say(`no batches yet; to submit one: ${OUTLAST} submit --help`);
  const header = [
    "batch",
    "name",
    "state",
    "items",
    "saved",
    "failed",
    "not saved",
    "canceled",
    "unclear",
    "in flight",
    "waiting",
  ];
  const rows = reports.map((report) => [
    report.batch,
    report.name,
    report.state,
    report.items,
    report.saved,
    report.failed,
    report.not_saved,
    report.canceled,
    report.unclear,
    report.in_flight,
    report.waiting,
    shortTime(report.opened_at),
  ]);
  for (const line of table([...header, "opened (UTC)"], rows)) await print(line);
}

async function showBatch({ ledger, bucket }: CommandServices, id: string, json: boolean): Promise<void> {
  const report = await requireReport(ledger, id);
  process.exitCode = exitCodeOf(progressIn(report), report.paused);
  if (json) return printJson(report);

  const { metrics } = report;
  const pause = pauseOf(report);
  const files = `${number(metrics.output_files)}, ${bytes(metrics.output_bytes)}`;
  const lines = fields({
    batch: report.batch,
    name: harmless(report.name),
    state: report.state,
    account: report.account,
    paused: pause === null ? null : `${harmless(pause)}; ${resumeOf(report)}`,
    "not open": report.unopened === null ? null : harmless(report.unopened),
    held: report.held === null ? null : `${harmless(report.held)}; it goes on by itself`,
    canceled: report.canceled_at,
    items: totalsOf(report, PLAIN).replace(/ items?/, ""),
    duplicates:
      report.duplicates === 0
        ? null
        : `${number(report.duplicates)} bought twice; to see them: ${OUTLAST} audit ${report.batch}`,
    "not saved":
      report.not_saved === 0
        ? null
        : `${notSavedWords(report)}; to see them: ${OUTLAST} audit ${report.batch}; to buy them again: ${OUTLAST} redrive`,
    files: metrics.output_files === 0 ? null : files,
    "ran for": metrics.predict_time === 0 ? null : `${duration(metrics.predict_time * SECOND)} of predictions`,
    opened: report.opened_at,
    finished: report.finished_at,
    "kept in": bucket.urlOf(path.posix.dirname(OBJECT_KEYS.results(report.batch))),
  });
  for (const line of lines) await print(line);
}

async function showItem({ ledger, bucket }: CommandServices, id: string, json: boolean): Promise<void> {
  const place = parseItemId(id);
  if (place === null) throw new UnknownBatch(id);
  const { batch } = await findBatch(ledger, place.batch);
  if (place.index >= batch.items) throw new UnknownBatch(id);
  const line = await readItemResult({ bucket, ledger }, batch, place.index);
  process.exitCode = ITEM_EXIT_CODES[line.status];
  if (json) return printJson(line);

  const files = line.outputs.map(({ key, bytes: size }) => `${bucket.urlOf(key)} (${bytes(size)})`);
  const lines = fields({
    item: line.item,
    id: line.id === null ? null : harmless(line.id),
    status: line.status,
    batch: `${batch.id} (${harmless(batch.name)}), index ${line.index}`,
    prediction: line.prediction_id,
    error: line.error === null ? null : harmless(line.error),
    output: files.length > 0 || line.output === null ? null : cut(JSON.stringify(line.output), 500),
    ...Object.fromEntries(files.map((file, n) => [files.length === 1 ? "file" : `file ${n}`, file])),
  });
  for (const text of lines) await print(text);
}

const ITEM_EXIT_CODES = {
  saved: 0,
  waiting: 0,
  in_flight: 0,
  failed: 2,
  canceled: 2,
  unclear: 4,
} as const satisfies Record<ResultLine["status"], number>;

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError("It is a whole number from 1 to 9999.");
  return Number(text);
}
