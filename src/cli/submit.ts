/**
 * `outlast submit`: a file of inputs becomes a batch. Every row is validated first; if one is bad, all bad ones are
 * named by their lines and nothing is submitted. Submitting the same file again is the same batch, unless `--again`.
 */

import { open } from "node:fs/promises";
import path from "node:path";
import type { Readable } from "node:stream";
import { Command, InvalidArgumentError } from "commander";
import { findBatch } from "../batches/follow-batch.ts";
import { type AdmittingAccount, chooseAccount } from "../batches/single-input.ts";
import { BadRows, checkRows, type RowReading, submitBatch } from "../batches/submit-batch.ts";
import { number } from "../core/figures.ts";
import { MAX_ATTEMPT } from "../core/item.ts";
import { type AccountName, DEFAULT_TENANT } from "../core/naming.ts";
import type { Target } from "../core/prediction.ts";
import { readTargetChoice } from "../core/rows.ts";
import { type ReadRowsOptions, readRows } from "../rows/read-rows.ts";
import { formatOf, parseMapping } from "../rows/row-arguments.ts";
import { RowsError } from "../rows/rows-error.ts";
import type { Mapping } from "../rows/table-values.ts";
import { openServices, TARGETS } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";
import { watchBatch } from "./watch.ts";

type SubmitOptions = {
  readonly map?: readonly Mapping[];
  readonly id?: string;
  readonly format?: string;
  readonly model?: string;
  readonly version?: string;
  readonly deployment?: string;
  readonly account?: string;
  readonly name?: string;
  readonly limit?: number;
  readonly retryFailed?: number;
  readonly check?: boolean;
  readonly again?: boolean;
  readonly wait?: boolean;
  readonly json?: boolean;
};

const HELP = `
A row is {"input": {…}} with "id" and one of "model", "version" and "deployment" where it has them.
CSV and TSV begin with a line of columns; --map says which of them fill which inputs.

Examples:
  ${OUTLAST} submit prompts.tsv --map prompt=Prompt --model owner/name --wait
  ${OUTLAST} submit rows.jsonl --check
  jq -c '{input: .}' inputs.json | ${OUTLAST} submit - --model owner/name --name tonight`;

export function submitCommand(): Command {
  return new Command("submit")
    .description("submit a file of inputs as a batch")
    .argument("<file>", "JSONL, CSV or TSV; - reads JSONL from stdin")
    .option(
      "--map <input=column>",
      "fill an input from a column; input:number=, :boolean= or :json= (repeatable)",
      addMapping,
    )
    .option("--id <column>", "the column that holds each row's own id")
    .option("--format <format>", "jsonl, csv or tsv, where the file's name doesn't tell")
    .option("--model <owner/name>", "the model of rows that name none; owner/name:version for one version of it")
    .option("--version <hex>", "the version of rows that name none")
    .option("--deployment <owner/name>", "the deployment of rows that name none")
    .option("--account <name>", "the account that pays; needed where there are several")
    .option("--name <text>", "a name for people (default: the file's)")
    .option("--limit <n>", "only the first n rows", wholeNumber)
    .option(
      "--retry-failed <n>",
      "buy so many more attempts of what the provider itself failed (default: none)",
      upTo(MAX_ATTEMPT - 1),
    )
    .option("--check", "validate every row; submit nothing, spend nothing")
    .option("--again", "make a new batch even if this one was submitted before")
    .option("--wait", "show the batch until nothing more happens by itself")
    .option("--json", "print the batch's id and number of items as JSON; with --wait, then how it stands at the end")
    .addHelpText("after", HELP)
    .action(submit);
}

async function submit(file: string, options: SubmitOptions): Promise<void> {
  const reading: ReadRowsOptions = {
    format: formatOf(file, options.format),
    ...(options.map !== undefined && { map: options.map }),
    ...(options.id !== undefined && { idColumn: options.id }),
    ...targetOf(options),
  };
  try {
    await (options.check === true ? check(file, reading, options) : submitAndShow(file, reading, options));
  } catch (error) {
    if (error instanceof RowsError)
      throw new CommandError(`${shown(file)}: ${harmless(error.message)}`, { cause: error });
    if (!(error instanceof BadRows)) throw error;
    for (const { line, reason } of error.rows) say(`${shown(file)}:${line}: ${harmless(reason)}`);
    say(error.message);
    process.exitCode = 1;
  }
}

