/** How often a provider's webhooks came to what, by account: a statistic, which a repetition may count twice. */

import type { Redis } from "ioredis";
import { type AccountName, REDIS_KEYS } from "../core/naming.ts";

export function webhookCountsOf(redis: Redis) {
  return {
    async countWebhook(account: AccountName, outcome: string): Promise<void> {
      await redis.hincrby(REDIS_KEYS.webhooks(account), outcome, 1);
    },

    /** By outcome, as `server/webhooks.ts` has them; those that never came are missing. */
    async webhookCounts(account: AccountName): Promise<Readonly<Record<string, number>>> {
      const counts = await redis.hgetall(REDIS_KEYS.webhooks(account));
      return Object.fromEntries(Object.entries(counts).map(([outcome, count]) => [outcome, Number(count)]));
    },
  };
}
