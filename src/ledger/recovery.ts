/** What puts working state right that Redis has lost: whole batches, or the last moments of those that it still knows. */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { Batch } from "../core/batch.ts";
import { REDIS_KEYS } from "../core/naming.ts";
import type { RecalledBatch } from "../core/recalling.ts";
import { HOUR } from "../core/time.ts";
import type { LostSpan } from "./accounts.ts";
import { listBatch } from "./batches.ts";
import { flat, type Scripts } from "./scripts.ts";

/** A batch as the bucket knows it. */
export type RestoredBatch = RecalledBatch & {
  readonly batch: Batch;
  /** Rows below it were given out. */
  readonly fed: number;
  /** The row that the feed goes on with. */
  readonly cursor: number;
  /** The first index of each part; of a batch that came as a file, 0. */
  readonly parts: readonly number[];
  readonly duplicates: readonly string[];
  /** Which attempt, as its errand's id, holds which of the predictions that the provider's list may still show. */
  readonly bound: ReadonlyMap<string, string>;
  /** By when Redis had lost the batch. */
  readonly lostByMs: number;
  /** How many acts the bucket has of it. */
  readonly acts: number;
  /** Why a person paused it, or null. */
  readonly paused: string | null;
  readonly canceledAtMs: number | null;
  readonly finishedAtMs: number | null;
};

export function recoveryOf(redis: Redis, scripts: Scripts) {
  return {
    /**
     * Answers whether it was put back; a batch that Redis knows is left as it is. Nobody sees the batch before all of it is
     * there.
     */
    async restoreBatch(restored: RestoredBatch): Promise<boolean> {
      await listBatch(redis, restored.batch);
      return (await restoreItems(restored, scripts)) && (await restoreWhole(restored, scripts));
    },

    /**
     * Items that may have been bought between these moments on a Redis that was lost; `fed`: rows below it were given
     * out, as the bucket says; `cursor`: the feed goes on with this row. Answers how many are unclear now; null: the
     * account is open on this Redis by now, and nothing was changed.
     */
    async doubtLost(
      { id, account }: Pick<Batch, "id" | "account">,
      { fed, cursor }: { readonly fed: number; readonly cursor: number },
      indexes: readonly number[],
      { fromMs, toMs }: LostSpan,
    ): Promise<number | null> {
      const doubted = z
        .number()
        .parse(
          await scripts.outlastDoubtLost(
            REDIS_KEYS.bytes(account, id),
            REDIS_KEYS.batch(account, id),
            REDIS_KEYS.unclear(account),
            REDIS_KEYS.claimed(account),
            REDIS_KEYS.open(account),
            REDIS_KEYS.returned(account, id),
            REDIS_KEYS.account(account),
            REDIS_KEYS.epoch(account),
            id,
            REDIS_KEYS.itemsOf(account, id),
            fromMs,
            toMs,
            fed,
            cursor,
            ...indexes,
          ),
        );
      return doubted === -1 ? null : doubted;
    },
  };
}

/** Items in one script: others wait for some milliseconds. */
const RESTORED_AT_ONCE = 2_000;

/** False: Redis knows the batch. */
async function restoreItems(restored: RestoredBatch, scripts: Scripts): Promise<boolean> {
  const { id, account } = restored.batch;
  const bound = [...restored.bound];
  for (let at = 0; at < Math.max(restored.unclear.length, bound.length); at += RESTORED_AT_ONCE) {
    const unclear = restored.unclear.slice(at, at + RESTORED_AT_ONCE);
    const answer = await scripts.outlastRestoreItems(
      REDIS_KEYS.batch(account, id),
      REDIS_KEYS.bound(account, Math.floor(restored.lostByMs / HOUR)),
      REDIS_KEYS.itemsOf(account, id),
      JSON.stringify({
        unclear: unclear.map(({ index, fromMs, toMs, cancel }) => [index, String(fromMs), String(toMs), cancel]),
        bound: bound.slice(at, at + RESTORED_AT_ONCE).flat(),
      }),
    );
    if (answer !== 1) return false;
  }
  return true;
}

/** False: Redis knows the batch. */
async function restoreWhole(restored: RestoredBatch, scripts: Scripts): Promise<boolean> {
  const { batch, fed, cursor, counts, sums, failures } = restored;
  const { id, account, items, openedAtMs } = batch;
  const isOpen = restored.finishedAtMs === null && items > 0;
  const isHeld = restored.paused !== null || restored.canceledAtMs !== null;
  const answer = await scripts.outlastRestoreBatch(
    REDIS_KEYS.batch(account, id),
    REDIS_KEYS.bytes(account, id),
    REDIS_KEYS.parts(account, id),
    REDIS_KEYS.failures(account, id),
    REDIS_KEYS.latest(account, id),
    REDIS_KEYS.duplicates(account, id),
    REDIS_KEYS.unclear(account),
    REDIS_KEYS.unfed(account),
    REDIS_KEYS.unfinished(account),
    REDIS_KEYS.canceling(account),
    id,
    Buffer.from(restored.bytes),
    JSON.stringify({
      fields: flat({
        kind: batch.kind,
        name: batch.name,
        tenant: batch.tenant,
        retry_failed: String(batch.retryFailed),
        opened_at: String(openedAtMs),
        items: String(items),
        cursor: String(cursor),
        noted: String(fed),
        parts: String(restored.parts.length),
        acts: String(restored.acts),
        paused: restored.paused ?? undefined,
        canceled_at: restored.canceledAtMs === null ? undefined : String(restored.canceledAtMs),
        finished_at: restored.finishedAtMs === null ? undefined : String(restored.finishedAtMs),
        ...Object.fromEntries([...counts].map(([state, count]) => [state, String(count)])),
        ...sums,
      }),
      openedAt: String(openedAtMs),
      parts: batch.kind === "singles" ? restored.parts : [],
      failures: [...failures].flatMap(([group, { count, example }]) =>
        flat({ [`count:${group}`]: String(count), [`example:${group}`]: String(example) }),
      ),
      latest: restored.latest,
      duplicates: restored.duplicates,
      unclear: restored.unclear.flatMap(({ index, attempt, toMs }) => [String(toMs), `${index}-${attempt}`]),
      unfed: isOpen && !isHeld && cursor < items,
      unfinished: isOpen,
      canceling: isOpen && restored.canceledAtMs !== null && String(restored.canceledAtMs),
    }),
  );
  return answer === 1;
}
