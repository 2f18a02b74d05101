/**
 * `/health`: this process is alive. `/ready`: Redis and the bucket answer, so work can be taken. Nobody needs a key to ask,
 * so what fails is named with a code alone; addresses and causes go to the log.
 */

import type { FastifyBaseLogger, FastifyPluginAsync } from "fastify";
import type { Redis } from "ioredis";
import { type Bucket, BucketError } from "../bucket/bucket.ts";
import { SECOND } from "../core/time.ts";
import { sendOutage } from "./problems.ts";

export type HealthDeps = {
  readonly redis: Pick<Redis, "ping">;
  readonly bucket: Pick<Bucket, "getRange">;
};

const REDIS_DEADLINE_MS = 2 * SECOND;
const BUCKET_DEADLINE_MS = 5 * SECOND;

/**
 * Asked for, never there: so the store answers, has the bucket and lets us read. S3's HEAD says the same of an object
 * and of a bucket that isn't there.
 */
const PROBE_KEY = "ready-probe";

export function health({ redis, bucket }: HealthDeps): FastifyPluginAsync {
  /** What the log was told of, so that who asks every second doesn't bury all else. */
  const told = new Map<string, string>();

  function tell(what: string, code: string, error: unknown, log: FastifyBaseLogger): void {
    if (told.get(what) === code) return;
    told.set(what, code);
    log.warn({ what, reason: (error as Error).message }, "this server isn't ready");
  }

  async function faultOf(
    what: string,
    answer: Promise<unknown>,
    deadlineMs: number,
    log: FastifyBaseLogger,
  ): Promise<string | null> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(() => late.reject(new Late(`no answer within ${deadlineMs / SECOND} s`)), deadlineMs);
    try {
      await Promise.race([answer, late.promise]);
      told.delete(what);
      return null;
    } catch (error) {
      const code = codeOf(error);
      tell(what, code, error, log);
      return `${what} can't be used at the moment (${code})`;
    } finally {
      clearTimeout(timer);
    }
  }

  return async (app) => {
    app.get("/health", async () => ({ status: "alive", pid: process.pid }));

    app.get("/ready", async ({ log }, reply) => {
      const faults = (
        await Promise.all([
          faultOf("Redis", redis.ping(), REDIS_DEADLINE_MS, log),
          faultOf("the bucket", bucket.getRange(PROBE_KEY, 0, 1), BUCKET_DEADLINE_MS, log),
        ])
      ).filter((fault) => fault !== null);
      return faults.length === 0 ? { status: "ready" } : sendOutage(reply, faults.join("; "));
    });
  };
}

class Late extends Error {}

function codeOf(error: unknown): string {
  if (error instanceof Late) return "timeout";
  return error instanceof BucketError ? error.code : "unreachable";
}
