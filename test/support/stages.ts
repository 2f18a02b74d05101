/**
 * What a stage stands on, for its tests: a real Redis, a folder as bucket, ledger and queues on them - and a way to
 * look at everything that stands there. `line.clear()` makes all of it new.
 */

import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Queue } from "bullmq";
import type { Redis } from "ioredis";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { type PlacedRow, placeRows } from "../../src/bucket/input-parts.ts";
import type { Batch } from "../../src/core/batch.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  batchIdFrom,
  type ObjectKey,
  parseAccountName,
  QUEUE_NAMES,
} from "../../src/core/naming.ts";
import { type Prediction, predictionId, type Target } from "../../src/core/prediction.ts";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { type Ledger, openLedger } from "../../src/ledger/ledger.ts";
import { openQueues, type Queues } from "../../src/queues/enqueue.ts";
import type { CreateErrand } from "../../src/queues/queues.ts";
import { clockAt, type TestClock } from "./clock.ts";
import { test as redisTest } from "./redis.ts";

export const ACCOUNT = accountName("replicate");
export const MODEL: Target = { kind: "model", owner: "outlast", name: "text" };
/** 2026-11-20, 12:00 UTC. */
export const NOON = Date.UTC(2026, 10, 20, 12);

const ALL_TARGETS: ReadonlySet<Target["kind"]> = new Set(["version", "model", "deployment"]);
export const ADMITTING = { name: ACCOUNT, targets: ALL_TARGETS };

export function accountName(text: string): AccountName {
  const name = parseAccountName(text);
  if (name === null) throw new TypeError(`not an account's name: ${text}`);
  return name;
}

/** A prediction as a provider would show it. */
export function predictionOf(id: string, fields: Partial<Prediction> = {}): Prediction {
  const status = fields.status ?? "starting";
  return {
    id: predictionId(id),
    status,
    statusWord: status,
    output: null,
    error: null,
    logs: null,
    model: "outlast/text",
    version: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    dataRemoved: false,
    metrics: {},
    ...fields,
  };
}

/** Items of the account may be bought on this Redis. */
export async function openAccount(
  ledger: Pick<Ledger, "readIdentity" | "noteOpened">,
  account: AccountName = ACCOUNT,
): Promise<void> {
  await ledger.noteOpened(account, await ledger.readIdentity(account), null);
}

/** An account of its own, whose items may be bought on this Redis. */
export async function openedAccount(ledger: Parameters<typeof openAccount>[0], name: string): Promise<AccountName> {
  const account = accountName(name);
  await openAccount(ledger, account);
  return account;
}

export function batchNamed(name: string): BatchId {
  return batchIdFrom(createHash("sha256").update(name).digest());
}

let made = 0;

/** A batch that nobody has opened, another one each time. */
export function newBatch(fields: Partial<Batch> = {}): Batch {
  return {
    id: batchNamed(`batch ${made++}`),
    kind: "file",
    name: "a name",
    tenant: "default",
    account: ACCOUNT,
    items: 3,
    openedAtMs: NOON,
    retryFailed: 0,
    ...fields,
  };
}

export function refOf({ account, id }: Pick<Batch, "account" | "id">, index = 0, attempt = 1): AttemptRef {
  return { account, batch: id, index, attempt };
}

/** Ledger and queues are plain functions without a `this`; so typed, they may be handed on one by one. */
type Functions<T> = { readonly [Name in Extract<keyof T, string>]: T[Name] };

export type Line = {
  readonly redis: Redis;
  readonly ledger: Functions<Ledger>;
  readonly queues: Functions<Queues>;
  readonly bucket: Bucket;
  readonly clock: TestClock;
  /** Everything gone: Redis, bucket, and the clock at noon again. */
  readonly clear: () => Promise<void>;
  /** A batch of inputs as a person's file would make it. */
  readonly submit: (inputs: readonly Readonly<Record<string, unknown>>[], name?: string) => Promise<BatchId>;
  /** The create errand of an item, as the feed would add it. */
  readonly createErrand: (batch: BatchId, index: number, attempt?: number) => Promise<CreateErrand>;
  /** The jobs of a queue that stand there in any state. */
  readonly jobs: (queueName: string) => Promise<readonly SeenJob[]>;
  /** Bucket, bytes, counters, sums and errands: all that a crash could have spoiled. */
  readonly look: () => Promise<Seen>;
};

export type SeenJob = {
  readonly id: string;
  readonly data: unknown;
  readonly delay: number;
  readonly priority: number;
};

export type Seen = {
  readonly objects: Readonly<Record<string, unknown>>;
  readonly redis: Readonly<Record<string, unknown>>;
  readonly errands: Readonly<Record<string, readonly SeenJob[]>>;
};

const WATCHED_QUEUES = [
  QUEUE_NAMES.feed,
  QUEUE_NAMES.create(ACCOUNT),
  QUEUE_NAMES.follow(ACCOUNT),
  QUEUE_NAMES.copy,
  QUEUE_NAMES.record,
  QUEUE_NAMES.finish,
  QUEUE_NAMES.notify,
  "producer-replies",
];

