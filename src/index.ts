/**
 * Outlast as a library: enqueue inputs, submit batches, follow them, read their results.
 *
 *     import { openClient } from "../outlast/src/index.ts";
 *
 *     await using client = await openClient();
 *     const { batch } = await client.submit(
 *       prompts.map((prompt) => ({ input: { prompt } })),
 *       { name: "tonight", model: "owner/name" },
 *     );
 *     for await (const report of client.follow(batch)) console.error(`${report.saved} of ${report.items}`);
 *     for await (const line of client.results(batch)) console.log(line.id, line.status, line.outputs);
 *
 * It is used from a clone or a linked folder (`npm link`): Node strips no types under `node_modules`, and nothing is
 * built or published yet. A client works for nobody: `outlast up` or `outlast worker` runs what it enqueues.
 */

import { randomUUID } from "node:crypto";
import { openAdmission } from "./batches/admit-single.ts";
import { findBatch, followBatch, requireReport, UnknownBatch } from "./batches/follow-batch.ts";
import { readResults } from "./batches/read-results.ts";
import type { BatchReport } from "./batches/report-batch.ts";
import { chooseAccount, InputRefused, readInputJob } from "./batches/single-input.ts";
import { type BadRow, BadRows, type RowReading, submitBatch } from "./batches/submit-batch.ts";
import { BucketError } from "./bucket/bucket.ts";
import { commandConfig } from "./cli/settings.ts";
import { type AccountConfig, type Config, ConfigError, knownAccount } from "./config.ts";
import { MAX_ATTEMPT } from "./core/item.ts";
import { type BatchId, DEFAULT_TENANT, type ItemId, parseAccountName, parseItemId } from "./core/naming.ts";
import type { Target } from "./core/prediction.ts";
import type { KeptOutput, ResultLine } from "./core/receipt.ts";
import { readRow, readTargetChoice } from "./core/rows.ts";
import { RedisUnusable } from "./ledger/connect-redis.ts";
import { openServices } from "./wiring.ts";

export type { BadRow, BatchId, BatchReport, ItemId, KeptOutput, ResultLine };
export { BadRows, BucketError, ConfigError, InputRefused, RedisUnusable, UnknownBatch };

/** Everything may be left out: then the environment names it, or a running `outlast up` does. */
export type ClientOptions = {
  /** As OUTLAST_REDIS_URL. */
  readonly redisUrl?: string;
  /** As OUTLAST_BUCKET: `s3://name/prefix` or `file:folder`. It must be the workers' own. */
  readonly bucket?: string;
  /** As OUTLAST_S3_ENDPOINT. */
  readonly s3Endpoint?: string;
  /** As OUTLAST_STATE_DIR: where `up.json` is looked for. */
  readonly stateDir?: string;
  /** The workers' accounts that this client may name. A client needs no token. */
  readonly accounts?: readonly { readonly name: string; readonly provider: AccountConfig["provider"] }[];
  /** Instead of the process's environment. */
  readonly env?: Readonly<Record<string, string | undefined>>;
};

/** Which code runs: at most one of the three. */
export type TargetChoice =
  | { readonly model: string; readonly version?: never; readonly deployment?: never }
  | { readonly version: string; readonly model?: never; readonly deployment?: never }
  | { readonly deployment: string; readonly model?: never; readonly version?: never };
type NoTarget = { readonly model?: never; readonly version?: never; readonly deployment?: never };

type Input = {
  /** What the model takes. */
  readonly input: Readonly<Record<string, unknown>>;
  /** The caller's own id. */
  readonly id?: string;
};

/** One input. With an `id` it is idempotent: the same id and input are the same item, another input is refused. */
export type EnqueueInput = Input &
  TargetChoice & {
    /** Needed where there are several and none is called `replicate`. */
    readonly account?: string;
    /** A BullMQ queue of the caller's, to which the item's results line is added when it ends. */
    readonly replyTo?: string;
  };

export type Enqueued = { readonly item: ItemId; readonly batch: BatchId; readonly index: number };

/** A row of a batch; without a target it takes the batch's. */
export type BatchRow = Input & (TargetChoice | NoTarget);

export type BatchOptions = (TargetChoice | NoTarget) & {
  /** For people, and part of what makes it the same batch when it is submitted again. Default: `rows`. */
  readonly name?: string;
  readonly account?: string;
  /** Only the first so many rows. */
  readonly limit?: number;
  /** So many more attempts of an item whose attempts the provider itself failed, each paid for. Default 0, at most 14. */
  readonly retryFailed?: number;
  /** Make a new batch even if the same one was submitted before. */
  readonly again?: boolean;
};

export type Submitted = {
  readonly batch: BatchId;
  readonly items: number;
  /** False: the same rows had been submitted under this name before; nothing is bought again. */
  readonly fresh: boolean;
};

