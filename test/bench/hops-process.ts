/**
 * Bare BullMQ, as a process of its own: tiny jobs go through four queues and nothing else happens to them. Each queue
 * has the concurrency of one of our stages, jobs have their options, workers their locks, and all share one connection
 * as ours do; so this is the rate that the pipeline can't exceed on the same Redis. What ours has beyond it (delays,
 * priorities, a rate limit) is left out.
 *
 * Told `open`, it opens its workers; told `go`, they begin. It tells when jobs left the last queue, 20 times a second.
 */

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { parseAccountName } from "../../src/core/naming.ts";
import { copyQueue, createQueue, followQueue, recordQueue } from "../../src/queues/queues.ts";

export type HopsOrder = { readonly kind: "open"; readonly redisUrl: string };
/** Milliseconds since 1970. */
export type HopsEnded = { readonly kind: "ended"; readonly atMs: readonly number[] };

export const HOPS = ["hop-create", "hop-follow", "hop-copy", "hop-record"] as const;
export const HOP_JOB = { removeOnComplete: true, attempts: 25 };

const TELL_EVERY_MS = 50;

process.channel?.ref(); // the parent is what it lives for
process.on("message", (message: HopsOrder | { readonly kind: string }) => {
  if ("redisUrl" in message) open(message.redisUrl);
});

function open(redisUrl: string): void {
  const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
  const account = parseAccountName("replicate");
  if (account === null) throw new TypeError("replicate is an account's name");
  const specs = [createQueue(account), followQueue(account), copyQueue, recordQueue];
  const queues = HOPS.map((name) => new Queue(name, { connection, streams: { events: { maxLen: 1_000 } } }));
  const workers = HOPS.map(
    (name, hop) =>
      new Worker(
        name,
        async (job) => {
          await queues[hop + 1]?.add("errand", job.data, {
            ...HOP_JOB,
            ...(job.id !== undefined && { jobId: job.id }),
          });
        },
        {
          connection,
          autorun: false,
          concurrency: specs[hop]?.concurrency ?? 1,
          lockDuration: 10_000,
          stalledInterval: 5_000,
        },
      ),
  );

  let ended: number[] = [];
  workers.at(-1)?.on("completed", () => ended.push(Date.now()));
  setInterval(() => {
    if (ended.length === 0) return;
    const message: HopsEnded = { kind: "ended", atMs: ended };
    process.send?.(message);
    ended = [];
  }, TELL_EVERY_MS);

  process.on("message", (message: { readonly kind: string }) => {
    if (message.kind === "go") for (const worker of workers) void worker.run();
  });
  process.once("disconnect", () => process.exit());
  void Promise.all(workers.map((worker) => worker.waitUntilReady())).then(() => process.send?.({ kind: "ready" }));
}
