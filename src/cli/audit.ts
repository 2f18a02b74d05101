/**
 * `outlast audit`: receipts, working state and the provider's list held against one another, account by account. Spends
 * nothing; with --repair it saves what was paid for and can still be fetched.
 */

import { randomUUID } from "node:crypto";
import { Command } from "commander";
import { auditAccount } from "../audit/audit-account.ts";
import type { NotSavedFinding } from "../audit/findings.ts";
import { findBatch } from "../batches/follow-batch.ts";
import { repairItem } from "../batches/repair-item.ts";
import { type AccountConfig, type Config, readConfig, Secret } from "../config.ts";
import { number } from "../core/figures.ts";
import type { AccountName, BatchId } from "../core/naming.ts";
import { DEFAULT_SWEEP_POLICY } from "../core/sweeping.ts";
import { MINUTE } from "../core/time.ts";
import { EMULATOR_TOKEN, readUpFile } from "../embedded/up-file.ts";
import { openGate } from "../gates/account-gate.ts";
import { gatedProvider, patiently } from "../gates/gated-provider.ts";
import type { Provider } from "../providers/provider.ts";
import { type CommandServices, openProvider, openServices } from "../wiring.ts";
import { openTelling, totalLines } from "./audit-words.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";

type AuditOptions = { readonly repair?: boolean; readonly json?: boolean };

const HELP = `
With --json each finding is a line, the last one of each account its totals.
Of a single batch, what on the list can't be of its rows counts as others', whoever's it is, and other batches' predictions of
more than two hours ago as held by nobody; without a batch all batches are looked at. It spends nothing, and only reads - but
for --repair, which saves what was paid for as long as the provider has it: a new attempt carries on with that prediction.

Examples:
  ${OUTLAST} audit
  ${OUTLAST} audit 0k4tz2m8x1c7v9b3n5q6 --json | jq -c 'select(.finding == "not_saved")'

The exit code, the highest that applies: 0 what was bought is saved, once, and the books agree; 2 items failed or were canceled,
something is billed and not saved, bought twice, or the books disagree; 4 items are unclear, or the provider lists a
prediction that nobody holds and that agrees with an item's input.`;

export function auditCommand(): Command {
  return new Command("audit")
    .description("hold receipts, working state and the provider's list against one another")
    .argument("[batch]", "its id; without one, all batches of all accounts")
    .option("--repair", "save what is billed, not saved, and can still be fetched; buys nothing")
    .option("--json", "a line of JSON for each finding")
    .addHelpText("after", HELP)
    .action(async (text: string | undefined, options: AuditOptions) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const scopes = text === undefined ? await allBatches(services) : await oneBatch(services, text);
      if (scopes.size === 0) say(`no batches yet; to submit one: ${OUTLAST} submit --help`);
      let exitCode = 0;
      for (const [account, batches] of scopes) {
        exitCode = Math.max(exitCode, await audit(services, account, batches, options));
      }
      process.exitCode = exitCode;
    });
}

/** The newest of them. */
const MAX_BATCHES = 100_000;
/** A hundred predictions each. */
const MAX_PAGES = 500;
/** The rest of the account's reads is for whoever works. */
const SHARE_OF_READS = 0.1;

type Scopes = ReadonlyMap<AccountName, readonly BatchId[]>;

async function oneBatch({ ledger }: CommandServices, text: string): Promise<Scopes> {
  const { batch } = await findBatch(ledger, text);
  return new Map([[batch.account, [batch.id]]]);
}

async function allBatches({ ledger }: CommandServices): Promise<Scopes> {
  const scopes = new Map<AccountName, BatchId[]>();
  for (const id of await ledger.listBatches(MAX_BATCHES)) {
    const account = await ledger.accountOf(id);
    if (account !== null) scopes.set(account, [...(scopes.get(account) ?? []), id]);
  }
  return scopes;
}

