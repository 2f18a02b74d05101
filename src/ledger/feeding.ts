/** What a feed goes by: which batches have rows to give out, how far each is given out, and what came back. */

import type { Redis } from "ioredis";
import type { Batch } from "../core/batch.ts";
import { readItemByte } from "../core/item.ts";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  batchIdsAmong,
  errandId,
  REDIS_KEYS,
} from "../core/naming.ts";
import type { Scripts } from "./scripts.ts";

export function feedingOf(redis: Redis, scripts: Scripts) {
  return {
    /** The bucket says by now that rows below this index may be given out. */
    async noteWindow({ id, account }: Pick<Batch, "id" | "account">, noted: number): Promise<void> {
      await redis.hset(REDIS_KEYS.batch(account, id), "noted", noted);
    },

    /** Batches with rows that haven't been fed, oldest first. */
    async unfedBatches(account: AccountName, limit: number): Promise<readonly BatchId[]> {
      return batchIdsAmong(await redis.zrange(REDIS_KEYS.unfed(account), 0, String(limit - 1)));
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
