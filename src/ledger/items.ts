/** Where items stand, and what the open ones need. The one transition is `move` (move.lua). */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { BatchSums } from "../core/batch.ts";
import {
  ITEM_STATES,
  ITEM_STEPS,
  type ItemByte,
  type ItemState,
  type ItemStep,
  readItemByte,
  stateNumber,
} from "../core/item.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  errandId,
  parseErrandId,
  REDIS_KEYS,
} from "../core/naming.ts";
import { WAKERS, type Waker } from "../core/polling.ts";
import type { PredictionId } from "../core/prediction.ts";
import { HOUR } from "../core/time.ts";
import { BOUND_FOR_HOURS, flat, type Scripts } from "./scripts.ts";

/** Each is told in move.lua. */
const MOVE_ANSWERS = ["moved", "already", "retried", "paused", "canceled", "unopened", "taken", "lost"] as const;

export type MoveAnswer = {
  readonly answer: (typeof MOVE_ANSWERS)[number];
  /** Where the item stands now. */
  readonly state: ItemState;
  readonly predictionId: PredictionId | null;
  /** Items of the batch that haven't ended, unclear ones among them. */
  readonly left: number;
  /** When the intent that stands was written; null where there is none. */
  readonly intentAtMs: number | null;
  /** Who woke the item since its last poll; undefined: nobody did, or nobody that is counted. */
  readonly wokenBy: Waker | undefined;
};

export type MoveOptions = {
  readonly nowMs: number;
  /** For `claim` the nonce to write; for other steps: only if the item's intent carries it. */
  readonly nonce?: string;
  /** For `bind` and `adopt`. */
  readonly predictionId?: PredictionId;
  /** An earlier attempt of this very item may hold that prediction. */
  readonly reuse?: boolean;
  /** For `giveBack`: this errand ends here, so the feed is to give the row out again. */
  readonly handBack?: boolean;
  /** Fields of the item's hash to write with the step. */
  readonly set?: Partial<OpenItemFields>;
  /** What to add to the batch's sums with the step that ends the attempt; whole numbers. */
  readonly sums?: Partial<BatchSums>;
  /** With the step that ends the attempt: which group of failures it belongs to; whether it has files in the bucket. */
  readonly failure?: string;
  readonly hasFiles?: boolean;
  /** With `withdraw`: whoever says so knows that no Redis can have lost that it was bought. */
  readonly unbought?: boolean;
  /** With `fail`: another attempt follows, if the batch's people said so for what is the provider's own failure. */
  readonly retry?: { readonly recordedAtMs: number };
};

/**
 * An open item's hash: small, and deleted when its attempt ends. All values are text, as Redis keeps them. What was asked of
 * the item stands there too, as `wake` and `cancel`: scripts alone read those.
 */
export type OpenItemFields = {
  readonly nonce: string;
  readonly intent_at: string;
  /** Where a claim was lost with Redis: it was made between this and `intent_at`. */
  readonly intent_from: string;
  readonly prediction_id: string;
  /** The row's own id, and where its producer wants the answer; kept here so that `record` needn't read the row. */
  readonly row_id: string;
  readonly reply_to: string;
  /** What the row's client is told by its webhook, comma-separated. */
  readonly webhook_events: string;
  /** When the prediction is to be ended, where its client said so (ms). */
  readonly deadline_at: string;
  /** Its prediction was found on the provider's list, and nothing else says that it is ours. */
  readonly by_list: string;
  /** The provider's word for where the running prediction stood, at the last poll or when the list showed that it runs. */
  readonly status: string;
  /** When it began to run, in the provider's words. */
  readonly started_at: string;
  /** When a person opened the next attempt (ms), where Redis had lost even that this one had ended. */
  readonly redriven: string;
  /** How the attempt ends: JSON, or the word `bucket` where it is too large for here (`src/bucket/endings.ts`). */
  readonly ending: string;
  /** What copy has done so far (`src/core/copying.ts`). */
  readonly progress: string;
  /** When a poll first saw that it succeeded, with an output that isn't whole (ms). */
  readonly incomplete_since: string;
};

/** An item whose prediction runs, as far as we know. */
export type RunningItem = {
  readonly ref: AttemptRef;
  /** As it was seen last, and since when it runs by that; null: it wasn't seen yet. */
  readonly status: string | null;
  readonly startedAt: string | null;
  /** Something was asked of it. */
  readonly marked: boolean;
  /** A poll saw that it succeeded, with an output that isn't whole. */
  readonly incomplete: boolean;
};

