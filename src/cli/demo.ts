/**
 * `outlast demo`: everything of `up` in a folder of its own, 200 prompts through it, and an end.
 *
 * The predictions come from the emulator, whatever tokens are set: a demo costs nothing. Its settings are its own, too
 * (Redis, bucket, port), so that it never meets a running `up`. Run again it makes a new batch of the same prompts. A
 * demo that was interrupted can't be taken up, since the emulator has forgotten what it ran: the next one drops what
 * its private Redis holds and starts anew; files in the folder stay.
 */

import { openSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { pino } from "pino";
import { findBatch } from "../batches/follow-batch.ts";
import { readResults } from "../batches/read-results.ts";
import { type BatchReport, progressIn } from "../batches/report-batch.ts";
import { chooseAccount } from "../batches/single-input.ts";
import { submitBatch } from "../batches/submit-batch.ts";
import { readConfig } from "../config.ts";
import { type Batch, exitCodeOf } from "../core/batch.ts";
import { DEFAULT_TENANT, OBJECT_KEYS } from "../core/naming.ts";
import type { ResultLine } from "../core/receipt.ts";
import { demoGrid, GRID_SIZE } from "../embedded/demo-grid.ts";
import type { System } from "../embedded/system.ts";
import type { CommandServices } from "../wiring.ts";
import { sayEnd } from "./batch-end.ts";
import { CommandError } from "./failures.ts";
import { paintFor } from "./live-lines.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { awaitEnd, openSystem, shellOf } from "./up.ts";
import { showBatch } from "./watch.ts";

type DemoOptions = {
  readonly items: number;
  readonly keep?: boolean;
  readonly json?: boolean;
};

export function demoCommand(): Command {
  return new Command("demo")
    .description(`run ${GRID_SIZE} made-up predictions through everything, and show where their outputs lie`)
    .option("--items <n>", `only the first n of the ${GRID_SIZE}`, readItems, GRID_SIZE)
    .option("--keep", "keep everything up afterwards, until Ctrl-C")
    .option("--json", "print how the batch stands at the end, as status --json does")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} demo --items 40 --keep`)
    .action(async (options: DemoOptions) => {
      process.exitCode = await runDemo(options);
    });
}

/** Ten creates a second, a wait before each run, and runs of one to six seconds: queues that can be watched. */
const EMULATOR = {
  queueMs: { medianMs: 500, spread: 0.5 },
  runMs: { medianMs: 2_500, spread: 0.45 },
} as const;

/** Answers the exit code. */
async function runDemo(options: DemoOptions): Promise<number> {
  using end = awaitEnd();
  const paint = paintFor(process.stderr);
  const folder = path.join(readConfig(process.env).stateDir, "demo");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const logFile = path.join(folder, "demo.log");
  const log = openSync(logFile, "w", 0o600);

  await using system = await openSystem({
    env: demoEnvironment(folder),
    workers: 1,
    log: pino({ level: "info", base: { pid: process.pid } }, pino.destination({ fd: log, sync: true })),
    workerLog: log,
    emulator: EMULATOR,
    beforeWork: forgetUnfinished,
  });
  end.onSecond(() => system.abandon());
  say(paint("bold", "Outlast demo"));
  say(
    `predictions from the emulator, which costs nothing; watch it at ${paint("cyan", `${system.up.dashboard_url}/batches`)}`,
  );

  const stop = new AbortController();
  const interrupted = end.told.then(() => "interrupted" as const);
  const broken = system.broken.then((reason) => ({ broken: reason }));
  const bought = buyGrid(system, options, stop.signal);
  const shown = await Promise.race([interrupted, broken, bought]);
  stop.abort();
  await bought.catch(() => undefined); // told by the race, if it was first
  if (shown === "interrupted") {
    say("stopping the demo; the next one starts anew");
    return 130;
  }
  if ("broken" in shown) throw new CommandError(`${shown.broken} (log: ${logFile})`);

  const { batch, report } = shown;
  sayEnd(system.services.bucket, report);
  await sayExamples(system, batch);
  if (options.json === true) await printJson(report);
  const code = exitCodeOf(progressIn(report), report.paused);
  if (code !== 0) say(`the demo's log: ${logFile}`);

  if (options.keep === true) await keepUp(system, folder, Promise.race([interrupted, broken]));
  else say(paint("dim", `the dashboard goes down now; to look at it afterwards: ${OUTLAST} demo --keep`));
  return code;
}

