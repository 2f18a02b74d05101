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
  readonly bucket: Pick<Bucket, "head" | "url">;
};

const REDIS_DEADLINE_MS = 2 * SECOND;
const BUCKET_DEADLINE_MS = 5 * SECOND;

/** Looked for, never there: asking for it proves that the store answers and lets us read. */
const PROBE_KEY = "ready-probe";

export function health({ redis, bucket }: HealthDeps): FastifyPluginAsync {
  return async (app) => {
    app.get("/health", async () => ({ status: "alive", pid: process.pid }));

    app.get("/ready", async ({ log }, reply) => {
      const faults = (
        await Promise.all([
          faultOf("Redis", redis.ping(), REDIS_DEADLINE_MS, log),
          faultOf("the bucket", bucket.head(PROBE_KEY), BUCKET_DEADLINE_MS, log),
        ])
      ).filter((fault) => fault !== null);
      return faults.length === 0 ? { status: "ready" } : sendOutage(reply, faults.join("; "));
    });
  };
}

class Late extends Error {}

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
    return null;
  } catch (error) {
    log.warn({ what, reason: (error as Error).message }, "this server isn't ready");
    return `${what} can't be used at the moment (${codeOf(error)})`;
  } finally {
    clearTimeout(timer);
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Late) return "timeout";
  return error instanceof BucketError ? error.code : "unreachable";
}
