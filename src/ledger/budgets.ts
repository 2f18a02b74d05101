/**
 * The budget of an account, which all processes share: the pace of its creates and of its reads, whether its provider
 * seems to be down, what its requests came to, and the bucket of reads that cancels, sweeps and audits share.
 *
 * How a state changes stands in `swap-state.ts`.
 */

import type { Redis } from "ioredis";
import { RateLimiterRedis, RateLimiterRes } from "rate-limiter-flexible";
import { z } from "zod";
import { type Breaker, CLOSED } from "../core/breaking.ts";
import { type AccountName, REDIS_KEYS } from "../core/naming.ts";
import type { Pace } from "../core/pacing.ts";
import { SECOND } from "../core/time.ts";
import type { Scripts } from "./scripts.ts";
import { breaker, readState, swapState } from "./swap-state.ts";

/** The provider's two limits. */
export type Limited = "creates" | "reads";

export type Budgets = {
  /** Null: no worker has taken a rate from its settings yet. */
  readonly paces: Readonly<Record<Limited, Pace | null>>;
  readonly breakers: Readonly<Record<Limited, Breaker>>;
};

const refusal = z.object({ atMs: z.number(), untilMs: z.number(), said: z.string() });
const pace = z.object({
  perMinute: z.number().positive(),
  toleratesBurst: z.boolean(),
  byHand: z.boolean(),
  slow: z
    .object({ sinceMs: z.number(), fromMs: z.number(), perMinute: z.number(), ceiling: z.number().nullable() })
    .nullable(),
  tier: z
    .object({ perMinute: z.number(), burst: z.number(), toldAtMs: z.number(), believedForMs: z.number() })
    .nullable(),
  lastRefusal: refusal.nullable(),
}) satisfies z.ZodType<Pace>;

const FIELDS = ["pace creates", "pace reads", "breaker creates", "breaker reads"] as const;

export function budgetsOf(redis: Redis, scripts: Scripts) {
  const limiters = new Map<string, RateLimiterRedis>();

  function change<T>(
    account: AccountName,
    field: (typeof FIELDS)[number],
    schema: z.ZodType<T>,
    initial: T,
    decide: (before: T) => T,
  ): Promise<T> {
    return swapState({ redis, scripts }, REDIS_KEYS.budget(account), field, schema, initial, decide);
  }

  return {
    async readBudgets(account: AccountName): Promise<Budgets> {
      const [creates, reads, ofCreates, ofReads] = await redis.hmget(REDIS_KEYS.budget(account), ...FIELDS);
      return {
        paces: { creates: readState(pace, creates), reads: readState(pace, reads) },
        breakers: {
          creates: readState(breaker, ofCreates) ?? CLOSED,
          reads: readState(breaker, ofReads) ?? CLOSED,
        },
      };
    },

    async changePace(account: AccountName, of: Limited, initial: Pace, decide: (before: Pace) => Pace): Promise<Pace> {
      return change<Pace>(account, `pace ${of}`, pace, initial, decide);
    },

    async changeBreaker(account: AccountName, of: Limited, decide: (before: Breaker) => Breaker): Promise<Breaker> {
      return change<Breaker>(account, `breaker ${of}`, breaker, CLOSED, decide);
    },

    /**
     * Takes one of the reads that are left beside polls: `perMinute` of them, evenly. Answers 0, or in how many
     * milliseconds there is one.
     */
    async takeRead(account: AccountName, perMinute: number): Promise<number> {
      const key = REDIS_KEYS.reads(account);
      const { points, seconds } = readWindow(perMinute);
      const name = `${key} ${points} ${seconds}`;
      const limiter =
        limiters.get(name) ?? new RateLimiterRedis({ storeClient: redis, keyPrefix: "", points, duration: seconds });
      limiters.set(name, limiter);
      try {
        await limiter.consume(key);
        return 0;
      } catch (refused) {
        if (!(refused instanceof RateLimiterRes)) throw refused;
        return Math.min(Math.max(refused.msBeforeNext, 1), seconds * SECOND);
      }
    },

    /** How many of them are left in the window that runs. */
    async readsLeft(account: AccountName, perMinute: number): Promise<number> {
      return Math.max(readWindow(perMinute).points - Number((await redis.get(REDIS_KEYS.reads(account))) ?? 0), 0);
    },

    /** What an account's requests came to, by `<request> <outcome>`, and its polls, by `polled <kind>`; a statistic. */
    async addCounts(account: AccountName, counts: ReadonlyMap<string, number>): Promise<void> {
      const pipeline = redis.pipeline();
      for (const [name, count] of counts) pipeline.hincrby(REDIS_KEYS.requests(account), name, count);
      await pipeline.exec();
    },

    async requestCounts(account: AccountName): Promise<Readonly<Record<string, number>>> {
      const counts = await redis.hgetall(REDIS_KEYS.requests(account));
      return Object.fromEntries(Object.entries(counts).map(([name, count]) => [name, Number(count)]));
    },
  };
}

/** Short, so that a window's edge lets no more than a second's worth through. */
function readWindow(perMinute: number): { readonly points: number; readonly seconds: number } {
  const seconds = Math.max(Math.ceil(60 / perMinute), 1);
  return { points: Math.max(Math.floor((perMinute * seconds) / 60), 1), seconds };
}
