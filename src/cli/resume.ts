/** `outlast resume`: lets a paused account buy again. Recorded in the bucket before it takes effect. */

import { Command } from "commander";
import { writeAccountAct } from "../bucket/records.ts";
import { parseAccountName } from "../core/naming.ts";
import { openServices } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

export function resumeCommand(): Command {
  return new Command("resume")
    .description("let a paused account go on, after what paused it is mended")
    .requiredOption("--account <name>", "the account")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} resume --account replicate`)
    .action(async (options: { account: string }) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const { bucket, ledger, queues, accounts } = services;
      const account = parseAccountName(options.account);
      const reason = account === null ? null : await ledger.pausedReason(account);
      if (account === null || (reason === null && !accounts.some(({ name }) => name === account))) {
        const known = accounts.map(({ name }) => name).join(", ") || "none";
        throw new CommandError(`there is no account ${JSON.stringify(options.account)} (known: ${known})`);
      }
      if (reason === null) {
        say(`account ${account} wasn't paused`);
        return;
      }
      await writeAccountAct(bucket, account, { act: "resume", at: new Date().toISOString() });
      await ledger.resumeAccount(account);
      await queues.wakeFeed(account);
      say(`account ${account} goes on; it was paused because ${harmless(reason)}`);
    });
}
