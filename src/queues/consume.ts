/**
 * Runs a stage on a queue: reads each job once, at this edge, and turns the stage's outcome into what BullMQ does.
 *
 * Locks last 10 s and are scanned for every 2 s, so what a killed worker held goes on within 15 s: the two add up, and
 * a scan that comes a moment before the last one's key has expired is left out, so it counts twice. A stalled job is
 * simply run again, however often: the item's byte bounds the harm, not the count.
 *
 * What failed and was then snoozed begins to count its tries anew: an errand that never ends would use them up by the
 * troubles of weeks, and pause longest after the newest of them.
 */

import assert from "node:assert/strict";
import { DelayedError, Queue, RateLimitError, UnrecoverableError, Worker } from "bullmq";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import type { StageOutcome } from "../core/outcome.ts";
import { backoffMs } from "../core/retrying.ts";
import { SECOND } from "../core/time.ts";
import type { QueueSpec } from "./queues.ts";

/** BullMQ keeps each try's stack with the job, and the keeper gives a failed job its tries again and again. */
const KEPT_STACKS = 3;

export type Consumer = {
  readonly name: string;
  /** Stops taking jobs and lets running ones end; resolves when they have. */
  close(): Promise<void>;
  /** Asks what still runs to stop now. */
  abort(reason: string): void;
};

/** `value` becomes the job's return value; only the inputs queue answers its producers so. */
export function consume<Payload>(
  spec: QueueSpec<Payload>,
  stage: (payload: Payload, signal: AbortSignal) => Promise<StageOutcome & { readonly value?: string }>,
  { redis, log }: { readonly redis: Redis; readonly log: Logger },
): Consumer {
  // The settings of a queue are written by who enqueues (`enqueue.ts`).
  const queue = new Queue(spec.name, { connection: redis, skipMetasUpdate: true });
  queue.on("error", () => undefined); // the worker's own connection tells
  const worker = new Worker(
    spec.name,
    // BullMQ counts the declared parameters and hands over a signal only if there are three.
    async (job, token, signal) => {
      assert.ok(signal, "BullMQ passed no abort signal");
      job.opts.stackTraceLimit = KEPT_STACKS; // read when the job is moved
      const outcome = await stage(readJob(spec, job), signal);
      switch (outcome.kind) {
        case "done":
          return outcome.value;
        case "nothing":
          job.opts.removeOnComplete = true; // read when the job is moved, which comes next
          return undefined;
        case "snooze":
          // As BullMQ's own retry does. Unlike a write, it leaves nothing where the job is gone.
          if (job.attemptsMade > 0) await redis.hdel(queue.toKey(job.id ?? ""), "atm");
          await job.moveToDelayed(outcome.untilMs, token);
          throw new DelayedError();
        case "rate-limit": // ignored by BullMQ unless a limit is set, which setRate does
          // What another asked for is never cut short.
          if (outcome.forMs > (await queue.getRateLimitTtl())) await queue.rateLimit(outcome.forMs);
          throw new RateLimitError();
        case "unrecoverable":
          throw new UnrecoverableError(outcome.reason);
        default:
          return outcome satisfies never;
      }
    },
    {
      connection: redis,
      concurrency: spec.concurrency,
      lockDuration: 10 * SECOND,
      stalledInterval: 2 * SECOND,
      maxStalledCount: 1_000_000,
      settings: { backoffStrategy: (tries) => backoffMs(tries, Math.random()) },
      ...(spec.job.removeOnComplete === true ? {} : { removeOnComplete: { count: 1_000 } }),
    },
  );
  worker.on("failed", (job, error) => {
    const last = job === undefined || job.attemptsMade >= (job.opts.attempts ?? 1);
    if (error.name === "UnrecoverableError") {
      log.warn(
        { queue: spec.name, job: job?.id, reason: error.message },
        "a job can't succeed and stays in the failed set",
      );
      return;
    }
    log[last ? "error" : "warn"](
      { queue: spec.name, job: job?.id, tries: job?.attemptsMade, err: error },
      last ? "a job has failed and stays in the failed set" : "a job failed and will be tried again",
    );
  });
  worker.on("stalled", (jobId) => log.warn({ queue: spec.name, job: jobId }, "a worker lost this job; it runs again"));
  worker.on("lockRenewalFailed", (jobIds) => {
    for (const jobId of jobIds) worker.cancelJob(jobId, "another worker may have this job by now");
  });
  worker.on("error", (error) => log.warn({ queue: spec.name, err: error }, "the queue's connection had an error"));

  return {
    name: spec.name,
    close: async () => {
      await worker.close();
      await queue.close();
    },
    abort: (reason) => worker.cancelAllJobs(reason),
  };
}

/** What only this consumer uses is closed once its last job has ended. */
export function closingToo(used: { close(): Promise<void> }, consumer: Consumer): Consumer {
  return {
    ...consumer,
    async close() {
      await consumer.close();
      await used.close();
    },
  };
}

function readJob<Payload>(
  spec: QueueSpec<Payload>,
  job: { id?: string | undefined; data: unknown; timestamp: number },
): Payload {
  assert.ok(job.id, "BullMQ gave a job without an id");
  try {
    return spec.read(job.id, job.data, job.timestamp);
  } catch (error) {
    throw new UnrecoverableError(`${spec.name}: job ${job.id} can't be read: ${String(error)}`);
  }
}
