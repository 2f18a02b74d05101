/** What Redis knows of batches: their hashes, their parts, how each stands, and lists of them. */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { Batch, BatchSums, StateCounts } from "../core/batch.ts";
import { ITEM_STATES, type ItemState, writeItemByte } from "../core/item.ts";
import { type AccountName, type BatchId, batchIdsAmong, parseAccountName, REDIS_KEYS } from "../core/naming.ts";
import { flat, type Scripts } from "./scripts.ts";

export type BatchStanding = {
  readonly batch: Batch;
  readonly counts: StateCounts;
  readonly cursor: number;
  /** Rows below it may be given out: the bucket says so. */
  readonly noted: number;
  readonly parts: number;
  /** Rows below the cursor that the feed is to give out again. */
  readonly returned: number;
  /** Predictions that were bought for an item which had one. */
  readonly duplicates: number;
  readonly sums: BatchSums;
  /** How often an attempt beyond the first, or a part of singles, was opened. */
  readonly openings: number;
  readonly finishedAtMs: number | null;
  /** Why a person paused the batch, or null. */
  readonly paused: string | null;
  readonly canceledAtMs: number | null;
};

/** Failures that have the same cause, as far as their words tell. */
export type FailureGroup = { readonly error: string; readonly count: number; readonly example: number };

const count = z.coerce.number().int().nonnegative().catch(0);
const wholeNumber = z.string().regex(/^\d+$/).transform(BigInt).catch(0n);

/** What Redis holds of a batch. Missing counters are zero: HINCRBY creates them. */
const batchHash = z.object({
  kind: z.enum(["file", "singles"]),
  name: z.string(),
  tenant: z.string(),
  opened_at: z.coerce.number(),
  retry_failed: count,
  finished_at: z.coerce.number().optional(),
  canceled_at: z.coerce.number().optional(),
  paused: z.string().optional(),
  items: count,
  cursor: count,
  noted: count,
  parts: count,
  openings: count,
  ...(Object.fromEntries(ITEM_STATES.map((state) => [state, count])) as Record<ItemState, typeof count>),
  predict_time_ms: wholeNumber,
  output_bytes: wholeNumber,
  output_files: wholeNumber,
  not_saved: wholeNumber,
});

