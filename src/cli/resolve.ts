/** `outlast resolve`: a person's word on unclear items that nothing else can tell of. */

import { Command } from "commander";
import type { MultiIntegerRange } from "multi-integer-range";
import { findBatch } from "../batches/follow-batch.ts";
import { resolveUnclearItems } from "../batches/resolve-unclear.ts";
import { number } from "../core/figures.ts";
import { openServices } from "../wiring.ts";
import { sayHeld } from "./batch-end.ts";
import { CommandError } from "./failures.ts";
import { parseIndexes } from "./indexes.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

type ResolveOptions = {
  readonly resend?: boolean;
  readonly fail?: boolean;
  readonly items?: MultiIntegerRange;
  readonly json?: boolean;
};

const HELP = `
An unclear item's request was never answered: nobody knows whether the provider accepted it. Where the provider has a list,
it is looked for there, and most resolve by themselves within a quarter of an hour. This is for the rest: look at the
provider's page first, since --resend pays twice for what did arrive.

Examples:
  ${OUTLAST} audit 0k4tz2m8x1c7v9b3n5q6
  ${OUTLAST} resolve 0k4tz2m8x1c7v9b3n5q6 --resend --items 17,40-44
  ${OUTLAST} resolve 0k4tz2m8x1c7v9b3n5q6 --fail`;

export function resolveCommand(): Command {
  return new Command("resolve")
    .description("decide about unclear items: buy them again, or give them up")
    .argument("<batch>", "its id, as submit printed it")
    .option("--resend", "buy them again, as the same attempt")
    .option("--fail", "give them up; they can be redriven later")
    .option("--items <indexes>", "only these of them, e.g. 0,5-9", parseIndexes)
    .option("--json", "print the batch's id and how many items were resolved")
    .addHelpText("after", HELP)
    .action(resolve);
}

async function resolve(text: string, options: ResolveOptions): Promise<void> {
  if ((options.resend === true) === (options.fail === true)) {
    throw new CommandError("say one of --resend (buy them again) and --fail (give them up)");
  }
  await using services = await openServices(await commandConfig(process.env), "command");
  const { batch } = await findBatch(services.ledger, text);
  const as = options.resend === true ? "resend" : "fail";
  const resolved = await resolveUnclearItems(batch, as, options.items ?? null, { ...services, clock: Date.now });
  const items = `${number(resolved)} unclear item${resolved === 1 ? "" : "s"}`;
  const done = as === "resend" ? "to be bought again" : "given up";
  say(
    resolved === 0
      ? `batch ${batch.id} has no such unclear items`
      : `${items} ${resolved === 1 ? "is" : "are"} ${done}; to watch the batch: ${OUTLAST} watch ${batch.id}`,
  );
  await sayHeld(services, batch);
  if (options.json === true) await printJson({ batch: batch.id, resolved });
}
