/** What servers and workers sign with: made by whoever needs it first, the same for the whole fleet. */

import { randomBytes } from "node:crypto";
import type { Redis } from "ioredis";
import { REDIS_KEYS } from "../core/naming.ts";

export function secretsOf(redis: Redis) {
  return {
    /** 32 random bytes for one use, such as `webhooks:<tenant>`. A Redis that was lost brings new ones. */
    async secretFor(use: string): Promise<Buffer> {
      const [, [, kept] = [null, null]] =
        (await redis
          .multi()
          .hsetnx(REDIS_KEYS.secrets, use, randomBytes(32).toString("base64"))
          .hget(REDIS_KEYS.secrets, use)
          .exec()) ?? [];
      if (typeof kept !== "string") throw new Error("Redis kept no secret to sign with");
      return Buffer.from(kept, "base64");
    },
  };
}