/** What was asked of an item since its last poll. */
export type TakenMarks = {
  readonly woken: boolean;
  readonly wokenBy: Waker | undefined;
  readonly cancel: boolean;
  readonly byList: boolean;
};

/** What is known of a request that was sent: when (between two moments). */
export type OpenIntent = {
  readonly ref: AttemptRef;
  readonly nonce: string | null;
  readonly fromMs: number;
  readonly toMs: number;
};

/** Undefined: nobody did, or whoever did left no name. */
const waker = z.enum(WAKERS).optional().catch(undefined);
const moveReply = z.tuple([z.enum(MOVE_ANSWERS), z.number(), z.string(), z.number(), z.string(), waker]);

/** So many unclear items of an account, and nothing more is bought until some are resolved. */
export const MAX_UNCLEAR = 20;
/** A prediction is looked for among those bound in this hour and in so many before it; the scripts keep an hour so long. */
const BOUND_HOURS = BOUND_FOR_HOURS - 1;

export function itemsOf(redis: Redis, scripts: Scripts) {
  /** Leaves word for whoever works on the attempt; answers where it stands, null if it isn't the item's any more. */
  async function markItem(
    ref: AttemptRef,
    mark: "wake" | "cancel" | "redriven" | "progress" | "incomplete_since" | "status" | "started_at",
    value: string = "1",
  ): Promise<ItemState | null> {
    const { account, batch, index, attempt } = ref;
    const state = z
      .number()
      .parse(
        await scripts.outlastMarkItem(
          REDIS_KEYS.bytes(account, batch),
          REDIS_KEYS.item(account, batch, index),
          index,
          attempt,
          mark,
          value,
        ),
      );
    return state === -1 ? null : (ITEM_STATES[state] ?? null);
  }

  return {
    async move(ref: AttemptRef, step: ItemStep, options: MoveOptions): Promise<MoveAnswer> {
      const { account, batch, index, attempt } = ref;
      const { from, to } = ITEM_STEPS[step];
      const hours = hoursBackFrom(options.nowMs);
      const [answer, state, predictionId, left, intentAt, wokenBy] = moveReply.parse(
        await scripts.outlastMove(
          REDIS_KEYS.bytes(account, batch),
          REDIS_KEYS.batch(account, batch),
          REDIS_KEYS.item(account, batch, index),
          REDIS_KEYS.open(account),
          REDIS_KEYS.unclear(account),
          REDIS_KEYS.account(account),
          REDIS_KEYS.returned(account, batch),
          REDIS_KEYS.unfed(account),
          REDIS_KEYS.failures(account, batch),
          REDIS_KEYS.latest(account, batch),
          REDIS_KEYS.claimed(account),
          REDIS_KEYS.epoch(account),
          REDIS_KEYS.unfinished(account),
          REDIS_KEYS.unsaved(account),
          ...hours.map((hour) => REDIS_KEYS.bound(account, hour)),
          JSON.stringify({
            index,
            attempt,
            member: errandId(ref),
            nowMs: String(options.nowMs),
            from: from.map(stateNumber),
            to: stateNumber(to),
            nonce: options.nonce,
            ...((step === "claim" || (step === "withdraw" && options.unbought !== true)) && { believes: true }),
            ...(step === "claim" && { claim: true, maxUnclear: MAX_UNCLEAR }),
            prediction: options.predictionId,
            reuse: options.reuse,
            handBack: options.handBack,
            set: options.set && flat(options.set),
            sums: options.sums && flat(options.sums),
            failure: options.failure,
            hasFiles: options.hasFiles,
            retry: options.retry && String(options.retry.recordedAtMs),
          }),
        ),
      );
      return {
        answer,
        state:
          ITEM_STATES[state] ?? raise(`Redis knows a state ${state} of ${errandId(ref)} that this version doesn't`),
        predictionId: predictionId === "" ? null : (predictionId as PredictionId),
        left,
        intentAtMs: intentAt === "" ? null : Number(intentAt),
        wokenBy,
      };
    },

    /** Attempts whose intent is written and whose prediction nobody knows: unclear ones, or those just being sent. */
    async intents(account: AccountName, which: "unclear" | "claimed", limit: number): Promise<readonly OpenIntent[]> {
      const members = await redis.zrange(REDIS_KEYS[which](account), 0, String(limit - 1));
      const refs = members.flatMap((member) => {
        const ref = parseErrandId(member);
        return ref === null ? [] : [{ account, ...ref }];
      });
      return Promise.all(
        refs.map(async (ref) => {
          const key = REDIS_KEYS.item(account, ref.batch, ref.index);
          const [nonce, intentAt, intentFrom] = await redis.hmget(key, "nonce", "intent_at", "intent_from");
          const toMs = Number(intentAt ?? Number.NaN);
          return { ref, nonce: nonce ?? null, fromMs: Number(intentFrom ?? toMs), toMs };
        }),
      );
    },

    /** Which attempts hold these predictions, as errand ids; predictions bound long ago are left out. */
    async holdersAmong(
      account: AccountName,
      predictions: readonly PredictionId[],
      nowMs: number,
    ): Promise<ReadonlyMap<PredictionId, string>> {
      if (predictions.length === 0) return new Map();
      const held = await Promise.all(
        hoursBackFrom(nowMs).map((hour) => redis.hmget(REDIS_KEYS.bound(account, hour), ...predictions)),
      );
      return new Map(
        predictions.flatMap((id, at) => {
          const errand = held.map((hour) => hour[at]).find((found) => found != null);
          return errand == null ? [] : [[id, errand] as const];
        }),
      );
    },

    /**
     * Those of these attempts that run; whether something was asked of them that their next poll is to do (`marked`), and
     * whether a poll has seen their end, and waits for the rest of the output (`incomplete`).
     */
    async runningAmong(refs: readonly AttemptRef[]): Promise<readonly RunningItem[]> {
      const looked = await Promise.all(
        refs.map(async (ref) => {
          const { account, batch, index } = ref;
          const [byte, [status = null, startedAt = null, incompleteSince, ...marks], canceled] = await Promise.all([
            redis.getrangeBuffer(REDIS_KEYS.bytes(account, batch), index, index),
            redis.hmget(
              REDIS_KEYS.item(account, batch, index),
              "status",
              "started_at",
              "incomplete_since",
              "wake",
              "cancel",
            ),
            redis.hexists(REDIS_KEYS.batch(account, batch), "canceled_at"),
          ]);
          const { attempt, state } = readItemByte(byte[0] ?? 0);
          const marked = canceled === 1 || marks.some((mark) => mark != null);
          return attempt === ref.attempt && state === "running"
            ? [{ ref, status, startedAt, marked, incomplete: incompleteSince != null }]
            : [];
        }),
      );
      return looked.flat();
    },

    /** Notes a prediction that was bought for an attempt which holds another. Noting it again changes nothing. */
    async addDuplicate({ account, batch }: AttemptRef, prediction: PredictionId): Promise<void> {
      await redis.sadd(REDIS_KEYS.duplicates(account, batch), prediction);
    },

    markItem,

    /** When this was first asked of the attempt (ms): now, or before; 0 where nobody works on it any more. */
    async incompleteSince(ref: AttemptRef, nowMs: number): Promise<number> {
      await markItem(ref, "incomplete_since", String(nowMs));
      return Number(await redis.hget(REDIS_KEYS.item(ref.account, ref.batch, ref.index), "incomplete_since"));
    },

    /** What was asked of a running item since its last poll, which saw it in `status`; null: it saw nothing. */
    async takeMarks(
      { account, batch, index, attempt }: AttemptRef,
      status: string | null,
      startedAt: string | null = null,
    ): Promise<TakenMarks> {
      const [woken, cancel, byList] = z
        .tuple([z.string(), z.number(), z.number()])
        .parse(
          await scripts.outlastTakeMarks(
            REDIS_KEYS.bytes(account, batch),
            REDIS_KEYS.item(account, batch, index),
            REDIS_KEYS.batch(account, batch),
            index,
            attempt,
            status ?? "",
            startedAt ?? "",
          ),
        );
      return { woken: woken !== "", wokenBy: waker.parse(woken), cancel: cancel === 1, byList: byList === 1 };
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
  };
}

function raise(message: string): never {
  throw new Error(message);
}

function hoursBackFrom(nowMs: number): readonly number[] {
  const hour = Math.floor(nowMs / HOUR);
  return Array.from({ length: BOUND_HOURS + 1 }, (_, back) => hour - back);
}