export interface Client extends AsyncDisposable {
  /**
   * Admits one input; it is on record when this answers. Inputs enqueued within a few milliseconds share their
   * requests, so call it many times at once rather than one after the other. Throws InputRefused.
   */
  enqueue(input: EnqueueInput): Promise<Enqueued>;
  /**
   * Makes a batch of rows; of a large one, stream them. Every row is validated first: throws BadRows, with each bad
   * row's place (counted from 1), and then nothing was submitted.
   */
  submit(rows: Iterable<BatchRow> | AsyncIterable<BatchRow>, options?: BatchOptions): Promise<Submitted>;
  /**
   * How the batch stands, now and after each change (looked at once a second), until nothing more happens by itself:
   * all has ended, or what is left waits for a paused account or is unclear. Throws UnknownBatch.
   */
  follow(batch: string, options?: { readonly signal?: AbortSignal }): AsyncIterable<BatchReport>;
  /** How the batch stands. Throws UnknownBatch. */
  status(batch: string): Promise<BatchReport>;
  /** What became of each item, in input order; also while the batch runs. Throws UnknownBatch. */
  results(batch: string): AsyncIterable<ResultLine>;
  /** Ends the connections; batches go on. */
  close(): Promise<void>;
}

/** Throws ConfigError, RedisUnusable or BucketError. */
export async function openClient(options: ClientOptions = {}): Promise<Client> {
  const services = await openServices(await clientConfig(options), "command");
  const { accounts, bucket, ledger, queues } = services;
  const admission = openAdmission({ bucket, ledger, queues, clock: Date.now });
  const close = async () => {
    await services[Symbol.asyncDispose]();
  };

  return {
    async enqueue({ replyTo, ...input }) {
      const data = { ...input, ...(replyTo !== undefined && { reply_to: replyTo }) };
      const read = readInputJob({ jobId: randomUUID(), addedAtMs: Date.now(), data }, accounts);
      // Only an id makes it the same input when it comes again.
      const { item } = await admission.admit(input.id === undefined ? { ...read, identity: null } : read);
      const place = parseItemId(item);
      if (place === null) throw new TypeError(`admission answered no item: ${item}`);
      return { item, ...place };
    },

    async submit(rows, { name = "rows", account, limit, retryFailed = 0, again, ...choice } = {}) {
      if (!Number.isInteger(retryFailed) || retryFailed < 0 || retryFailed >= MAX_ATTEMPT) {
        throw new InputRefused(`retryFailed is a whole number from 0 to ${MAX_ATTEMPT - 1}, not ${retryFailed}`);
      }
      const chosen = chooseAccount(account, accounts);
      const batch = { name, tenant: DEFAULT_TENANT, account: chosen, ...(limit !== undefined && { limit }) };
      return submitBatch(
        readingsOf(rows, targetOf(choice)),
        { ...batch, retryFailed, again: again === true },
        { bucket, ledger, queues, clock: Date.now },
      );
    },

    async *follow(text, { signal } = {}) {
      const { batch } = await findBatch(ledger, text);
      yield* followBatch(ledger, batch.id, signal === undefined ? {} : { signal });
    },

    status: (batch) => requireReport(ledger, batch),

    async *results(text) {
      const { batch } = await findBatch(ledger, text);
      yield* readResults({ bucket, ledger }, batch);
    },

    close,
    [Symbol.asyncDispose]: close,
  };
}

async function clientConfig({ accounts, env, ...settings }: ClientOptions): Promise<Config> {
  const config = await commandConfig({
    ...(env ?? process.env),
    ...(settings.redisUrl !== undefined && { OUTLAST_REDIS_URL: settings.redisUrl }),
    ...(settings.bucket !== undefined && { OUTLAST_BUCKET: settings.bucket }),
    ...(settings.s3Endpoint !== undefined && { OUTLAST_S3_ENDPOINT: settings.s3Endpoint }),
    ...(settings.stateDir !== undefined && { OUTLAST_STATE_DIR: settings.stateDir }),
  });
  if (accounts === undefined) return config;
  const known = accounts.map(({ name, provider }) => {
    const parsed = parseAccountName(name);
    if (parsed === null) throw new ConfigError([`${JSON.stringify(name)} is no name for an account`]);
    return config.accounts.find((account) => account.name === parsed) ?? knownAccount(parsed, provider);
  });
  return { ...config, accounts: known };
}

function targetOf(choice: TargetChoice | NoTarget): Target | undefined {
  const read = readTargetChoice(choice);
  if (read?.ok === false) throw new InputRefused(read.reason);
  return read?.target;
}

/** Rows as `submitBatch` takes them, each with its place, counted from 1. */
async function* readingsOf(
  rows: Iterable<BatchRow> | AsyncIterable<BatchRow>,
  target: Target | undefined,
): AsyncGenerator<RowReading> {
  const firstPlaces = new Map<string, number>();
  let line = 0;
  for await (const value of rows) {
    line++;
    const read = readRow(value, target === undefined ? {} : { target });
    const id = read.ok ? read.row.id : undefined;
    const first = id === undefined ? undefined : firstPlaces.get(id);
    if (!read.ok) yield { line, reason: read.reason };
    else if (first !== undefined)
      yield { line, reason: `the id ${JSON.stringify(id)} was given to row ${first} already` };
    else yield { line, row: read.row };
    if (id !== undefined && first === undefined) firstPlaces.set(id, line);
  }
}
