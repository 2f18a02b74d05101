/**
 * `outlast results`: what became of a batch's items, in input order, also while it runs. `--to` copies the saved
 * files out of the bucket, under names a person can find them by.
 */

import { Command } from "commander";
import { findBatch, requireReport } from "../batches/follow-batch.ts";
import { readResults } from "../batches/read-results.ts";
import { progressIn } from "../batches/report-batch.ts";
import { exitCodeOf } from "../core/batch.ts";
import { number } from "../core/figures.ts";
import type { ResultLine } from "../core/receipt.ts";
import { openServices } from "../wiring.ts";
import { cut, padEnd } from "./columns.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";
import { openTakeOut } from "./take-out.ts";

const HELP = `
Files are named after the row's own id, else its index, as in cat-7.png and cat-7-1.png.

Examples:
  ${OUTLAST} results 0k4tz2m8x1c7v9b3n5q6 --to pictures
  ${OUTLAST} results 0k4tz2m8x1c7v9b3n5q6 --json | jq -r 'select(.status == "failed") | .error'

The exit code: 0, or 2 where items failed or were canceled, 3 where a pause holds the batch, 4 where some are unclear.`;

export function resultsCommand(): Command {
  return new Command("results")
    .description("what became of a batch's items; copies their files out of the bucket")
    .argument("<batch>", "its id, as submit printed it")
    .option("--to <folder>", "copy the saved files there; what has the name of one and differs is replaced")
    .option("--json", "a line of JSON for each item, as in results.jsonl")
    .addHelpText("after", HELP)
    .action(results);
}

async function results(text: string, options: { readonly to?: string; readonly json?: boolean }): Promise<void> {
  await using services = await openServices(await commandConfig(process.env), "command");
  const { bucket, ledger } = services;
  const { batch } = await findBatch(ledger, text);
  const takeOut = options.to === undefined ? null : await openTakeOut(bucket, options.to);

  const widths = { index: Math.max(String(batch.items - 1).length, 5), screen: process.stdout.columns ?? null };
  if (options.json !== true && takeOut === null) await print(row(widths, "index", "id", "status", "output or error"));
  for await (const line of readResults({ bucket, ledger }, batch)) {
    if (options.json === true) await printJson(line);
    else if (takeOut === null) await print(row(widths, String(line.index), line.id ?? "", line.status, gist(line)));
    await takeOut?.add(line);
  }

  const report = await requireReport(ledger, text);
  process.exitCode = exitCodeOf(progressIn(report), report.paused);
  if (takeOut === null) return;
  const { copied, there, failures } = await takeOut.end();
  for (const failure of failures) say(failure);
  const known = there === 0 ? "" : `, ${number(there)} were there already`;
  say(`${number(copied)} file${copied === 1 ? "" : "s"} copied to ${options.to}${known}`);
  const open = report.waiting + report.in_flight;
  if (open > 0)
    say(`${number(open)} of ${number(report.items)} items haven't ended yet: run it again later for the rest`);
  if (failures.length > 0) process.exitCode = 1;
}

const ID_COLUMNS = 24;

function row(
  { index: indexWidth, screen }: { readonly index: number; readonly screen: number | null },
  index: string,
  id: string,
  status: string,
  rest: string,
): string {
  const start = `${index.padStart(indexWidth)}  ${padEnd(cut(id, ID_COLUMNS), ID_COLUMNS)}  ${status.padEnd(9)}  `;
  return start + cut(rest, screen === null ? 1_000 : Math.max(screen - start.length, 10));
}

/** The first thing somebody would want to know of it. */
function gist({ error, outputs, output }: ResultLine): string {
  if (error !== null) return error;
  const [first, ...more] = outputs;
  if (first !== undefined) return more.length === 0 ? first.key : `${first.key} and ${more.length} more`;
  return output === null ? "" : JSON.stringify(output).slice(0, 1_000);
}
