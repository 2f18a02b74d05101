/** `outlast limit`: sets an account's rates by hand, at once and for all its workers. */

import { Command, InvalidArgumentError } from "commander";
import { limitAccount, type WantedLimits } from "../batches/limit-account.ts";
import { number } from "../core/figures.ts";
import { parseAccountName } from "../core/naming.ts";
import { effectiveRate, type Pace } from "../core/pacing.ts";
import { openServices } from "../wiring.ts";
import { CommandError } from "./failures.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

type LimitOptions = {
  readonly creates?: number;
  readonly reads?: number;
  readonly reset?: boolean;
  readonly json?: boolean;
};

const HELP = `
A rate that is set here stands until another is set, or the settings change; workers that start leave it as it is.

Examples:
  ${OUTLAST} limit replicate --creates 300
  ${OUTLAST} limit replicate --creates 60 --reads 1000
  ${OUTLAST} limit replicate --reset
  ${OUTLAST} status --accounts`;

export function limitCommand(): Command {
  return new Command("limit")
    .description("set how many creates and reads a minute an account may make, at once and for all workers")
    .argument("<account>", "its name")
    .option("--creates <n>", "so many predictions may be created a minute", perMinute)
    .option("--reads <n>", "so many other requests may be made a minute", perMinute)
    .option("--reset", "back to what the settings say")
    .option("--json", "print the rates that hold now")
    .addHelpText("after", HELP)
    .action(limit);
}

async function limit(text: string, { creates, reads, reset, json }: LimitOptions): Promise<void> {
  const isSet = creates !== undefined || reads !== undefined;
  if (isSet === (reset === true)) {
    throw new CommandError(`say --creates or --reads with a number, or --reset: ${OUTLAST} limit --help`);
  }
  await using services = await openServices(await commandConfig(process.env), "command");
  const account = parseAccountName(text);
  const wanted: WantedLimits =
    reset === true
      ? { creates: null, reads: null }
      : { ...(creates !== undefined && { creates }), ...(reads !== undefined && { reads }) };
  const paces = account === null ? null : await limitAccount(account, wanted, { ...services, clock: Date.now });
  if (account === null || paces === null) {
    throw new CommandError(`no worker has worked for an account ${JSON.stringify(text)} yet, so it has no limits here`);
  }
  const nowMs = Date.now();
  const shown = { creates: shownRate(paces.creates, nowMs), reads: shownRate(paces.reads, nowMs) };
  say(`account ${account}: ${words("creates", paces.creates, nowMs)}, ${words("reads", paces.reads, nowMs)}`);
  if (json === true) await printJson({ account, ...shown });
}

function shownRate(pace: Pace, nowMs: number) {
  return {
    per_minute: pace.perMinute,
    effective_per_minute: effectiveRate(pace, nowMs).perMinute,
    by_hand: pace.byHand,
  };
}

function words(what: string, pace: Pace, nowMs: number): string {
  const { perMinute: now } = effectiveRate(pace, nowMs);
  const source = pace.byHand ? "set by hand" : "from the settings";
  const less = now < pace.perMinute ? `, ${number(now)} for the moment` : "";
  return `${number(pace.perMinute)} ${what} a minute (${source}${less})`;
}

function perMinute(text: string): number {
  const value = Number(text);
  if (!/^\d{1,7}(\.\d{1,3})?$/.test(text) || value <= 0 || value > 6_000_000) {
    throw new InvalidArgumentError("It is a number a minute, above 0 and at most 6000000.");
  }
  return value;
}
