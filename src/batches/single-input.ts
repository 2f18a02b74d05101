/** A single input: what a producer's job holds, read once and refused in words where it can't become an item. */

import type { RowWebhook } from "../bucket/input-parts.ts";
import { type AccountName, DEFAULT_TENANT, isOwnQueue } from "../core/naming.ts";
import type { Target } from "../core/prediction.ts";
import { type Row, readRow } from "../core/rows.ts";
import type { InputJob } from "../queues/queues.ts";

export type SingleInput = {
  readonly tenant: string;
  readonly account: AccountName;
  /** What makes it the same input when it comes again; unique within the tenant. Null: it can't come again. */
  readonly identity: string | null;
  readonly row: Row & { readonly target: Target };
  readonly replyTo: string | null;
  /** How long after its admission the prediction is to be ended; null: as long as we allow any. */
  readonly cancelAfterMs: number | null;
  readonly webhook: RowWebhook | null;
};

/** This can't become an item, and trying again won't change that. */
export class InputRefused extends Error {
  override readonly name: string = "InputRefused";
}

/** The same identity came before, with another input. */
export class IdentityTaken extends InputRefused {}

/** Nothing was admitted; trying again may help. */
export class AdmissionBusy extends Error {
  override readonly name = "AdmissionBusy";
}

/** What admission needs to know of an account. */
export type AdmittingAccount = { readonly name: AccountName; readonly targets: ReadonlySet<Target["kind"]> };

const KNOWN_KEYS: ReadonlySet<string> = new Set(["input", "id", "model", "version", "deployment"]);

/** Reads what a producer put into the inputs queue. The tenant of that queue is `default`. Throws InputRefused. */
export function readInputJob(job: InputJob, accounts: readonly AdmittingAccount[]): SingleInput {
  if (typeof job.data !== "object" || job.data === null || Array.isArray(job.data)) {
    throw new InputRefused(
      `an input is an object like {"input": {…}, "model": "owner/name"}, not ${JSON.stringify(job.data)?.slice(0, 80)}`,
    );
  }
  const { account: wanted, reply_to: replyTo, ...rest } = job.data as Record<string, unknown>;
  const unknown = Object.keys(rest).filter((key) => !KNOWN_KEYS.has(key));
  if (unknown.length > 0) {
    throw new InputRefused(
      `unknown key ${JSON.stringify(unknown[0])}: an input has ${[...KNOWN_KEYS].join(", ")}, account and reply_to`,
    );
  }
  if (rest["model"] === undefined && rest["version"] === undefined && rest["deployment"] === undefined) {
    throw new InputRefused("names no model: add `model`, `version` or `deployment`");
  }
  const account = chooseAccount(wanted, accounts);
  const read = readRow(rest, {});
  if (!read.ok) throw new InputRefused(read.reason);
  const { target } = read.row;
  if (target === undefined) throw new InputRefused("names no model: add `model`, `version` or `deployment`");
  if (!account.targets.has(target.kind))
    throw new InputRefused(
      `account ${account.name} can't run a ${target.kind}; it takes ${[...account.targets].join(", ")}`,
    );
  if (
    replyTo !== undefined &&
    (typeof replyTo !== "string" || !/^[^:\s]{1,200}$/.test(replyTo) || !replyTo.isWellFormed() || isOwnQueue(replyTo))
  ) {
    throw new InputRefused("`reply_to` must name a queue of your own (1 to 200 characters, no colon, not outlast-…)");
  }
  return {
    tenant: DEFAULT_TENANT,
    account: account.name,
    identity: read.row.id === undefined ? `job:${job.jobId}:${job.addedAtMs}` : `id:${read.row.id}`,
    row: { ...read.row, target },
    replyTo: replyTo ?? null,
    cancelAfterMs: null,
    webhook: null,
  };
}

/** The account that a producer or person named; unnamed it is the only one, else `replicate`. Throws InputRefused. */
export function chooseAccount<A extends { readonly name: AccountName }>(wanted: unknown, accounts: readonly A[]): A {
  const name = wanted ?? (accounts.length === 1 ? accounts[0]?.name : "replicate");
  const found = accounts.find((account) => account.name === name);
  if (found !== undefined) return found;
  const known = accounts.map((account) => account.name).join(", ") || "none; set REPLICATE_API_TOKEN or COMETAPI_KEY";
  throw new InputRefused(`there is no account ${JSON.stringify(name)} (known: ${known})`);
}