async function audit(
  services: CommandServices,
  account: AccountName,
  batches: readonly BatchId[],
  { repair, json }: AuditOptions,
): Promise<number> {
  const { bucket, ledger, config } = services;
  await using spoken = await speakFor(services, account);
  const { list, pauseMs, why } = spoken;
  const findings = auditAccount(
    account,
    batches,
    {
      bucket,
      ledger,
      list: list === undefined ? why : { list, pauseMs, maxPages: MAX_PAGES },
      policy: { ...DEFAULT_SWEEP_POLICY, settlingMs: config.settlingMs, horizonMs: config.listHorizonMs },
      clock: Date.now,
    },
    new AbortController().signal,
  );
  const told = openTelling();
  const alive: NotSavedFinding[] = [];
  let exitCode = 0;
  for await (const finding of findings) {
    if (finding.finding === "account") exitCode = finding.exit_code;
    if (finding.finding === "not_saved" && finding.alive) alive.push(finding);
    if (json === true) await printJson(finding);
    else if (finding.finding !== "account") told.add(finding);
    else for (const line of [...totalLines(finding), ...told.lines(), ""]) await print(line);
  }
  if (repair === true) await repairAll(services, alive);
  return exitCode;
}

/** What a later audit finds saved: it takes a poll and a copy. */
async function repairAll(services: CommandServices, findings: readonly NotSavedFinding[]): Promise<void> {
  let begun = 0;
  for (const { account, batch, index, attempt, prediction_id: prediction, created_at: createdAt } of findings) {
    if (prediction === null) continue;
    const ended = { account, batch, index, attempt };
    const startedAtMs = createdAt === null ? Date.now() : Date.parse(createdAt);
    if (await repairItem(ended, prediction, startedAtMs, { ...services, clock: Date.now })) begun++;
  }
  const items = `${number(begun)} item${begun === 1 ? "" : "s"}`;
  say(
    begun === 0
      ? "nothing is to be repaired: no prediction that is billed and not saved can still be fetched"
      : `${items} ${begun === 1 ? "is" : "are"} being saved now, without buying anything; look again with audit`,
  );
}

// ── the provider ──────────────────────────────────────────────────────────────

type Spoken = AsyncDisposable & {
  /** A page at a time, as the account's reads beside polls allow. */
  readonly list: Provider["list"];
  readonly pauseMs: number;
  /** Why there is no list. */
  readonly why: string;
};

async function speakFor({ config, ledger, queues }: CommandServices, name: AccountName): Promise<Spoken> {
  const account = await accountOf(config, name);
  if (account?.token == null) {
    const why = `there is no token of account ${name} here: run this where it is set`;
    return { list: undefined, pauseMs: 0, why, [Symbol.asyncDispose]: () => Promise.resolve() };
  }
  const provider = openProvider(account, account.token);
  const gate = openGate(account, { ledger, queues, clock: Date.now, mark: randomUUID });
  return {
    list: patiently(gatedProvider(provider, gate)).list,
    pauseMs: MINUTE / (account.readsPerMinute * SHARE_OF_READS),
    why: `${account.provider} has no list: what nobody here knows of, and what was bought twice unnoticed, can't be found`,
    async [Symbol.asyncDispose]() {
      await gate.flush().catch(() => undefined); // a statistic
      await provider[Symbol.asyncDispose]();
    },
  };
}

/** By the settings' token, also where a running `up` names the account; that of `up` on its emulator is known. */
async function accountOf(config: Config, name: AccountName): Promise<AccountConfig | null> {
  const isIt = (account: AccountConfig) => account.name === name;
  const known = config.accounts.find(isIt) ?? null;
  if (known === null || known.token !== null) return known;
  const up = await readUpFile(config.stateDir);
  return up !== null && up.redis_url === config.redisUrl && up.emulator !== null
    ? { ...known, baseUrl: up.emulator.api_url, token: new Secret(EMULATOR_TOKEN) }
    : (readConfig(process.env).accounts.find(isIt) ?? null);
}
