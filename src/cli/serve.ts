/** `outlast serve`: the queue API, the pages and the board, until SIGTERM or SIGINT. */

import { Command } from "commander";
import { ListenError } from "../server/listen-error.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, say } from "./output.ts";
import { awaitEnd } from "./up.ts";

const HELP = `
Needs OUTLAST_REDIS_URL, OUTLAST_BUCKET and a provider's token, and works for nobody: that is \`outlast worker\`'s. As many
as you like may run. Beyond loopback it needs OUTLAST_API_KEYS. SIGTERM answers what was asked; a second one exits at once.

Example:
  OUTLAST_HOST=0.0.0.0 OUTLAST_API_KEYS=acme:$(openssl rand -hex 24):operator ${OUTLAST} serve`;

export function serveCommand(): Command {
  return new Command("serve")
    .description("serve the queue API, the pages and the board of queues")
    .addHelpText("after", HELP)
    .action(async () => {
      using end = awaitEnd();
      // Only here: every other command would start a second later for it.
      const { runServer } = await import("../server/main.ts");
      try {
        await runServer(process.env, end.told, (url) =>
          say(`serving the API at ${url}/v1, the pages at ${url}/batches`),
        );
      } catch (error) {
        if (error instanceof ListenError) throw new CommandError(error.message, { cause: error });
        throw error;
      }
    });
}
