/**
 * What one key may ask of this server in a minute: requests, bytes of bodies, rows of batches. Counted in this process,
 * so that no request waits for it; several servers allow as many times as much.
 */

import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import type { ApiLimits } from "../config.ts";
import { SECOND } from "../core/time.ts";
import type { Client } from "./clients.ts";
import { HttpProblem } from "./problems.ts";

const WINDOW_SECONDS = 60;

export type Limits = {
  /** Takes so much of what is left; throws an HttpProblem, 429, where that isn't enough. */
  readonly take: (client: Client, what: keyof ApiLimits, amount: number) => Promise<void>;
  /** The same for one request that comes in pieces; what is too much all alone is a 413, since waiting doesn't help. */
  readonly meter: (client: Client, what: keyof ApiLimits) => (amount: number) => Promise<void>;
};

export function openLimits(limits: ApiLimits): Limits {
  const limiters = Object.fromEntries(
    Object.entries(limits).map(([what, points]) => [what, new RateLimiterMemory({ points, duration: WINDOW_SECONDS })]),
  ) as Record<keyof ApiLimits, RateLimiterMemory>;

  async function take(client: Client, what: keyof ApiLimits, amount: number): Promise<void> {
    try {
      await limiters[what].consume(client.id, amount);
    } catch (refused) {
      if (!(refused instanceof RateLimiterRes)) throw refused;
      throw new HttpProblem(429, `this key's limit of ${limits[what]} ${what} a minute is used up`, {
        retryAfterSeconds: refused.msBeforeNext / SECOND,
      });
    }
  }

  return {
    take,
    meter(client, what) {
      let total = 0;
      return async (amount) => {
        total += amount;
        if (total > limits[what]) {
          throw new HttpProblem(
            413,
            `this key may send ${limits[what]} ${what} a minute, and no more at once: split it`,
          );
        }
        await take(client, what, amount);
      };
    },
  };
}
