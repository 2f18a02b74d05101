/** What Redis knows of an account: whether and why it is paused, and the rates last taken from the configuration. */

import type { Redis } from "ioredis";
import { type AccountName, REDIS_KEYS } from "../core/naming.ts";
import { MAX_UNCLEAR } from "./items.ts";

export function accountsOf(redis: Redis) {
  return {
    /** Claims are turned away and nothing is fed until `resumeAccount`. The first reason stays. */
    async pauseAccount(account: AccountName, reason: string): Promise<boolean> {
      return (await redis.hsetnx(REDIS_KEYS.account(account), "paused", reason)) === 1;
    },

    async resumeAccount(account: AccountName): Promise<boolean> {
      return (await redis.hdel(REDIS_KEYS.account(account), "paused")) === 1;
    },

    /** Why nothing more is bought for the account, or null: it is paused, or too many of its items are unclear. */
    async pausedReason(account: AccountName): Promise<string | null> {
      const [paused, unclear] = await Promise.all([
        redis.hget(REDIS_KEYS.account(account), "paused"),
        redis.zcard(REDIS_KEYS.unclear(account)),
      ]);
      if (paused !== null || unclear < MAX_UNCLEAR) return paused;
      return `${unclear} of its items are unclear, and nothing more is bought until some are resolved`;
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