export function batchesOf(redis: Redis, scripts: Scripts) {
  async function standing(account: AccountName, id: BatchId): Promise<BatchStanding | null> {
    const [hash, returned, duplicates] = await Promise.all([
      redis.hgetall(REDIS_KEYS.batch(account, id)),
      redis.scard(REDIS_KEYS.returned(account, id)),
      redis.scard(REDIS_KEYS.duplicates(account, id)),
    ]);
    if (hash["opened_at"] === undefined) return null;
    const read = batchHash.parse(hash);
    return {
      batch: {
        id,
        account,
        kind: read.kind,
        name: read.name,
        tenant: read.tenant,
        items: read.items,
        openedAtMs: read.opened_at,
        retryFailed: read.retry_failed,
      },
      counts: Object.fromEntries(ITEM_STATES.map((state) => [state, read[state]])) as Record<ItemState, number>,
      cursor: read.cursor,
      noted: read.noted,
      parts: read.parts,
      returned,
      duplicates,
      sums: {
        predict_time_ms: read.predict_time_ms,
        output_bytes: read.output_bytes,
        output_files: read.output_files,
        not_saved: read.not_saved,
      },
      openings: read.openings,
      finishedAtMs: read.finished_at ?? null,
      paused: read.paused ?? null,
      canceledAtMs: read.canceled_at ?? null,
    };
  }

  return {
    /** Answers whether this call opened it; opening an open batch changes nothing. */
    async openBatch(batch: Batch): Promise<boolean> {
      await listBatch(redis, batch);
      const opened = await scripts.outlastOpenBatch(
        REDIS_KEYS.batch(batch.account, batch.id),
        REDIS_KEYS.unfed(batch.account),
        REDIS_KEYS.unfinished(batch.account),
        batch.id,
        batch.openedAtMs,
        batch.items,
        ...flat({
          kind: batch.kind,
          name: batch.name,
          tenant: batch.tenant,
          retry_failed: String(batch.retryFailed),
        }),
      );
      return opened === 1;
    },

    /** What went wrong in a batch, the most frequent first; at most a hundred groups. */
    async failuresOf(account: AccountName, batch: BatchId): Promise<readonly FailureGroup[]> {
      const hash = await redis.hgetall(REDIS_KEYS.failures(account, batch));
      return Object.entries(hash)
        .flatMap(([field, value]) => {
          const error = field.startsWith("count:") ? field.slice("count:".length) : null;
          return error === null ? [] : { error, count: Number(value), example: Number(hash[`example:${error}`] ?? 0) };
        })
        .toSorted((a, b) => b.count - a.count);
    },

    /** The items that were saved last and have files, newest first; at most 24. */
    async latestSaved(account: AccountName, batch: BatchId): Promise<readonly number[]> {
      return (await redis.lrange(REDIS_KEYS.latest(account, batch), 0, -1)).map(Number);
    },

    /** Adds a part to a batch of singles. `missing`: an earlier part isn't published yet. */
    async publishPart(
      batch: Pick<Batch, "id" | "account">,
      part: {
        readonly part: number;
        readonly first: number;
        readonly rows: number;
        readonly voidIndexes: readonly number[];
      },
    ): Promise<"published" | "already" | "missing"> {
      const { id, account } = batch;
      const answer = await scripts.outlastPublishPart(
        REDIS_KEYS.batch(account, id),
        REDIS_KEYS.bytes(account, id),
        REDIS_KEYS.parts(account, id),
        REDIS_KEYS.unfed(account),
        REDIS_KEYS.unfinished(account),
        id,
        part.part,
        part.first,
        part.rows,
        writeItemByte({ attempt: 1, state: "canceled" }),
        ...part.voidIndexes,
      );
      return answer === 1 ? "published" : answer === 0 ? "already" : "missing";
    },

    /** Which part holds an item, and the part's first index. A batch that came as a file has one part, number 0. */
    async partOf(
      account: AccountName,
      batch: BatchId,
      index: number,
    ): Promise<{ readonly part: number; readonly first: number }> {
      const [part, first] = await redis.zrevrangebyscore(
        REDIS_KEYS.parts(account, batch),
        index,
        0,
        "WITHSCORES",
        "LIMIT",
        0,
        1,
      );
      return { part: Number(part ?? 0), first: Number(first ?? 0) };
    },

    standing,

    async accountOf(batch: BatchId): Promise<AccountName | null> {
      return parseAccountName((await redis.hget(REDIS_KEYS.batchAccounts, batch)) ?? "");
    },

    /** Newest first. */
    async listBatches(limit: number): Promise<readonly BatchId[]> {
      return batchIdsAmong(await redis.zrange(REDIS_KEYS.batches, 0, String(limit - 1), "REV"));
    },

    /** A tenant's batches, newest first; `after`: those that come behind this one. */
    async listTenantBatches(
      tenant: string,
      limit: number,
      { only, after }: { readonly only?: "singles"; readonly after?: BatchId } = {},
    ): Promise<readonly BatchId[]> {
      const key = only === "singles" ? REDIS_KEYS.tenantSingles(tenant) : REDIS_KEYS.tenantBatches(tenant);
      const rank = after === undefined ? null : await redis.zrevrank(key, after);
      if (after !== undefined && rank === null) return [];
      const from = rank === null ? 0 : rank + 1;
      return batchIdsAmong(await redis.zrange(key, from, String(from + limit - 1), "REV"));
    },

    /** Oldest first. */
    async unfinishedBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return batchIdsAmong(await redis.zrange(REDIS_KEYS.unfinished(account), 0, String(limit - 1)));
    },

    /**
     * `openings`: as they were before the batch's results were read. False: something of it was opened since, and isn't in
     * them, or Redis knows no such batch; nothing was changed.
     */
    async finishBatch(account: AccountName, batch: BatchId, nowMs: number, openings: number): Promise<boolean> {
      const finished = await scripts.outlastFinishBatch(
        REDIS_KEYS.batch(account, batch),
        REDIS_KEYS.unfinished(account),
        REDIS_KEYS.unfed(account),
        batch,
        nowMs,
        openings,
      );
      return finished === 1;
    },
  };
}

/** So that the batch is found: by its id, among all, among its tenant's. */
export async function listBatch(redis: Redis, { id, kind, tenant, account, openedAtMs }: Batch): Promise<void> {
  const listing = redis
    .multi()
    .hset(REDIS_KEYS.batchAccounts, id, account)
    .zadd(REDIS_KEYS.batches, "NX", openedAtMs, id)
    .zadd(REDIS_KEYS.tenantBatches(tenant), "NX", openedAtMs, id);
  if (kind === "singles") listing.zadd(REDIS_KEYS.tenantSingles(tenant), "NX", openedAtMs, id);
  await listing.exec();
}