/** Vitest's `test` with a line on the file's private Redis. */
export const test = redisTest.extend("line", { scope: "file" }, async ({ redis: server }, { onCleanup }) => {
  const line = await openLine(server.url);
  onCleanup(() => line.close());
  return line as Line;
});

export async function openLine(url: string): Promise<Line & { close(): Promise<void> }> {
  const redis = await connectRedis(url, "worker");
  redis.setMaxListeners(100);
  const ledger = openLedger(redis);
  const queues = openQueues(redis);
  const folders: string[] = [];
  const readers = new Map<string, Queue>();
  await openAccount(ledger);
  let bucket = await freshBucket();
  let clock = clockAt(NOON);

  async function freshBucket(): Promise<Bucket> {
    const folder = await mkdtemp(join(tmpdir(), "outlast-line-"));
    folders.push(folder);
    return openFileBucket(folder);
  }

  async function jobs(queueName: string): Promise<readonly SeenJob[]> {
    let queue = readers.get(queueName);
    if (queue === undefined) readers.set(queueName, (queue = new Queue(queueName, { connection: redis })));
    const found = await queue.getJobs(["wait", "prioritized", "delayed", "active", "failed"]);
    return found
      .map(({ id = "", data, delay, priority }) => ({ id, data: data as unknown, delay, priority }))
      .toSorted((a, b) => (a.id < b.id ? -1 : 1));
  }

  return {
    redis,
    ledger,
    queues,
    get bucket() {
      return bucket;
    },
    get clock() {
      return clock;
    },
    async clear() {
      await redis.flushall();
      await openAccount(ledger);
      bucket = await freshBucket();
      clock = clockAt(NOON);
    },
    async submit(inputs, name = "a batch") {
      async function* rows() {
        for (const [at, input] of inputs.entries()) yield { line: at + 1, row: { input, target: MODEL } };
      }
      const options = { name, tenant: "default", account: ADMITTING };
      return (await submitBatch(rows(), options, { bucket, ledger, queues, clock })).batch;
    },
    async createErrand(batch, index, attempt = 1) {
      const part = await ledger.partOf(ACCOUNT, batch, index);
      const [place] = (await placeRows(bucket, batch, part, index, 1)) as [PlacedRow];
      const { offset, length } = place;
      return { account: ACCOUNT, batch, index, attempt, place: { part: part.part, offset, length } };
    },
    jobs,
    async look() {
      const errands = await Promise.all(WATCHED_QUEUES.map(async (name) => [name, await jobs(name)] as const));
      return {
        objects: await objectsIn(bucket),
        redis: await keysIn(redis),
        errands: Object.fromEntries(errands.filter(([, found]) => found.length > 0)),
      };
    },
    async close() {
      await Promise.all([...readers.values()].map((queue) => queue.close()));
      await queues.close();
      redis.disconnect();
      await Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true })));
    },
  };
}

/** Every object: small text as it is, the rest by its digest. Addresses name the folder, so they are shortened. */
export async function objectsIn(bucket: Bucket): Promise<Record<string, unknown>> {
  const objects: Record<string, unknown> = {};
  for await (const { key } of bucket.list("")) {
    const body = (await bucket.get(key as ObjectKey, { maxBytes: 1e8 })) ?? Buffer.alloc(0);
    const isText = key.endsWith(".json") || key.endsWith(".jsonl");
    objects[key] = isText
      ? body.toString("utf8").replaceAll(bucket.url, "bucket:")
      : createHash("sha256").update(body).digest("hex");
  }
  return objects;
}

/** All keys of ours in Redis, without nonces and marks (chance) and the folder's name. */
async function keysIn(redis: Redis): Promise<Record<string, unknown>> {
  const found: Record<string, unknown> = {};
  for (const key of (await redis.keys("outlast:*")).filter((one) => !one.endsWith(":epoch")).toSorted()) {
    switch (await redis.type(key)) {
      case "string":
        found[key] = (await redis.getBuffer(key))?.toString("hex");
        break;
      case "hash": {
        const { nonce: _nonce, opened_on: _redis, ...fields } = await redis.hgetall(key);
        const shown = Object.entries(fields).map(([name, value]) => [
          name,
          value.replaceAll(/file:[^"]*outlast-line-\w+/g, "bucket:"),
        ]);
        found[key] = Object.fromEntries(shown);
        break;
      }
      case "zset":
        found[key] = await redis.zrange(key, 0, "-1", "WITHSCORES");
        break;
      case "list":
        found[key] = await redis.lrange(key, 0, -1);
        break;
      default:
        found[key] = (await redis.smembers(key)).toSorted();
    }
  }
  return found;
}

/** A line of `input-0.jsonl` and the like, read straight from the folder. */
export async function linesOf(bucket: Bucket, key: ObjectKey): Promise<readonly string[]> {
  const text = await readFile(bucket.urlOf(key).slice("file:".length), "utf8");
  return text.split("\n").slice(0, -1);
}
