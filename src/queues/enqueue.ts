/**
 * What may be put into a queue, as typed adds. Every id is made from what the job is about, so adding twice is
 * adding once, as long as the first one exists.
 */

import { type JobsOptions, Queue } from "bullmq";
import type { Redis } from "ioredis";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  errandId,
  type NotifyEvent,
  notifyJobId,
} from "../core/naming.ts";
import { copyPriority } from "../core/outputs.ts";
import type { PredictionId } from "../core/prediction.ts";
import { MINUTE } from "../core/time.ts";
import {
  type BoughtPrediction,
  type CreateErrand,
  copyQueue,
  createQueue,
  type FollowErrand,
  feedJobId,
  feedQueue,
  finishQueue,
  followQueue,
  inputsQueue,
  keepQueue,
  notifyQueue,
  type QueueSpec,
  recordQueue,
  sweepJobId,
  sweepQueue,
} from "./queues.ts";

/** Batch rows wait behind singles, which have no priority and so come first. */
const FILE_PRIORITY = 10;

/** The dashboard shows what happens, it isn't the record; streams of ten thousand events a queue are a waste. */
const EVENTS = { events: { maxLen: 1_000 } };

/** BullMQ's delayed jobs are sorted by the moment they are due, and within a millisecond by twelve bits of order. */
const SCORES_PER_MS = 4_096;

export type Queues = ReturnType<typeof openQueues>;

