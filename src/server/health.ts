/** `/health`: this process is alive. `/ready`: Redis and the bucket answer, so work can be taken. */

import type { FastifyPluginAsync } from "fastify";
import type { Redis } from "ioredis";
import type { Bucket } from "../bucket/bucket.ts";
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

    app.get("/ready", async (_request, reply) => {
      const faults = (
        await Promise.all([
          faultOf("Redis", redis.ping(), REDIS_DEADLINE_MS),
          faultOf(`the bucket ${bucket.url}`, bucket.head(PROBE_KEY), BUCKET_DEADLINE_MS),
        ])
      ).filter((fault) => fault !== null);
      return faults.length === 0 ? { status: "ready" } : sendOutage(reply, faults.join("; "));
    });
  };
}

async function faultOf(what: string, answer: Promise<unknown>, deadlineMs: number): Promise<string | null> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(() => late.resolve(`${what} doesn't answer within ${deadlineMs / SECOND} s`), deadlineMs);
  try {
    return await Promise.race([answer.then(() => null), late.promise]);
  } catch (error) {
    return `${what}: ${(error as Error).message}`;
  } finally {
    clearTimeout(timer);
  }
}