/** What a person set for real work isn't for a demo. Variables of the system, such as PATH, stay. */
function demoEnvironment(folder: string): Readonly<Record<string, string | undefined>> {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith("OUTLAST_") && name !== "REPLICATE_API_TOKEN" && name !== "COMETAPI_KEY",
  );
  return { ...Object.fromEntries(kept), OUTLAST_STATE_DIR: folder, OUTLAST_PORT: "0" };
}

async function forgetUnfinished({ ledger, accounts, bucket, redis }: CommandServices): Promise<void> {
  for (const { name } of accounts) {
    const unfinished = await ledger.unfinishedBatches(name, MAX_UNFINISHED);
    if (unfinished.length === 0) continue;
    say("the last demo was interrupted: its unfinished batch is dropped");
    // A Redis that was emptied is filled again from the bucket, with all batches that are there.
    for (const batch of unfinished) await bucket.delete(OBJECT_KEYS.batch(batch));
    // The whole of it is the demo's: a private server, found by its folder.
    await redis.flushall();
    return;
  }
}

/** Submits the grid and shows it to its end. */
async function buyGrid(
  { services }: System,
  { items }: DemoOptions,
  signal: AbortSignal,
): Promise<{ readonly batch: Batch; readonly report: BatchReport }> {
  const account = chooseAccount(undefined, services.accounts);
  const submitted = await submitBatch(
    rows(items),
    { name: "demo grid", tenant: DEFAULT_TENANT, account, again: true },
    { ...services, clock: Date.now },
  );
  const { batch } = await findBatch(services.ledger, submitted.batch);
  say(`submitted ${submitted.items} prompts as batch ${submitted.batch}`);
  const report = await showBatch(services, batch, signal);
  if (report === null) throw new Error("a batch without a report");
  return { batch, report };
}

async function* rows(items: number) {
  for (const [at, row] of demoGrid(items).entries()) yield { line: at + 1, row };
}

const EXAMPLES = 3;
/** More than one are left by nobody. */
const MAX_UNFINISHED = 1_000;

/** A picture, a set, and something that isn't a picture, where there are such. */
async function sayExamples({ services }: System, batch: Batch): Promise<void> {
  const chosen = new Map<string, ResultLine>();
  for await (const line of readResults(services, batch)) {
    const [first] = line.outputs;
    if (first === undefined) continue;
    const kind = `${first.content_type} ${Math.min(line.outputs.length, 2)}`;
    if (!chosen.has(kind)) chosen.set(kind, line);
    if (chosen.size === EXAMPLES) break;
  }
  if (chosen.size === 0) return;
  say("for example:");
  for (const line of chosen.values()) {
    const [first, ...more] = line.outputs;
    if (first === undefined) continue;
    const others = more.length === 0 ? "" : ` and ${more.length} more`;
    say(`  ${placeOf(services.bucket.urlOf(first.key))}${others}`);
  }
}

/** A path that can be opened from here, where it is one. */
function placeOf(url: string): string {
  if (!url.startsWith("file:")) return url;
  const whole = url.slice("file:".length);
  const fromHere = path.relative("", whole);
  return fromHere.startsWith("..") ? whole : fromHere;
}

async function keepUp(
  { up }: System,
  folder: string,
  end: Promise<"interrupted" | { readonly broken: string }>,
): Promise<void> {
  const paint = paintFor(process.stderr);
  say(`everything stays up until Ctrl-C: ${paint("cyan", `${up.dashboard_url}/batches`)}`);
  say(`commands find it by ${shellOf({ OUTLAST_STATE_DIR: folder })}`);
  const how = await end;
  if (how !== "interrupted") throw new CommandError(how.broken);
}

function readItems(text: string): number {
  if (!/^[1-9]\d{0,2}$/.test(text) || Number(text) > GRID_SIZE) {
    throw new InvalidArgumentError(`It is a whole number from 1 to ${GRID_SIZE}.`);
  }
  return Number(text);
}