export function openQueues(redis: Redis) {
  const open = new Map<string, Queue>();
  function queue(name: string): Queue {
    let found = open.get(name);
    if (found === undefined) {
      found = new Queue(name, { connection: redis, streams: EVENTS });
      // Commands report their own failures; without a listener a lost connection would end the process.
      found.on("error", () => undefined);
      open.set(name, found);
    }
    return found;
  }
  async function add(spec: QueueSpec<unknown>, id: string, data: unknown, options: JobsOptions = {}): Promise<void> {
    await queue(spec.name).add("errand", data, { ...spec.job, ...options, jobId: id });
  }

  const queues = {
    /** Rows of one account, in the order in which they should be bought. */
    async create(errands: readonly CreateErrand[], kind: "file" | "singles"): Promise<void> {
      const [first] = errands;
      if (first === undefined) return;
      const spec = createQueue(first.account);
      const priority = kind === "file" ? { priority: FILE_PRIORITY } : {};
      for (let at = 0; at < errands.length; at += 500) {
        await queue(spec.name).addBulk(
          errands.slice(at, at + 500).map((errand) => ({
            name: "errand",
            data: [errand.account, errand.place.part, errand.place.offset, errand.place.length],
            opts: { ...spec.job, ...priority, jobId: errandId(errand) },
          })),
        );
      }
    },

    async follow(ref: AttemptRef, prediction: BoughtPrediction, delayMs: number): Promise<void> {
      const { id, startedAtMs, deadlineAtMs, told } = prediction;
      const data = [ref.account, id, startedAtMs, deadlineAtMs, ...(told === true ? [1] : [])];
      await add(followQueue(ref.account), errandId(ref), data, { delay: delayMs });
    },

    /** Brings the next poll forward. False: there is nothing to bring forward, or it runs at this moment. */
    async wakeFollow(ref: AttemptRef): Promise<boolean> {
      return promote(queue(followQueue(ref.account).name), errandId(ref));
    },

    /** Predictions of an account that are followed. */
    async followBacklog(account: AccountName): Promise<number> {
      return backlog(queue(followQueue(account).name));
    },

    /** Those of an account's attempts whose next poll is due before a moment, and isn't on its way yet. */
    async pollsDueBefore(
      account: AccountName,
      refs: readonly AttemptRef[],
      beforeMs: number,
    ): Promise<readonly AttemptRef[]> {
      if (refs.length === 0) return [];
      const delayed = queue(followQueue(account).name).toKey("delayed");
      const scores = await redis.zmscore(delayed, ...refs.map(errandId));
      return refs.filter((_, at) => scores[at] != null && Number(scores[at]) / SCORES_PER_MS < beforeMs);
    },

    /**
     * Puts the next poll off until the moment that is decided for its errand (null: not at all), unless it is on its
     * way.
     */
    async deferFollow(ref: AttemptRef, nowMs: number, until: (errand: FollowErrand) => number | null): Promise<void> {
      const spec = followQueue(ref.account);
      const job = await queue(spec.name).getJob(errandId(ref));
      if (job === undefined) return;
      let errand: FollowErrand;
      try {
        errand = spec.read(errandId(ref), job.data, job.timestamp);
      } catch {
        return; // whoever runs it says that it can't be read
      }
      const untilMs = until(errand);
      if (untilMs !== null) await unlessRefused(() => job.changeDelay(untilMs - nowMs));
    },

    /** `prediction`: for whoever looks at the job. */
    async copy(ref: AttemptRef, expiresAtMs: number, prediction?: PredictionId): Promise<void> {
      const priority = copyPriority(expiresAtMs);
      await add(copyQueue, errandId(ref), shown([ref.account, expiresAtMs], prediction), { priority });
    },

    /** `prediction`: for whoever looks at the job. */
    async record(ref: AttemptRef, prediction?: PredictionId): Promise<void> {
      await add(recordQueue, errandId(ref), shown([ref.account], prediction));
    },

    async notify(ref: AttemptRef, event: NotifyEvent): Promise<void> {
      const tries = event === "start" ? { attempts: 1 } : {};
      await add(notifyQueue, notifyJobId(ref, event), [ref.account], tries);
    },

    async finish(account: AccountName, batch: BatchId): Promise<void> {
      await add(finishQueue, batch, [account]);
    },

    /** Makes sure that the account's feed runs, and that it runs now. */
    async wakeFeed(account: AccountName): Promise<void> {
      await add(feedQueue, feedJobId(account), [account]);
      await promote(queue(feedQueue.name), feedJobId(account));
    },

    /** Makes sure that the account's sweep runs. */
    async startSweep(account: AccountName): Promise<void> {
      await add(sweepQueue, sweepJobId(account), [account]);
    },

    /** A plain job in a producer's own queue. */
    async reply(queueName: string, id: string, line: unknown): Promise<void> {
      // Opened for this one answer: producers may use a queue for each, and its settings are theirs.
      const replies = new Queue(queueName, { connection: redis, skipMetasUpdate: true });
      replies.on("error", () => undefined);
      try {
        await replies.add("result", line, { jobId: id });
      } finally {
        await replies.close();
      }
    },

    /** What the inputs queue takes from any producer. */
    async input(data: unknown, jobId?: string): Promise<string | undefined> {
      const job = await queue(inputsQueue.name).add("input", data, {
        ...inputsQueue.job,
        ...(jobId === undefined ? {} : { jobId }),
      });
      return job.id;
    },

    /** The keeper runs once a minute in the whole fleet. */
    async scheduleKeeper(): Promise<void> {
      await queue(keepQueue.name).upsertJobScheduler("keep", { every: MINUTE }, { name: "keep", opts: keepQueue.job });
    },

    /** A job that failed for good gets its tries again. Answers whether there was one. */
    async retryFailed(queueName: string, id: string): Promise<boolean> {
      const job = await queue(queueName).getJob(id);
      if (job === undefined || !(await job.isFailed())) return false;
      await job.retry("failed", { resetAttemptsMade: true });
      return true;
    },

    /** Jobs that wait for the create stage of an account, running ones among them. */
    async createBacklog(account: AccountName): Promise<number> {
      return backlog(queue(createQueue(account).name));
    },

    /** Jobs that wait to be copied, and to be recorded, running ones among them. */
    async savingBacklog(): Promise<{ readonly copies: number; readonly records: number }> {
      const [copies, records] = await Promise.all([backlog(queue(copyQueue.name)), backlog(queue(recordQueue.name))]);
      return { copies, records };
    },

    /** The fleet-wide limit of a queue, which acts live on every worker. Setting it again changes nothing. */
    async setRate(queueName: string, window: { readonly max: number; readonly durationMs: number }): Promise<void> {
      const set = await queue(queueName).getGlobalRateLimit();
      if (set?.max === window.max && set.duration === window.durationMs) return;
      await queue(queueName).setGlobalRateLimit(window.max, window.durationMs);
    },

    async close(): Promise<void> {
      await Promise.all([...open.values()].map((one) => one.close()));
    },
  };
  return queues;
}

function shown(data: readonly unknown[], prediction: PredictionId | undefined): readonly unknown[] {
  return prediction === undefined ? data : [...data, prediction];
}

async function backlog(queue: Queue): Promise<number> {
  const counts = await queue.getJobCounts("wait", "prioritized", "delayed", "active");
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

async function promote(queue: Queue, id: string): Promise<boolean> {
  const job = await queue.getJob(id);
  return (await unlessRefused(async () => job?.promote())) && job !== undefined;
}

/** BullMQ refuses with −1 (no such job) or −3 (not delayed): then there is nothing to bring forward, or to put off. */
async function unlessRefused(change: () => Promise<void>): Promise<boolean> {
  try {
    await change();
    return true;
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code !== -1 && code !== -3) throw error;
    return false;
  }
}
