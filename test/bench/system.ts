/**
 * A whole system as it runs in production, every part a process of its own: a private Redis that syncs every write,
 * the emulator, and as many workers as one starts; a folder is the bucket. This process submits and watches.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { readConfig } from "../../src/config.ts";
import type { StateCounts } from "../../src/core/batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import { startRedisServer } from "../../src/embedded/redis-server.ts";
import type { Audit, PredictionRow } from "../../src/emulator/books.ts";
import type { EmulatorOptions } from "../../src/emulator/options.ts";
import type { ReadRow } from "../../src/rows/read-rows.ts";
import { type CommandServices, type KnownAccount, openServices } from "../../src/wiring.ts";
import { Child } from "./child.ts";
import type { EmulatorAddresses, EmulatorOrder } from "./emulator-process.ts";

/** The highest rates the settings take: so many that they limit nothing. */
export const UNLIMITED = {
  emulator: { createsPerMinute: Number.POSITIVE_INFINITY, readsPerMinute: Number.POSITIVE_INFINITY },
  env: { OUTLAST_CREATES_PER_MINUTE: "6000000", OUTLAST_READS_PER_MINUTE: "6000000" },
} as const;

/** A load generator asks for more than any key may. */
const UNLIMITED_API = { OUTLAST_API_LIMITS: "requests=1000000000,rows=1000000000,bytes=1000000000000" };

export type SystemOptions = {
  readonly emulator: EmulatorOptions;
  readonly env?: Readonly<Record<string, string>>;
  /** An account of this file instead of `replicate`; `base_url` and the token are added. */
  readonly account?: Readonly<Record<string, unknown>>;
  readonly signal: AbortSignal;
};

export type Books = Audit & { readonly prediction_list: readonly PredictionRow[] };

export type System = AsyncDisposable & {
  readonly services: CommandServices;
  readonly account: KnownAccount;
  readonly emulator: Child;
  readonly redisUrl: string;
  readonly apiUrl: string;
  /** A worker with all stages, unless some are named; resolves when it works. */
  startWorker(
    execArgv?: readonly string[],
    own?: { readonly stages?: readonly string[]; readonly env?: Readonly<Record<string, string>> },
  ): Promise<Child>;
  /** The queue API, open to anybody on loopback; resolves when it listens, with its address. */
  startServer(): Promise<{ readonly server: Child; readonly url: string }>;
  submit(rows: AsyncIterable<ReadRow>): Promise<BatchId>;
  counts(batch: BatchId): Promise<StateCounts>;
  /** Looks until it is so. Throws where a process ended by itself, or after `limitMs`. */
  until(
    what: string,
    isSo: () => Promise<boolean>,
    options: { readonly everyMs: number; readonly limitMs: number },
  ): Promise<void>;
  books(): Promise<Books>;
  /** The same, without the predictions. */
  totals(): Promise<Audit>;
};

export async function startSystem({ emulator: settings, env, account, signal }: SystemOptions): Promise<System> {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-bench-"));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const redis = await startRedisServer({ dataDir: path.join(folder, "redis") });
  opened.defer(() => redis.close());

  const emulator = opened.use(new Child("test/bench/emulator-process.ts"));
  const addressed = emulator.next<EmulatorAddresses>("addresses");
  const order: EmulatorOrder = { kind: "start", options: settings };
  emulator.send(order);
  const { apiUrl, filesUrl } = await addressed;

  const variables = {
    REPLICATE_API_TOKEN: "r8_emulator",
    OUTLAST_REPLICATE_BASE_URL: apiUrl,
    OUTLAST_OUTPUT_HOSTS: new URL(filesUrl).host,
    OUTLAST_REDIS_URL: redis.url,
    OUTLAST_BUCKET: `file:${path.join(folder, "bucket")}`,
    OUTLAST_STATE_DIR: path.join(folder, "state"),
    OUTLAST_LOG_LEVEL: "info",
    ...env,
    ...(account !== undefined && { REPLICATE_API_TOKEN: "", OUTLAST_ACCOUNTS: path.join(folder, "accounts.json") }),
  };
  if (account !== undefined) {
    const file = { bench: { provider: "replicate", token: "r8_emulator", base_url: apiUrl, ...account } };
    await writeFile(path.join(folder, "accounts.json"), JSON.stringify(file));
  }
  const services = opened.use(await openServices(readConfig(variables), "command"));
  const [known] = services.accounts;
  if (known === undefined) throw new Error("the system has no account");

  const children = [emulator];
  const held = opened.move();
  return {
    services,
    account: known,
    emulator,
    redisUrl: redis.url,
    apiUrl,
    async startWorker(execArgv = [], { stages = [], env: own } = {}) {
      const worker = held.use(new Child("workers/main.ts", { args: stages, env: { ...variables, ...own }, execArgv }));
      children.push(worker);
      await worker.says(/"working"/);
      return worker;
    },
    async startServer() {
      const server = held.use(
        new Child("src/cli/cli.ts", { args: ["serve"], env: { ...variables, ...UNLIMITED_API, OUTLAST_PORT: "0" } }),
      );
      children.push(server);
      const [, url = ""] = await server.says(/serving the API at (http:\S+)\/v1/);
      return { server, url };
    },
    async submit(rows) {
      const options = { name: "bench", tenant: "default", account: known };
      return (await submitBatch(rows, options, { ...services, clock: Date.now })).batch;
    },
    async counts(batch) {
      const standing = await services.ledger.standing(known.name, batch);
      if (standing === null) throw new Error(`batch ${batch} is gone`);
      return standing.counts;
    },
    async until(what, isSo, { everyMs, limitMs }) {
      const deadline = Date.now() + limitMs;
      while (!(await isSo())) {
        for (const child of children) child.assertAlive();
        if (Date.now() > deadline) throw new Error(`not within ${limitMs / 1_000} s: ${what}`);
        await sleep(everyMs, undefined, { signal });
      }
    },
    async books() {
      const answer = await fetch(new URL("/__audit?predictions=1", apiUrl), { signal });
      return (await answer.json()) as Books;
    },
    async totals() {
      const answer = await fetch(new URL("/__audit", apiUrl), { signal });
      return (await answer.json()) as Audit;
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}
