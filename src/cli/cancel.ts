/**
 * `outlast cancel`: ends a batch, or one item of it. What waits is never bought; what runs is canceled at the provider;
 * what succeeded anyway is kept.
 */

import { Command } from "commander";
import { cancelItem } from "../batches/cancel-item.ts";
import { findItem } from "../batches/find-item.ts";
import { findBatch } from "../batches/follow-batch.ts";
import { holdBatch } from "../batches/hold-batch.ts";
import { number } from "../core/figures.ts";
import { type ItemEnd, type ItemState, isEnd } from "../core/item.ts";
import { parseItemId } from "../core/naming.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

const HELP = `
What waits is never bought; what runs is canceled at the provider; what succeeded anyway is saved.

Examples:
  ${OUTLAST} cancel 0k4tz2m8x1c7v9b3n5q6
  ${OUTLAST} cancel 0k4tz2m8x1c7v9b3n5q6000042`;

export function cancelCommand(): Command {
  return new Command("cancel")
    .description("end a batch, or one item")
    .argument("<id>", "a batch's id (20 characters) or an item's (26)")
    .addHelpText("after", HELP)
    .action(async (id: string) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      await (parseItemId(id) === null ? cancelBatch(services, id) : cancelOne(services, id));
    });
}

async function cancelBatch(services: CommandServices, text: string): Promise<void> {
  const standing = await findBatch(services.ledger, text);
  const did = await holdBatch(standing, "cancel", { ...services, clock: Date.now });
  const { counts } = standing;
  say(
    did
      ? `batch ${text} is canceled: ${number(counts.waiting)} waiting items end unbought, what is in flight is canceled at the provider; to watch it: ${OUTLAST} watch ${text}`
      : `batch ${text} was canceled already`,
  );
}

async function cancelOne(services: CommandServices, text: string): Promise<void> {
  const item = await findItem(services, text);
  if (item === null) throw new CommandError(`there is no item ${text} here: see ${OUTLAST} status`);
  if (isEnd(item.state)) return say(`item ${text} has ended already: ${item.state}`);
  const stands = await cancelItem(item, item.row, { ...services, clock: Date.now });
  if (stands === "canceled") return say(`item ${text} is canceled; it was never bought`);
  if (isEnd(stands)) return say(`item ${text} ended meanwhile: ${stands}`);
  say(`item ${text} ${MEANWHILE[stands]}; to look: ${OUTLAST} status ${text}`);
}

/** What becomes of an item that is to be canceled and hasn't ended. */
const MEANWHILE = {
  waiting: "waits again, and isn't canceled: say it once more",
  claimed: "is being bought at this moment, and is canceled at the provider then",
  running: "is being canceled at the provider",
  copying: "has succeeded already, and is saved",
  recording: "has ended at the provider already, and is recorded",
  unclear: "may have been bought, nobody knows; if it was, it is canceled when it is found",
} as const satisfies Record<Exclude<ItemState, ItemEnd>, string>;
