/**
 * Working state in Redis: where every item stands, what an open item needs, how a batch adds up.
 *
 * All of it can be rebuilt from the bucket and the provider. Each method is one script or one pipeline, so it
 * happened or it didn't; each may be repeated, since the Redis client re-sends what wasn't answered. The one
 * transition is `move` (move.lua). Keys and ids come from `core/naming.ts`, legal steps from `core/item.ts`.
 */

import { readFileSync } from "node:fs";
import { Redis } from "ioredis";
import { z } from "zod";
import type { Batch, StateCounts } from "../core/batch.ts";
import {
  ITEM_STATES,
  ITEM_STEPS,
  type ItemByte,
  type ItemState,
  type ItemStep,
  readItemByte,
  stateNumber,
  writeItemByte,
} from "../core/item.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  errandId,
  parseAccountName,
  parseBatchId,
  parseErrandId,
  REDIS_KEYS,
} from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";

export type MoveAnswer = {
  readonly answer: "moved" | "already" | "paused" | "lost";
  /** Where the item stands now. */
  readonly state: ItemState;
  readonly predictionId: PredictionId | null;
  /** Items of the batch that haven't ended, unclear ones among them. */
  readonly left: number;
};

export type MoveOptions = {
  readonly nowMs: number;
  /** For `claim` the nonce to write; for other steps: only if the item's intent carries it. */
  readonly nonce?: string;
  /** For `bind`. */
  readonly predictionId?: PredictionId;
  /** For `giveBack`: this errand ends here, so the feed is to give the row out again. */
  readonly handBack?: boolean;
  /** Fields of the item's hash to write with the step. */
  readonly set?: Partial<OpenItemFields>;
  /** What to add to the batch's sums with the step that ends the attempt; whole numbers. */
  readonly sums?: Partial<BatchSums>;
};

/** An open item's hash: small, and deleted when its attempt ends. All values are text, as Redis keeps them. */
export type OpenItemFields = {
  readonly nonce: string;
  readonly intent_at: string;
  readonly prediction_id: string;
  /** The row's own id, and where its producer wants the answer; kept here so that `record` needn't read the row. */
  readonly row_id: string;
  readonly reply_to: string;
  /** How the attempt ends: JSON, or the word `bucket` where it is too large for here (`src/bucket/endings.ts`). */
  readonly ending: string;
};

export type BatchSums = {
  readonly predict_time_ms: bigint;
  readonly output_bytes: bigint;
  readonly output_files: bigint;
};

export type BatchStanding = {
  readonly batch: Batch;
  readonly counts: StateCounts;
  readonly cursor: number;
  readonly parts: number;
  /** Rows below the cursor that the feed is to give out again. */
  readonly returned: number;
  readonly sums: BatchSums;
  readonly finishedAtMs: number | null;
};

export type Ledger = ReturnType<typeof openLedger>;

const script = (name: string) => readFileSync(new URL(name, import.meta.url), "utf8");

const STATE_TABLE = `local STATES = { ${ITEM_STATES.map((state, number) => `[${number}] = '${state}'`).join(", ")} }\n`;

const count = z.coerce.number().int().nonnegative().catch(0);
const wholeNumber = z.string().regex(/^\d+$/).transform(BigInt).catch(0n);

/** What Redis holds of a batch. Missing counters are zero: HINCRBY creates them. */
const batchHash = z.object({
  kind: z.enum(["file", "singles"]),
  name: z.string(),
  tenant: z.string(),
  opened_at: z.coerce.number(),
  finished_at: z.coerce.number().nullable().catch(null),
  items: count,
  cursor: count,
  parts: count,
  ...(Object.fromEntries(ITEM_STATES.map((state) => [state, count])) as Record<ItemState, typeof count>),
  predict_time_ms: wholeNumber,
  output_bytes: wholeNumber,
  output_files: wholeNumber,
});

