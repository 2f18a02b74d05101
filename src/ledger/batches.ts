/** What Redis knows of batches: their hashes, which of them are to be fed, which aren't finished. */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { Batch, BatchSums, StateCounts } from "../core/batch.ts";
import { ITEM_STATES, type ItemState, readItemByte, writeItemByte } from "../core/item.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  errandId,
  parseAccountName,
  parseBatchId,
  REDIS_KEYS,
} from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import { HOUR } from "../core/time.ts";
import type { LostSpan } from "./accounts.ts";
import type { OpenItemFields } from "./items.ts";
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
  readonly finishedAtMs: number | null;
  /** Why a person paused the batch, or null. */
  readonly paused: string | null;
  readonly canceledAtMs: number | null;
};

/** Failures that have the same cause, as far as their words tell. */
export type FailureGroup = { readonly error: string; readonly count: number; readonly example: number };

/** `over`: it has ended, was canceled, or isn't known. */
export type HoldAnswer = "done" | "already" | "over";

/** An item that is to have another attempt. */
export type Redriven = {
  readonly index: number;
  /** The attempt that has ended. */
  readonly ended: number;
  /** Which group of failures it was counted in. */
  readonly failure?: string;
  /** Redis may have lost that the attempt was opened and bought, between these moments. */
  readonly lost?: LostSpan;
  /** Nothing is bought: the attempt carries on with a prediction that was, and runs at once. */
  readonly carry?: { readonly prediction: PredictionId; readonly set: Partial<OpenItemFields> };
};

/** A stretch of a canceled batch. */
export type CancelWalk = {
  /** Where the next stretch begins. */
  readonly next: number;
  readonly over: boolean;
  /** Items of the batch that haven't ended. */
  readonly left: number;
  /** To be woken. */
  readonly running: readonly AttemptRef[];
};

