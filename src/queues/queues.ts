/**
 * Every queue: its name, what a job in it carries, and the options of its jobs and workers with their reasons.
 *
 * A job about an attempt is an errand: its id says which attempt (`<batch>-<index>-<attempt>`), its data only what
 * would otherwise cost the stage a request. What makes repeating it harmless is the item's byte, not the job.
 */

import type { JobsOptions } from "bullmq";
import { z } from "zod";
import {
  type AccountName,
  type AttemptRef,
  type BatchId,
  type NotifyEvent,
  parseAccountName,
  parseBatchId,
  parseErrandId,
  parseNotifyJobId,
  QUEUE_NAMES,
} from "../core/naming.ts";
import { type PredictionId, predictionId } from "../core/prediction.ts";
import { SECOND } from "../core/time.ts";

export type QueueSpec<Payload> = {
  readonly name: string;
  /** What the stage gets from a job's id and data. Throws where it can't be read. */
  readonly read: (id: string, data: unknown, addedAtMs: number) => Payload;
  readonly job: JobsOptions;
  /** Jobs one process works on at once. */
  readonly concurrency: number;
};

/**
 * Completed jobs of these queues go at once: an id that still exists would swallow a later add in silence. Failed
 * ones stay until somebody looks. 25 tries with the capped backoff are about twenty minutes; then the keeper.
 */
const ERRAND: JobsOptions = { removeOnComplete: true, removeOnFail: false, attempts: 25, backoff: { type: "outlast" } };

/** A prediction that was bought, as its first follower is told of it. */
export type BoughtPrediction = {
  readonly id: PredictionId;
  readonly startedAtMs: number;
  readonly deadlineAtMs: number | null;
  /** The provider was asked to call a webhook at its end. */
  readonly told?: boolean;
};

/** Where a row stands in its batch's input, so that the create stage reads it with one ranged get. */
export type RowPlace = { readonly part: number; readonly offset: number; readonly length: number };

export type CreateErrand = AttemptRef & { readonly place: RowPlace };
export type FollowErrand = AttemptRef & {
  readonly predictionId: PredictionId;
  readonly startedAtMs: number;
  /** When the prediction is to be ended, where its client said so. */
  readonly deadlineAtMs: number | null;
  /** The provider was asked to call a webhook at its end. */
  readonly told: boolean;
};
export type CopyErrand = AttemptRef & { readonly expiresAtMs: number };
export type RecordErrand = AttemptRef;
export type NotifyErrand = AttemptRef & { readonly event: NotifyEvent };
export type AccountErrand = { readonly account: AccountName };
export type BatchErrand = { readonly account: AccountName; readonly batch: BatchId };
export type InputJob = {
  /** What identifies the input where it brings no `id` of its own. */
  readonly jobId: string;
  readonly addedAtMs: number;
  /** As the producer wrote it; admission reads it. */
  readonly data: unknown;
};

const account = z.string().transform((text, context) => {
  const name = parseAccountName(text);
  if (name !== null) return name;
  context.addIssue({ code: "custom", message: `not an account's name: ${text}` });
  return z.NEVER;
});

/** Data is a short list, since a million of these lie in memory: [account, …]. */
const createData = z.tuple([account, z.number(), z.number(), z.number()]);
const followData = z.tuple([
  account,
  z.string().transform(predictionId),
  z.number(),
  z.number().nullable(),
  // 1 where a webhook was asked for; else it isn't there.
  z.literal(1).optional(),
]);
const accountData = z.tuple([account]);
// At the end, where there is one, the prediction: for the board, which shows it. The stages read it in the item.
const copyData = z.tuple([account, z.number(), z.string().optional()]);
const recordData = z.tuple([account, z.string().optional()]);

export function createQueue(of: AccountName): QueueSpec<CreateErrand> {
  return {
    name: QUEUE_NAMES.create(of),
    read: (id, data) => {
      const [account, part, offset, length] = createData.parse(data);
      return { ...attempt(id, account), place: { part, offset, length } };
    },
    job: ERRAND,
    // One slot is one unanswered request; the rate is the queue's limit, this only has to be above rate × answer time.
    concurrency: 100,
  };
}