export function openLedger(redis: Redis) {
  redis.defineCommand("outlastMove", { lua: STATE_TABLE + script("move.lua"), numberOfKeys: 8 });
  redis.defineCommand("outlastOpenBatch", { lua: script("open-batch.lua"), numberOfKeys: 3 });
  redis.defineCommand("outlastPublishPart", { lua: script("publish-part.lua"), numberOfKeys: 5 });
  redis.defineCommand("outlastAdvance", { lua: script("advance.lua"), numberOfKeys: 5 });
  const scripts = redis as Redis &
    Record<"outlastMove" | "outlastOpenBatch" | "outlastPublishPart" | "outlastAdvance", Script>;

  async function standing(account: AccountName, id: BatchId): Promise<BatchStanding | null> {
    const [hash, returned] = await Promise.all([
      redis.hgetall(REDIS_KEYS.batch(account, id)),
      redis.scard(REDIS_KEYS.returned(account, id)),
    ]);
    if (Object.keys(hash).length === 0) return null;
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
      },
      counts: Object.fromEntries(ITEM_STATES.map((state) => [state, read[state]])) as Record<ItemState, number>,
      cursor: read.cursor,
      parts: read.parts,
      returned,
      sums: { predict_time_ms: read.predict_time_ms, output_bytes: read.output_bytes, output_files: read.output_files },
      finishedAtMs: read.finished_at,
    };
  }

  return {
    // ── items ─────────────────────────────────────────────────────────────────

    async move(ref: AttemptRef, step: ItemStep, options: MoveOptions): Promise<MoveAnswer> {
      const { account, batch, index, attempt } = ref;
      const { from, to } = ITEM_STEPS[step];
      const [answer, state, predictionId, left] = moveReply.parse(
        await scripts.outlastMove(
          REDIS_KEYS.bytes(account, batch),
          REDIS_KEYS.batch(account, batch),
          REDIS_KEYS.item(account, batch, index),
          REDIS_KEYS.open(account),
          REDIS_KEYS.unclear(account),
          REDIS_KEYS.account(account),
          REDIS_KEYS.returned(account, batch),
          REDIS_KEYS.unfed(account),
          JSON.stringify({
            index,
            attempt,
            member: errandId(ref),
            nowMs: String(options.nowMs),
            from: from.map(stateNumber),
            to: stateNumber(to),
            nonce: options.nonce,
            claim: step === "claim" || undefined,
            prediction: options.predictionId,
            handBack: options.handBack,
            set: options.set && flat(options.set),
            sums: options.sums && flat(options.sums),
          }),
        ),
      );
      return {
        answer,
        state:
          ITEM_STATES[state] ?? raise(`Redis knows a state ${state} of ${errandId(ref)} that this version doesn't`),
        predictionId: predictionId === "" ? null : (predictionId as PredictionId),
        left,
      };
    },

    /** Where an item stands, and its hash (empty once its attempt has ended). */
    async readItem({
      account,
      batch,
      index,
    }: Omit<AttemptRef, "attempt">): Promise<ItemByte & { readonly fields: Partial<OpenItemFields> }> {
      const [byte, fields] = await Promise.all([
        redis.getrangeBuffer(REDIS_KEYS.bytes(account, batch), index, index),
        redis.hgetall(REDIS_KEYS.item(account, batch, index)),
      ]);
      return { ...readItemByte(byte[0] ?? 0), fields };
    },

    /** States of up to 65,536 items from `start` on; items nobody has touched are `waiting`. */
    async readStates(
      account: AccountName,
      batch: BatchId,
      start: number,
      length: number,
    ): Promise<readonly ItemByte[]> {
      const wanted = Math.min(length, 65_536);
      if (wanted <= 0) return [];
      const bytes = await redis.getrangeBuffer(REDIS_KEYS.bytes(account, batch), start, start + wanted - 1);
      return Array.from({ length: wanted }, (_, at) => readItemByte(bytes[at] ?? 0));
    },

    // ── batches ───────────────────────────────────────────────────────────────

    /** Answers whether this call opened it; opening an open batch changes nothing. */
    async openBatch(batch: Batch): Promise<boolean> {
      await redis
        .multi()
        .hset(REDIS_KEYS.batchAccounts, batch.id, batch.account)
        .zadd(REDIS_KEYS.batches, batch.openedAtMs, batch.id)
        .exec();
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
        }),
      );
      return opened === 1;
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

    // ── feeding ───────────────────────────────────────────────────────────────

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

    // ── what stands still ─────────────────────────────────────────────────────

    /** Attempts that nobody has touched since `beforeMs`, the longest untouched first. */
    async untouched(account: AccountName, beforeMs: number, limit: number): Promise<readonly AttemptRef[]> {
      const members = await redis.zrange(REDIS_KEYS.open(account), 0, String(beforeMs), "BYSCORE", "LIMIT", 0, limit);
      return members.flatMap((member) => {
        const ref = parseErrandId(member);
        return ref === null ? [] : [{ account, ...ref }];
      });
    },

    async touch(ref: AttemptRef, nowMs: number): Promise<void> {
      await redis.zadd(REDIS_KEYS.open(ref.account), "XX", nowMs, errandId(ref));
    },

    /** Takes a reference out of the open ones that isn't open: its attempt has ended, or a newer one has begun. */
    async close(ref: AttemptRef): Promise<void> {
      await redis.zrem(REDIS_KEYS.open(ref.account), errandId(ref));
    },

    // ── accounts ──────────────────────────────────────────────────────────────

    /** Claims are turned away and nothing is fed until `resumeAccount`. The first reason stays. */
    async pauseAccount(account: AccountName, reason: string): Promise<boolean> {
      return (await redis.hsetnx(REDIS_KEYS.account(account), "paused", reason)) === 1;
    },

    async resumeAccount(account: AccountName): Promise<boolean> {
      return (await redis.hdel(REDIS_KEYS.account(account), "paused")) === 1;
    },

    /** Why the account is paused, or null. */
    async pausedReason(account: AccountName): Promise<string | null> {
      return redis.hget(REDIS_KEYS.account(account), "paused");
    },

    /**
     * Whether a rate from the configuration is new since a process last took it from there. A rate that a person
     * set since then by hand stands until the configuration changes.
     */
    async takeConfiguredRate(account: AccountName, name: "creates" | "polls", rate: string): Promise<boolean> {
      const key = REDIS_KEYS.account(account);
      const [[, before] = [null, null]] =
        (await redis.multi().hget(key, `configured_${name}`).hset(key, `configured_${name}`, rate).exec()) ?? [];
      return before !== rate;
    },
  };
}

type Script = (...keysAndArguments: (string | number)[]) => Promise<unknown>;

const moveReply = z.tuple([z.enum(["moved", "already", "paused", "lost"]), z.number(), z.string(), z.number()]);

function flat(fields: Readonly<Record<string, string | bigint | undefined>>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)]));
}

function ids(members: readonly string[]): readonly BatchId[] {
  return members.flatMap((member) => parseBatchId(member) ?? []);
}

function raise(message: string): never {
  throw new Error(message);
}
