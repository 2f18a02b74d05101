/** The Redis of a chaos run: synced every second, and counted over all its lives. */

import { Redis } from "ioredis";
import { redisUse } from "../bench/redis-use.ts";
import { startTestRedis } from "../support/redis-server.ts";

export type ChaosRedis = AsyncDisposable & {
  readonly url: string;
  /** Restarted from what it was so long before it was killed. */
  loseLast(lostMs: number): Promise<void>;
  loseAll(): Promise<void>;
  /** What all lives of it have read from sockets: what came in one piece counts once, so this is round trips. */
  roundTrips(): Promise<number>;
};

export async function startChaosRedis(): Promise<ChaosRedis> {
  const server = await startTestRedis({ args: ["--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0"] });
  const client = new Redis(server.url, { maxRetriesPerRequest: 20 });
  client.on("error", () => {}); // it reconnects
  const trips = async () => (await redisUse(client)).reads;
  let tripsBefore = 0;
  return {
    url: server.url,
    async loseLast(lostMs) {
      tripsBefore += await trips();
      await server.loseLast(lostMs);
    },
    async loseAll() {
      await client.flushall();
    },
    roundTrips: async () => tripsBefore + (await trips()),
    async [Symbol.asyncDispose]() {
      client.disconnect();
      await server.close();
    },
  };
}
