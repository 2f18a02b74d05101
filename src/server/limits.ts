/**
 * What one key may ask of this server in a minute: requests, bytes of bodies, rows of batches. Counted in this process,
 * so that no request waits for it; several servers allow as many times as much.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import type { ApiLimits } from "../config.ts";
import { SECOND } from "../core/time.ts";
import type { Client } from "./clients.ts";
import { HttpProblem } from "./problems.ts";

const WINDOW_SECONDS = 60;

export type Limits = {
  /** Takes so much of what is left; throws an HttpProblem, 429, where that isn't enough. */
  readonly take: (client: Client, what: keyof ApiLimits, amount: number) => Promise<void>;
  /**
   * The same for one request that comes in pieces. One that is over the limit all alone would be refused whenever it
   * comes: it is slowed down instead.
   */
  readonly meter: (client: Client, what: keyof ApiLimits) => (amount: number) => Promise<void>;
};

export function openLimits(limits: ApiLimits, windowSeconds = WINDOW_SECONDS): Limits {
  const limiters = Object.fromEntries(
    Object.entries(limits).map(([what, points]) => [what, new RateLimiterMemory({ points, duration: windowSeconds })]),
  ) as Record<keyof ApiLimits, RateLimiterMemory>;

  /** Answers for how long there won't be as much; 0: it is taken. */
  async function missingMs(client: Client, what: keyof ApiLimits, amount: number): Promise<number> {
    try {
      await limiters[what].consume(client.id, amount);
      return 0;
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      return Math.max(refused.msBeforeNext, 1);
    }
  }

  function usedUp(what: keyof ApiLimits, forMs: number): HttpProblem {
    const detail = `this key's limit of ${limits[what]} ${what} a minute is used up`;
    return new HttpProblem(429, detail, { retryAfterSeconds: forMs / SECOND });
  }

  return {
    async take(client, what, amount) {
      const forMs = await missingMs(client, what, amount);
      if (forMs > 0) throw usedUp(what, forMs);
    },
    meter(client, what) {
      let total = 0;
      return async (amount) => {
        total += amount;
        if (amount > limits[what]) {
          throw new HttpProblem(413, `this is more than the ${limits[what]} ${what} a minute that this key may send`);
        }
        for (;;) {
          const forMs = await missingMs(client, what, amount);
          if (forMs === 0) return;
          if (total <= limits[what]) throw usedUp(what, forMs);
          await sleep(forMs);
        }
      };
    },
  };
}
