/**
 * A bare Fastify, as a process of its own: `POST /add` does one `queue.add` of BullMQ's, `GET /read` one read of Redis.
 * What answers HTTP over a queue can't be faster on the same Redis: the ceiling beside our API.
 */

import { Queue } from "bullmq";
import Fastify from "fastify";
import { Redis } from "ioredis";

export type BareApiOrder = { readonly kind: "open"; readonly redisUrl: string };
export type BareApiListens = { readonly kind: "listens"; readonly url: string };

process.channel?.ref(); // the parent is what it lives for
process.on("message", (message: BareApiOrder | { readonly kind: string }) => {
  if ("redisUrl" in message) void open(message.redisUrl);
});
process.once("disconnect", () => process.exit());

async function open(redisUrl: string): Promise<void> {
  const redis = new Redis(redisUrl, { maxRetriesPerRequest: null });
  const queue = new Queue("bare-api", { connection: redis, streams: { events: { maxLen: 1_000 } } });
  const app = Fastify();
  app.post("/add", async (request, reply) => {
    const job = await queue.add("input", request.body);
    return reply.code(201).send({ id: job.id });
  });
  app.get("/read", async () => ({ value: await redis.get("bare-api:value") }));
  await redis.set("bare-api:value", "x".repeat(200));
  const listens: BareApiListens = { kind: "listens", url: await app.listen({ host: "127.0.0.1", port: 0 }) };
  process.send?.(listens);
}
