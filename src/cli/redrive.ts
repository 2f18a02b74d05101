/** `outlast redrive`: buys again what has ended unsaved, as a new attempt of each item. */

import { Command } from "commander";
import type { MultiIntegerRange } from "multi-integer-range";
import { findBatch } from "../batches/follow-batch.ts";
import { redriveItems } from "../batches/redrive-items.ts";
import { number } from "../core/figures.ts";
import { openServices } from "../wiring.ts";
import { sayHeld } from "./batch-end.ts";
import { parseIndexes } from "./indexes.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";
import { watchBatch } from "./watch.ts";

type RedriveOptions = {
  readonly failed?: boolean;
  readonly canceled?: boolean;
  readonly items?: MultiIntegerRange;
  readonly error?: string;
  readonly wait?: boolean;
  readonly json?: boolean;
};

const HELP = `
Each item gets one more attempt, which is paid for like the first. Receipts and files of earlier attempts stay; saved items
are left as they are. A canceled batch goes on with what is redriven.

Examples:
  ${OUTLAST} redrive 0k4tz2m8x1c7v9b3n5q6 --wait
  ${OUTLAST} redrive 0k4tz2m8x1c7v9b3n5q6 --error E6716
  ${OUTLAST} redrive 0k4tz2m8x1c7v9b3n5q6 --canceled --items 0,5-9`;

export function redriveCommand(): Command {
  return new Command("redrive")
    .description("buy again what has ended unsaved: the failed items, unless told otherwise")
    .argument("<batch>", "its id, as submit printed it")
    .option("--failed", "failed items (the default)")
    .option("--canceled", "canceled items; with --failed both")
    .option("--items <indexes>", "only these of them, e.g. 0,5-9", parseIndexes)
    .option("--error <words>", "only those whose error has these words in it")
    .option("--wait", "show the batch until nothing more happens by itself")
    .option(
      "--json",
      "print the batch's id and how many items were redriven; with --wait, then how it stands at the end",
    )
    .addHelpText("after", HELP)
    .action(redrive);
}

async function redrive(text: string, options: RedriveOptions): Promise<void> {
  await using services = await openServices(await commandConfig(process.env), "command");
  const json = options.json === true;
  const { batch } = await findBatch(services.ledger, text);
  const canceled = options.canceled === true;
  const choice = {
    ends: new Set([
      ...(canceled ? (["canceled"] as const) : []),
      ...(options.failed === true || !canceled ? (["failed"] as const) : []),
    ]),
    ...(options.items !== undefined && { indexes: options.items }),
    ...(options.error !== undefined && { error: options.error }),
  };
  const redriven = await redriveItems(batch, choice, { ...services, clock: Date.now });
  say(
    redriven === 0
      ? `batch ${batch.id} has no such items: nothing is bought again`
      : `${number(redriven)} item${redriven === 1 ? " waits" : "s wait"} to be bought again, as a new attempt`,
  );
  await sayHeld(services, batch);
  if (json) await printJson({ batch: batch.id, redriven });
  if (options.wait === true) process.exitCode = await watchBatch(services, batch, { json });
  else if (redriven > 0) say(`to watch it: ${OUTLAST} watch ${batch.id}`);
}