const walkReply = z.tuple([z.number(), z.number(), z.number()], z.number());

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
      finishedAtMs: read.finished_at ?? null,
      paused: read.paused ?? null,
      canceledAtMs: read.canceled_at ?? null,
    };
  }

  async function hold(
    { id, account }: Pick<Batch, "id" | "account">,
    act: "pause" | "resume" | "cancel",
    value: string | number,
  ): Promise<HoldAnswer> {
    const answer = await scripts.outlastHoldBatch(
      REDIS_KEYS.batch(account, id),
      REDIS_KEYS.unfed(account),
      REDIS_KEYS.canceling(account),
      REDIS_KEYS.returned(account, id),
      id,
      act,
      value,
    );
    return answer === 1 ? "done" : answer === 0 ? "already" : "over";
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

    /** The bucket says by now that rows below this index may be given out. */
    async noteWindow({ id, account }: Pick<Batch, "id" | "account">, noted: number): Promise<void> {
      await redis.hset(REDIS_KEYS.batch(account, id), "noted", noted);
    },

    /** Nothing more of it is bought until `resumeBatch`. The first reason stays. */
    pauseBatch: (batch: Pick<Batch, "id" | "account">, reason: string) => hold(batch, "pause", reason),
    resumeBatch: (batch: Pick<Batch, "id" | "account">) => hold(batch, "resume", ""),
    /** From now on its claims are turned away; `walkCancel` does the rest. */
    cancelBatch: (batch: Pick<Batch, "id" | "account">, nowMs: number) => hold(batch, "cancel", nowMs),

    /** Canceled batches whose items haven't all been told, the oldest cancel first. */
    async cancelingBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return ids(await redis.zrange(REDIS_KEYS.canceling(account), 0, String(limit - 1)));
    },

    /**
     * Cancels what waits in a stretch of a canceled batch; names what runs, to be woken. `from`: what comes before has
     * been woken; null: wherever the walk stands.
     */
    async walkCancel(account: AccountName, batch: BatchId, from: number | null, limit: number): Promise<CancelWalk> {
      const [next, over, left, ...running] = walkReply.parse(
        await scripts.outlastWalkCancel(
          REDIS_KEYS.batch(account, batch),
          REDIS_KEYS.bytes(account, batch),
          REDIS_KEYS.canceling(account),
          REDIS_KEYS.unfed(account),
          REDIS_KEYS.returned(account, batch),
          REDIS_KEYS.open(account),
          batch,
          from ?? "",
          limit,
        ),
      );
      const refs = Array.from({ length: running.length / 2 }, (_, at) => ({
        account,
        batch,
        index: running[2 * at] ?? 0,
        attempt: running[2 * at + 1] ?? 1,
      }));
      return { next, over: over === 1, left, running: refs };
    },

    /**
     * Opens the next attempt of items whose attempt has ended so. Answers how many were opened; null while items of a
     * canceled batch haven't ended, which end by its cancel. An item that stands otherwise by now is left as it is.
     * `cancelIsOver`: a lost Redis is put right, and the cancel had been taken back.
     */
    async redrive(
      { id, account }: Pick<Batch, "id" | "account">,
      items: readonly Redriven[],
      nowMs: number,
      { cancelIsOver = false }: { readonly cancelIsOver?: boolean } = {},
    ): Promise<number | null> {
      const opened = z
        .number()
        .parse(
          await scripts.outlastRedrive(
            REDIS_KEYS.bytes(account, id),
            REDIS_KEYS.batch(account, id),
            REDIS_KEYS.returned(account, id),
            REDIS_KEYS.unfed(account),
            REDIS_KEYS.unfinished(account),
            REDIS_KEYS.unclear(account),
            REDIS_KEYS.failures(account, id),
            REDIS_KEYS.canceling(account),
            REDIS_KEYS.open(account),
            REDIS_KEYS.bound(account, Math.floor(nowMs / HOUR)),
            id,
            nowMs,
            REDIS_KEYS.itemsOf(account, id),
            JSON.stringify(
              items.map(({ index, ended, failure, lost, carry }) => [
                index,
                ended,
                failure ?? false,
                lost === undefined ? false : [String(lost.fromMs), String(lost.toMs)],
                carry?.prediction ?? false,
                flat(carry?.set ?? {}),
              ]),
            ),
            cancelIsOver ? 1 : 0,
          ),
        );
      return opened === -1 ? null : opened;
    },

    /** A hint for the number of the batch's next act: whoever finds it taken takes the next. */
    async nextAct({ id, account }: Pick<Batch, "id" | "account">): Promise<number> {
      return redis.hincrby(REDIS_KEYS.batch(account, id), "acts", 1);
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
      return ids(await redis.zrange(REDIS_KEYS.batches, 0, String(limit - 1), "REV"));
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
      return ids(await redis.zrange(key, from, String(from + limit - 1), "REV"));
    },

    /** Oldest first. */
    async unfinishedBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return ids(await redis.zrange(REDIS_KEYS.unfinished(account), 0, String(limit - 1)));
    },

    async finishBatch(account: AccountName, batch: BatchId, nowMs: number): Promise<void> {
      await redis
        .multi()
        .hset(REDIS_KEYS.batch(account, batch), "finished_at", nowMs)
        .zrem(REDIS_KEYS.unfinished(account), batch)
        .zrem(REDIS_KEYS.unfed(account), batch)
        .exec();
    },

    /** Batches with rows that haven't been fed, oldest first. */
    async unfedBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return ids(await redis.zrange(REDIS_KEYS.unfed(account), 0, String(limit - 1)));
    },

    /** Rows whose claim was turned away, and which are to be given out again. */
    async returnedRows(
      account: AccountName,
      batch: BatchId,
      limit: number,
    ): Promise<readonly { readonly index: number; readonly attempt: number }[]> {
      const members = await redis.srandmember(REDIS_KEYS.returned(account, batch), limit);
      const bytes = await Promise.all(
        members.map((member) => redis.getrangeBuffer(REDIS_KEYS.bytes(account, batch), Number(member), Number(member))),
      );
      return members.map((member, at) => ({
        index: Number(member),
        attempt: readItemByte(bytes[at]?.[0] ?? 0).attempt,
      }));
    },

    /** Notes what was enqueued. False: another feed was faster; nothing was changed. */
    async advance(
      account: AccountName,
      batch: BatchId,
      cursor: { readonly before: number; readonly after: number },
      fed: readonly AttemptRef[],
      nowMs: number,
    ): Promise<boolean> {
      const done = await scripts.outlastAdvance(
        REDIS_KEYS.batch(account, batch),
        REDIS_KEYS.bytes(account, batch),
        REDIS_KEYS.open(account),
        REDIS_KEYS.returned(account, batch),
        REDIS_KEYS.unfed(account),
        batch,
        nowMs,
        cursor.before,
        cursor.after,
        ...fed.flatMap((ref) => [ref.index, errandId(ref)]),
      );
      return done === 1;
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

function ids(members: readonly string[]): readonly BatchId[] {
  return members.flatMap((member) => parseBatchId(member) ?? []);
}
