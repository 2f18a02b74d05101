/** `outlast rebuild`: makes again from the bucket what Redis has lost. */

import { Command } from "commander";
import { openKnownBatch } from "../batches/rebuild-batch.ts";
import { type Reopened, reopenAccount } from "../batches/reopen-account.ts";
import { restoreLimits } from "../batches/restore-limits.ts";
import { readBatch } from "../bucket/records.ts";
import { number } from "../core/figures.ts";
import { type AccountName, parseBatchId } from "../core/naming.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

const HELP = `
Workers do this by themselves when they find that Redis was restarted, replaced or emptied; this does it now, and shows it.
The bucket says what was submitted, given out, decided and recorded. What may have been bought and has no receipt is unclear
at first: the provider's list is searched for it, and only what surely isn't there is bought.

Examples:
  ${OUTLAST} rebuild
  ${OUTLAST} rebuild 0k4tz2m8x1c7v9b3n5q6`;

export function rebuildCommand(): Command {
  return new Command("rebuild")
    .description("make again from the bucket what Redis has lost")
    .argument("[batch]", "only this one, where Redis doesn't know it")
    .option("--json", "a line of JSON for each account, or the batch")
    .addHelpText("after", HELP)
    .action(async (batch: string | undefined, options: { json?: boolean }) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const json = options.json === true;
      await (batch === undefined ? rebuildAccounts(services, json) : rebuildOne(services, batch, json));
    });
}

async function rebuildAccounts(services: CommandServices, json: boolean): Promise<void> {
  for (const account of services.accounts) {
    const { name } = account;
    const reopened = await reopenAccount(name, {
      ...services,
      restoreLimits: () => restoreLimits(account, services),
      restartLosesNothing: services.config.ownRedis,
      tell: ({ batch, how, unclear }) =>
        say(`batch ${batch.id} (${harmless(batch.name)}): ${how}, ${items(unclear)} unclear`),
      clock: Date.now,
    });
    say(wordsFor(name, reopened));
    if (json) await printJson({ account: name, ...(reopened ?? { batches: 0, rebuilt: 0, unclear: 0 }) });
    await services.queues.scheduleKeeper();
    await services.queues.wakeFeed(name);
    await services.queues.startSweep(name);
  }
}

function wordsFor(account: AccountName, reopened: Reopened | null): string {
  if (reopened === null) return `account ${account}: Redis is the one that it was open on; there is nothing to rebuild`;
  const { batches, rebuilt, unclear } = reopened;
  const what = `${number(batches)} batch${batches === 1 ? "" : "es"} looked through, ${number(rebuilt)} rebuilt`;
  const open =
    unclear === 0 ? "" : `; ${items(unclear)} may have been bought, and are looked for on the provider's list`;
  return `account ${account}: ${what}${open}`;
}

async function rebuildOne(services: CommandServices, text: string, json: boolean): Promise<void> {
  const id = parseBatchId(text);
  const batch = id === null ? null : await readBatch(services.bucket, id);
  if (batch === null) throw new CommandError(`there is no batch ${text} in ${services.bucket.url}`);
  const rebuilt = await openKnownBatch(batch, { ...services, clock: Date.now });
  say(
    rebuilt === null
      ? `Redis knows batch ${batch.id}: there is nothing to rebuild`
      : `batch ${batch.id} (${harmless(batch.name)}) is rebuilt, ${items(rebuilt.unclear)} unclear`,
  );
  if (json) await printJson({ batch: batch.id, rebuilt: rebuilt !== null, unclear: rebuilt?.unclear ?? 0 });
  await services.queues.wakeFeed(batch.account);
}

function items(count: number): string {
  return `${number(count)} item${count === 1 ? "" : "s"}`;
}
