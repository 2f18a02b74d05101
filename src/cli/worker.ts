/** `outlast worker`: runs the pipeline, or the stages named, until SIGTERM or SIGINT. */

import { Command } from "commander";
import { readStages, runWorker } from "../../workers/main.ts";
import { STAGES } from "../../workers/stages.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST } from "./output.ts";

const HELP = `
Needs OUTLAST_REDIS_URL, OUTLAST_BUCKET and a provider's token. As many as you like may run against one Redis and one
bucket. SIGTERM lets running jobs end; a second one exits at once.

Examples:
  ${OUTLAST} worker
  ${OUTLAST} worker copy record`;

export function workerCommand(): Command {
  return new Command("worker")
    .description("run the pipeline's stages in this process")
    .argument("[stages...]", `some of: ${STAGES.join(", ")} (default: all)`)
    .addHelpText("after", HELP)
    .action(async (names: readonly string[]) => {
      const stages = readStages(names);
      if (typeof stages === "string") throw new CommandError(stages);
      await runWorker(stages, process.env);
    });
}
