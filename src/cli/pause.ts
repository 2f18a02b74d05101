/** `outlast pause`: nothing more of a batch is bought until it is resumed. What is bought already goes on. */

import { Command } from "commander";
import { findBatch } from "../batches/follow-batch.ts";
import { holdBatch } from "../batches/hold-batch.ts";
import { openServices } from "../wiring.ts";
import { OUTLAST, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

export function pauseCommand(): Command {
  return new Command("pause")
    .description("buy nothing more of a batch until it is resumed; what is bought goes on")
    .argument("<batch>", "its id, as submit printed it")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} pause 0k4tz2m8x1c7v9b3n5q6`)
    .action(async (text: string) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const standing = await findBatch(services.ledger, text);
      const did = await holdBatch(standing, "pause", { ...services, clock: Date.now });
      say(
        did
          ? `batch ${text} is paused; to let it go on: ${OUTLAST} resume ${text}`
          : `batch ${text} was paused already: ${standing.paused}`,
      );
    });
}
