/**
 * `outlast resume`: lets a paused batch go on, or an account that the provider turned away. Recorded in the bucket
 * before it takes effect.
 */

import { Command } from "commander";
import { findBatch } from "../batches/follow-batch.ts";
import { holdBatch } from "../batches/hold-batch.ts";
import { writeAccountAct } from "../bucket/acts.ts";
import { parseAccountName } from "../core/naming.ts";
import { isUnclearHalt } from "../ledger/ledger.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

const HELP = `
Examples:
  ${OUTLAST} resume 0k4tz2m8x1c7v9b3n5q6
  ${OUTLAST} resume --account replicate`;

export function resumeCommand(): Command {
  return new Command("resume")
    .description("let a paused batch go on, or a paused account, after what paused it is mended")
    .argument("[batch]", "the batch's id")
    .option("--account <name>", "the account")
    .addHelpText("after", HELP)
    .action(async (batch: string | undefined, { account }: { account?: string }) => {
      if ((batch === undefined) === (account === undefined)) {
        throw new CommandError(`name a batch, or an account: ${OUTLAST} resume --help`);
      }
      await using services = await openServices(await commandConfig(process.env), "command");
      if (batch !== undefined) await resumeBatch(services, batch);
      else if (account !== undefined) await resumeAccount(services, account);
    });
}

async function resumeBatch(services: CommandServices, text: string): Promise<void> {
  const standing = await findBatch(services.ledger, text);
  const did = await holdBatch(standing, "resume", { ...services, clock: Date.now });
  say(did ? `batch ${text} goes on; it was ${harmless(standing.paused ?? "")}` : `batch ${text} wasn't paused`);
  const { account } = standing.batch;
  const reason = await services.ledger.pausedReason(account);
  if (reason !== null && isUnclearHalt(reason)) {
    say(
      `its account ${account} is held, though: ${harmless(reason)}; to look, and to decide: ${OUTLAST} audit, ${OUTLAST} resolve`,
    );
  } else if (reason !== null) {
    say(`its account ${account} is paused, though: ${harmless(reason)}; then: ${OUTLAST} resume --account ${account}`);
  }
}

async function resumeAccount(services: CommandServices, text: string): Promise<void> {
  const { bucket, ledger, queues, accounts } = services;
  const account = parseAccountName(text);
  const reason = account === null ? null : await ledger.pausedReason(account);
  if (account === null || (reason === null && !accounts.some(({ name }) => name === account))) {
    const known = accounts.map(({ name }) => name).join(", ") || "none";
    throw new CommandError(`there is no account ${JSON.stringify(text)} (known: ${known})`);
  }
  if (reason === null) return say(`account ${account} wasn't paused`);
  if (isUnclearHalt(reason)) {
    throw new CommandError(
      `account ${account} isn't paused by anybody: ${reason}. Most resolve by themselves; to look, and to decide: ${OUTLAST} audit, ${OUTLAST} resolve`,
    );
  }
  await writeAccountAct(bucket, account, { act: "resume" }, Date.now());
  await ledger.resumeAccount(account);
  await queues.wakeFeed(account);
  say(`account ${account} goes on; it was paused because ${harmless(reason)}`);
}
