/**
 * What saving goes by: which outputs aren't saved yet, how fast the fleet saves, whether the bucket seems to be down, and
 * whether the feed waits for any of it. The pace is a statistic: a crash loses a second of it.
 */

import type { Redis } from "ioredis";
import { type Breaker, CLOSED } from "../core/breaking.ts";
import type { SavingMinute } from "../core/feeding.ts";
import { type AccountName, type AttemptRef, errandId, parseErrandId, REDIS_KEYS } from "../core/naming.ts";
import { MINUTE, SECOND } from "../core/time.ts";
import type { Scripts } from "./scripts.ts";
import { breaker, readState, swapState } from "./swap-state.ts";

/** So many minutes make the pace, the one that runs among them. */
const MINUTES_READ = 5;
/** The feed tells each second; a note that old is of a feed that runs no more. */
const HELD_LATELY_MS = MINUTE;

/** An account's output that isn't saved yet and expires first. */
export type OldestUnsaved = {
  readonly expiresAtMs: number;
  /** Null where it isn't known. */
  readonly boughtAtMs: number | null;
};

export function savingOf(redis: Redis, scripts: Scripts) {
  return {
    /** The attempt's files are to be copied until then. Its last step there forgets it. */
    async noteUnsaved(ref: AttemptRef, expiresAtMs: number): Promise<void> {
      const { account, batch, index, attempt } = ref;
      await scripts.outlastNoteUnsaved(
        REDIS_KEYS.bytes(account, batch),
        REDIS_KEYS.unsaved(account),
        index,
        attempt,
        errandId(ref),
        expiresAtMs,
      );
    },

    /** Two small questions, however many wait. */
    async oldestUnsaved(account: AccountName): Promise<OldestUnsaved | null> {
      const [member, expiry] = await redis.zrange(REDIS_KEYS.unsaved(account), 0, "0", "WITHSCORES");
      const ref = member === undefined ? null : parseErrandId(member);
      if (ref === null || expiry === undefined) return null;
      const boughtAt = await redis.hget(REDIS_KEYS.item(account, ref.batch, ref.index), "intent_at");
      return { expiresAtMs: Number(expiry), boughtAtMs: boughtAt === null ? null : Number(boughtAt) };
    },

    /** What a process copied, and the slots it has, which count once for each of its minutes. */
    async addSaves(minute: number, { saved, busyMs, slots }: SavingMinute): Promise<void> {
      const key = REDIS_KEYS.saves(minute);
      await redis
        .pipeline()
        .hincrby(key, "saved", saved)
        .hincrby(key, "busy_ms", Math.round(busyMs))
        .hincrby(key, "slots", slots)
        .expire(key, ((MINUTES_READ + 1) * MINUTE) / SECOND)
        .exec();
    },

    /** The last minutes' saving, of the whole fleet. */
    async savingMinutes(nowMs: number): Promise<readonly SavingMinute[]> {
      const current = Math.floor(nowMs / MINUTE);
      const hashes = await Promise.all(
        Array.from({ length: MINUTES_READ }, (_, back) =>
          redis.hmget(REDIS_KEYS.saves(current - back), "saved", "busy_ms", "slots"),
        ),
      );
      return hashes.map(([saved, busyMs, slots]) => ({
        saved: Number(saved ?? 0),
        busyMs: Number(busyMs ?? 0),
        slots: Number(slots ?? 0),
      }));
    },

    async bucketBreaker(): Promise<Breaker> {
      return readState(breaker, await redis.hget(REDIS_KEYS.bucket, "breaker")) ?? CLOSED;
    },

    async changeBucketBreaker(decide: (before: Breaker) => Breaker): Promise<Breaker> {
      return swapState<Breaker>({ redis, scripts }, REDIS_KEYS.bucket, "breaker", breaker, CLOSED, decide);
    },

    /** Why less of the account is fed than could be; null: no reason. Told by every feed. */
    async noteHeld(account: AccountName, reason: string | null): Promise<void> {
      const key = REDIS_KEYS.held(account);
      await (reason === null ? redis.del(key) : redis.set(key, reason, "PX", HELD_LATELY_MS));
    },
  };
}