export function followQueue(of: AccountName): QueueSpec<FollowErrand> {
  return {
    name: QUEUE_NAMES.follow(of),
    read: (id, data) => {
      const [account, predictionId, startedAtMs, deadlineAtMs, told] = followData.parse(data);
      return { ...attempt(id, account), predictionId, startedAtMs, deadlineAtMs, told: told === 1 };
    },
    job: ERRAND,
    concurrency: 50,
  };
}

export const copyQueue: QueueSpec<CopyErrand> = {
  name: QUEUE_NAMES.copy,
  read: (id, data) => {
    const [account, expiresAtMs] = copyData.parse(data);
    return { ...attempt(id, account), expiresAtMs };
  },
  // A file is tried for until it expires, an hour and some grace: each try comes a minute at most after the one before.
  job: { ...ERRAND, attempts: 100 },
  concurrency: 16,
};

export const recordQueue: QueueSpec<RecordErrand> = {
  name: QUEUE_NAMES.record,
  read: (id, data) => attempt(id, recordData.parse(data)[0]),
  // The last thousand stay for the dashboard.
  job: { ...ERRAND, removeOnComplete: { count: 1_000 } },
  concurrency: 32,
};

export const finishQueue: QueueSpec<BatchErrand> = {
  name: QUEUE_NAMES.finish,
  read: (id, data) => ({ account: accountData.parse(data)[0], batch: parseBatchId(id) ?? unreadable("batch", id) }),
  job: ERRAND,
  concurrency: 1,
};

/**
 * Calls of clients' own webhooks. The end is told again when nobody took it: 1, 2, 4 … 32 s later, a minute in all, as
 * Replicate does (its webhooks page). The beginning is told once.
 */
export const notifyQueue: QueueSpec<NotifyErrand> = {
  name: QUEUE_NAMES.notify,
  read: (id, data) => ({
    account: accountData.parse(data)[0],
    ...(parseNotifyJobId(id) ?? unreadable("webhook's call", id)),
  }),
  job: {
    removeOnComplete: true,
    removeOnFail: { count: 1_000 },
    attempts: 7,
    backoff: { type: "exponential", delay: SECOND },
  },
  concurrency: 50,
};

/** One errand per account that never ends: it snoozes from feed to feed, so no two feeds of an account overlap. */
export const feedQueue: QueueSpec<AccountErrand> = {
  name: QUEUE_NAMES.feed,
  read: (_id, data) => ({ account: accountData.parse(data)[0] }),
  job: ERRAND,
  concurrency: 8,
};

/** Likewise one errand per account that never ends. */
export const sweepQueue: QueueSpec<AccountErrand> = { ...feedQueue, name: QUEUE_NAMES.sweep };

export function sweepJobId(of: AccountName): string {
  return `sweep-${of}`;
}

export function feedJobId(of: AccountName): string {
  return `feed-${of}`;
}

/** Run by BullMQ's scheduler. */
export const keepQueue: QueueSpec<void> = {
  name: QUEUE_NAMES.keep,
  read: () => undefined,
  job: { removeOnComplete: { count: 100 }, removeOnFail: { count: 100 } },
  concurrency: 1,
};

export const inputsQueue: QueueSpec<InputJob> = {
  name: QUEUE_NAMES.inputs,
  read: (id, data, addedAtMs) => ({ jobId: id, addedAtMs, data }),
  // Producers set their own jobs' options; these are for our library's.
  job: {
    removeOnComplete: { count: 1_000 },
    removeOnFail: false,
    attempts: 25,
    backoff: { type: "exponential", delay: SECOND },
  },
  // Admissions wait for one another to share a part, so many at once make fewer, larger parts.
  concurrency: 200,
};

function attempt(id: string, account: AccountName): AttemptRef {
  return { account, ...(parseErrandId(id) ?? unreadable("attempt", id)) };
}

function unreadable(what: string, id: string): never {
  throw new TypeError(`the job's id names no ${what}: ${JSON.stringify(id)}`);
}