/** Needs neither Redis nor bucket. Where no account is known yet, rows are held against what Replicate takes. */
async function check(file: string, reading: ReadRowsOptions, options: SubmitOptions): Promise<void> {
  const { accounts } = await commandConfig(process.env);
  const known = accounts.map(({ name, provider }) => ({ name, targets: TARGETS[provider] }));
  const account = chooseAccount(options.account, known.length > 0 ? known : [ANY_ACCOUNT]);
  const items = await checkRows(await rowsOf(file, reading), { account, ...limitOf(options) });
  say(`${shown(file)}: ${count(items)}, all good; nothing was submitted`);
  if (options.json === true) await printJson({ items });
}

const ANY_ACCOUNT: AdmittingAccount = { name: "replicate" as AccountName, targets: TARGETS.replicate };

async function submitAndShow(file: string, reading: ReadRowsOptions, options: SubmitOptions): Promise<void> {
  await using services = await openServices(await commandConfig(process.env), "command");
  const json = options.json === true;
  const account = chooseAccount(options.account, services.accounts);
  const name = options.name ?? (file === "-" ? "stdin" : path.basename(file));

  const { batch, items, fresh } = await submitBatch(
    await rowsOf(file, reading),
    {
      name,
      tenant: DEFAULT_TENANT,
      account,
      ...limitOf(options),
      ...retriesOf(options),
      again: options.again === true,
    },
    { ...services, clock: Date.now },
  );
  say(
    fresh
      ? `submitted ${count(items)} as batch ${batch} (${harmless(name)}) to account ${account.name}`
      : `the same ${count(items)} had been submitted before, as batch ${batch} (${harmless(name)}): ` +
          "nothing is bought again; --again makes a new batch",
  );
  await (json ? printJson({ batch, items }) : print(batch));

  if (options.wait === true) {
    const standing = await findBatch(services.ledger, batch);
    process.exitCode = await watchBatch(services, standing.batch, { json });
  } else {
    say(`to watch it: ${OUTLAST} watch ${batch}`);
  }
}

async function rowsOf(file: string, reading: ReadRowsOptions): Promise<AsyncIterable<RowReading>> {
  return readRows(await openFile(file), reading);
}

/** Opened and looked at before anything else, so that a name that leads nowhere is told as such. */
async function openFile(file: string): Promise<Readable> {
  if (file === "-") {
    if (process.stdin.isTTY) say("reading rows from the keyboard, one a line; Ctrl-D ends them");
    return process.stdin;
  }
  try {
    const handle = await open(file);
    if (!(await handle.stat()).isDirectory()) return handle.createReadStream();
    await handle.close();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "there is no such file" : code === "EACCES" ? "it may not be read" : code;
    throw new CommandError(`${file} can't be opened: ${why}`, { cause: error });
  }
  throw new CommandError(`${file} is a folder: name the file with the rows`);
}

// ── options ───────────────────────────────────────────────────────────────────

function addMapping(text: string, before: readonly Mapping[] = []): readonly Mapping[] {
  try {
    return [...before, parseMapping(text)];
  } catch (error) {
    if (error instanceof RowsError) throw new InvalidArgumentError(error.message);
    throw error;
  }
}

function wholeNumber(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError("It is a whole number, 1 or more.");
  return Number(text);
}

function upTo(most: number): (text: string) => number {
  return (text) => {
    if (!/^\d{1,3}$/.test(text) || Number(text) > most) {
      throw new InvalidArgumentError(`It is a whole number, 0 to ${most}.`);
    }
    return Number(text);
  };
}

function targetOf(options: SubmitOptions): { readonly target?: Target } {
  const read = readTargetChoice(options);
  if (read === null) return {};
  if (!read.ok) throw new CommandError(read.reason);
  return { target: read.target };
}

function limitOf({ limit }: SubmitOptions): { readonly limit?: number } {
  return limit === undefined ? {} : { limit };
}

function retriesOf({ retryFailed }: SubmitOptions): { readonly retryFailed?: number } {
  return retryFailed === undefined ? {} : { retryFailed };
}

// ── words ─────────────────────────────────────────────────────────────────────

function shown(file: string): string {
  return file === "-" ? "stdin" : file;
}

function count(items: number): string {
  return `${number(items)} item${items === 1 ? "" : "s"}`;
}
