/** What people decide of batches: that nothing more is bought, that they end, that what ended unsaved is bought again. */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { Batch } from "../core/batch.ts";
import { type AccountName, type AttemptRef, type BatchId, batchIdsAmong, REDIS_KEYS } from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import { HOUR } from "../core/time.ts";
import type { LostSpan } from "./accounts.ts";
import type { OpenItemFields } from "./items.ts";
import { flat, type Scripts } from "./scripts.ts";

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

export function decisionsOf(redis: Redis, scripts: Scripts) {
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
    /** Nothing more of it is bought until `resumeBatch`. The first reason stays. */
    pauseBatch: (batch: Pick<Batch, "id" | "account">, reason: string) => hold(batch, "pause", reason),
    resumeBatch: (batch: Pick<Batch, "id" | "account">) => hold(batch, "resume", ""),
    /** From now on its claims are turned away; `walkCancel` does the rest. */
    cancelBatch: (batch: Pick<Batch, "id" | "account">, nowMs: number) => hold(batch, "cancel", nowMs),

    /** Canceled batches whose items haven't all been told, the oldest cancel first. */
    async cancelingBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return batchIdsAmong(await redis.zrange(REDIS_KEYS.canceling(account), 0, String(limit - 1)));
    },

    /** Whether some items of a canceled batch may not have been told yet. */
    async isCanceling({ id, account }: Pick<Batch, "id" | "account">): Promise<boolean> {
      return (await redis.zscore(REDIS_KEYS.canceling(account), id)) !== null;
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
  };
}
