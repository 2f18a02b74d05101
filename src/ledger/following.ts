/**
 * What following predictions goes by, of an account: how long runs take, up to which age sweeps tell of ends, whether
 * webhooks do. All of it is advice: where it is lost or wrong, ends are known later, or asked for more often.
 */

import type { Redis } from "ioredis";
import { type AccountName, REDIS_KEYS } from "../core/naming.ts";
import { bucketOf, isBucket } from "../core/run-times.ts";
import { DAY, SECOND } from "../core/time.ts";
import type { Scripts } from "./scripts.ts";

/** Some twenty a model; its bytes are bounded by the longest name that is kept. */
const MAX_RUN_FIELDS = 2_000;
const MAX_MODEL_LENGTH = 120;
const DAYS_READ = 2;

/** What the last sweep of the list came to, and what may be relied on by it. */
export type SweepNote = {
  /** Until then sweeps tell of ends, */
  readonly untilMs: number;
  /** of predictions up to this age. */
  readonly toAgeMs: number;
  readonly pauseMs: number;
  readonly pages: number;
};

export function followingOf(redis: Redis, scripts: Scripts) {
  return {
    async learnRun(account: AccountName, model: string, runMs: number, nowMs: number): Promise<void> {
      await scripts.outlastLearnRun(
        REDIS_KEYS.runs(account, dayOf(nowMs)),
        bucketOf(runMs),
        model.slice(0, MAX_MODEL_LENGTH),
        MAX_RUN_FIELDS,
        ((DAYS_READ + 1) * DAY) / SECOND,
      );
    },

    /** How many runs of each model ended in each bucket, today and yesterday. */
    async runCounts(account: AccountName, nowMs: number): Promise<ReadonlyMap<string, ReadonlyMap<number, number>>> {
      const days = Array.from({ length: DAYS_READ }, (_, back) => dayOf(nowMs) - back);
      const hashes = await Promise.all(days.map((day) => redis.hgetall(REDIS_KEYS.runs(account, day))));
      const counts = new Map<string, Map<number, number>>();
      for (const [field, count] of hashes.flatMap((hash) => Object.entries(hash))) {
        const [, digits, model = ""] = /^(\d+) (.*)$/s.exec(field) ?? [];
        const bucket = Number(digits);
        if (!isBucket(bucket)) continue;
        const ofModel = counts.get(model) ?? new Map<number, number>();
        counts.set(model, ofModel.set(bucket, (ofModel.get(bucket) ?? 0) + Number(count)));
      }
      return counts;
    },

    /** `woken`: how many polls it brought forward, for the statistics. */
    async noteSwept(
      account: AccountName,
      { untilMs, toAgeMs, pauseMs, pages }: SweepNote,
      woken: number,
    ): Promise<void> {
      const key = REDIS_KEYS.following(account);
      const noted = {
        cover_until: untilMs,
        cover_to_age: Math.round(toAgeMs),
        sweep_pause: pauseMs,
        sweep_pages: pages,
      };
      await redis.pipeline().hset(key, noted).hincrby(key, "sweep_woken", woken).exec();
    },

    /** A create asked for the provider's webhook. */
    async noteTold(account: AccountName, nowMs: number): Promise<void> {
      await redis.hset(REDIS_KEYS.following(account), "told_at", nowMs);
    },

    /** The last sweep, the polls that all of them brought forward, and when a webhook was last asked for; 0: never. */
    async readFollowing(
      account: AccountName,
    ): Promise<SweepNote & { readonly woken: number; readonly toldAtMs: number }> {
      const hash = await redis.hgetall(REDIS_KEYS.following(account));
      const number = (field: string): number => Number(hash[field] ?? 0);
      return {
        untilMs: number("cover_until"),
        toAgeMs: number("cover_to_age"),
        pauseMs: number("sweep_pause"),
        pages: number("sweep_pages"),
        woken: number("sweep_woken"),
        toldAtMs: number("told_at"),
      };
    },

    /** Attempts that were last touched between two moments: bought then, or on their way to it, or being kept. */
    async touchedBetween(account: AccountName, fromMs: number, toMs: number): Promise<number> {
      return redis.zcount(REDIS_KEYS.open(account), fromMs, toMs);
    },
  };
}

function dayOf(ms: number): number {
  return Math.floor(ms / DAY);
}
