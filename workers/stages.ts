/**
 * Each stage with the effects it is given: the one place where stages meet queues, ledger, bucket and providers.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { openAdmission } from "../src/batches/admit-single.ts";
import { bookDuplicate } from "../src/batches/book-duplicate.ts";
import { describePrediction } from "../src/batches/describe-prediction.ts";
import { signedFileUrl } from "../src/batches/file-links.ts";
import { findItem } from "../src/batches/find-item.ts";
import { placeItems } from "../src/batches/place-items.ts";
import { readInputJob } from "../src/batches/single-input.ts";
import { withdrawItem } from "../src/batches/withdraw-item.ts";
import { writeResults } from "../src/batches/write-results.ts";
import { copyOutput } from "../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../src/bucket/endings.ts";
import { readRow } from "../src/bucket/input-parts.ts";
import { noteWindow, readReceipt, writeManifest, writeReceipt } from "../src/bucket/records.ts";
import { rateWindow } from "../src/core/feeding.ts";
import type { Errand } from "../src/core/keeping.ts";
import { type AttemptRef, errandId } from "../src/core/naming.ts";
import { DEFAULT_POLL_POLICY, OUTPUT_LIFETIME_MS } from "../src/core/polling.ts";
import { predictionId } from "../src/core/prediction.ts";
import { DEFAULT_SWEEP_POLICY } from "../src/core/sweeping.ts";
import { MINUTE } from "../src/core/time.ts";
import type { OpenItemFields } from "../src/ledger/ledger.ts";
import { steadySends } from "../src/providers/steady-sends.ts";
import { type Consumer, consume } from "../src/queues/consume.ts";
import {
  copyQueue,
  createQueue,
  feedJobId,
  feedQueue,
  finishQueue,
  followQueue,
  inputsQueue,
  keepQueue,
  notifyQueue,
  recordQueue,
  sweepJobId,
  sweepQueue,
} from "../src/queues/queues.ts";
import { deliver, openWebhookAgent } from "../src/webhooks/deliver.ts";
import type { Account, Services } from "../src/wiring.ts";
import { type AdmitDeps, admitInputs } from "./admit-inputs.ts";
import { type CopyDeps, copyOutputs } from "./copy-outputs.ts";
import { type CreateDeps, createPrediction } from "./create-prediction.ts";
import { type FeedDeps, feedBatches } from "./feed-batches.ts";
import { type FinishDeps, finishBatch } from "./finish-batch.ts";
import { type FollowDeps, followPrediction } from "./follow-prediction.ts";
import { type KeepDeps, keepItems } from "./keep-items.ts";
import { type NotifyDeps, notifyClients } from "./notify-clients.ts";
import { type RecordDeps, recordMetrics } from "./record-metrics.ts";
import { type SweepDeps, sweepPredictions } from "./sweep-predictions.ts";

export const STAGES = [
  "admit",
  "feed",
  "create",
  "follow",
  "copy",
  "record",
  "notify",
  "finish",
  "sweep",
  "keep",
] as const;
export type Stage = (typeof STAGES)[number];

/** No output is larger; a runaway body ends here. */
const MAX_OUTPUT_BYTES = 50 * 1024 ** 3;
/** Follow's share of an account's reads; cancels, sweeps and audits have the rest. */
const FOLLOW_SHARE = 0.8;

/** See `steady-sends.ts`: a row and a claim need a few milliseconds; this leaves room for a busy moment. */
const SEND_OFFSET_MS = 40;

export type RunningStages = {
  /** Stops taking jobs and lets running ones end. */
  drain(): Promise<void>;
  /** Asks what still runs to stop now. */
  abort(reason: string): void;
};

export async function startStages(services: Services, stages: readonly Stage[], log: Logger): Promise<RunningStages> {
  const makers: Record<Stage, () => Consumer | readonly Consumer[]> = {
    admit: () => admit(services, log),
    feed: () => feed(services, log),
    create: () => services.accounts.map((account) => create(services, account, log)),
    follow: () => services.accounts.map((account) => follow(services, account, log)),
    copy: () => copy(services, log),
    record: () => record(services, log),
    notify: () => notify(services, log),
    finish: () => finish(services, log),
    sweep: () => sweep(services, log),
    keep: () => keep(services, log),
  };
  for (const account of services.accounts) await setRates(services, account);
  const consumers = stages.flatMap((stage) => makers[stage]());
  if (stages.includes("keep")) await services.queues.scheduleKeeper();
  for (const { name } of services.accounts) {
    if (stages.includes("feed")) await services.queues.wakeFeed(name);
    if (stages.includes("sweep")) await services.queues.startSweep(name);
  }
  return {
    async drain() {
      await Promise.all(consumers.map((consumer) => consumer.close()));
    },
    abort(reason) {
      for (const consumer of consumers) consumer.abort(reason);
    },
  };
}

/** The configured rates become the queues' limits, which act on the whole fleet; a rate set by hand since then stands. */
async function setRates({ ledger, queues }: Services, account: Account): Promise<void> {
  const { name, createsPerMinute, readsPerMinute, toleratesBurst } = account;
  if (await ledger.takeConfiguredRate(name, "creates", `${createsPerMinute} ${toleratesBurst}`)) {
    await queues.setRate(createQueue(name).name, rateWindow(createsPerMinute, toleratesBurst));
  }
  if (await ledger.takeConfiguredRate(name, "polls", String(readsPerMinute))) {
    await queues.setRate(followQueue(name).name, rateWindow(readsPerMinute * FOLLOW_SHARE, true));
  }
}

function admit(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const admission = openAdmission({ bucket, ledger, queues, clock: Date.now });
  const deps: AdmitDeps = {
    readInput: (job) => readInputJob(job, accounts),
    admit: admission.admit,
    warn: (fields, message) => log.warn(fields, message),
    clock: Date.now,
  };
  return consume(inputsQueue, (job, _signal) => admitInputs(job, deps), at(services, log));
}

function feed(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const rates = new Map(accounts.map((account) => [account.name, account.createsPerMinute]));
  const deps: Omit<FeedDeps, "createsPerMinute"> = {
    pausedReason: ledger.pausedReason,
    createBacklog: queues.createBacklog,
    savingBacklog: queues.savingBacklog,
    unfedBatches: ledger.unfedBatches,
    standing: ledger.standing,
    returnedRows: ledger.returnedRows,
    placeRows: (account, batch, index, count) => placeItems({ bucket, ledger }, account, batch, index, count),
    noteWindow: (batch, window) => noteWindow(bucket, batch, window, Date.now()),
    enqueueCreates: queues.create,
    advance: ledger.advance,
    cancelingBatches: ledger.cancelingBatches,
    walkCancel: ledger.walkCancel,
    wakeFollow: queues.wakeFollow,
    enqueueFinish: queues.finish,
    clock: Date.now,
  };
  return consume(
    feedQueue,
    (errand, _signal) => feedBatches(errand, { ...deps, createsPerMinute: rates.get(errand.account) ?? 0 }),
    at(services, log),
  );
}

function create(services: Services, account: Account, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const deps: CreateDeps = {
    readRow: ({ batch, place }) => readRow(bucket, batch, place),
    move: ledger.move,
    withdraw: (ref, row, why) => withdrawItem(ref, row, why, { bucket, ledger, queues, clock: Date.now }),
    provider: account.speak,
    pauseAccount: pauser(services, account, log),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    bookDuplicate: (ref, prediction) =>
      bookDuplicate(ref, prediction, {
        bucket,
        ledger,
        provider: account.speak,
        warn: (fields, message) => log.error(fields, message),
        clock: Date.now,
      }),
    enqueueRecord: queues.record,
    enqueueNotify: queues.notify,
    enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
    waitForTurn: account.toleratesBurst
      ? async () => undefined
      : steadySends({
          intervalMs: MINUTE / account.createsPerMinute,
          offsetMs: SEND_OFFSET_MS,
          clock: Date.now,
          sleep,
        }),
    nonce: randomUUID,
    clock: Date.now,
    random: Math.random,
    policy: DEFAULT_POLL_POLICY,
  };
  return consume(
    createQueue(account.name),
    (errand, signal) => createPrediction(errand, deps, signal),
    at(services, log),
  );
}

function follow(services: Services, account: Account, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const deps: FollowDeps = {
    provider: account.speak,
    move: ledger.move,
    takeMarks: ledger.takeMarks,
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueCopy: queues.copy,
    enqueueRecord: queues.record,
    pauseAccount: pauser(services, account, log),
    warn: (message) => log.warn({ account: account.name }, message),
    clock: Date.now,
    random: Math.random,
    policy: DEFAULT_POLL_POLICY,
  };
  return consume(
    followQueue(account.name),
    (errand, signal) => followPrediction(errand, deps, signal),
    at(services, log),
  );
}

function copy(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts, outputHosts } = services;
  const agent = openDownloadAgent({ hosts: outputHosts });
  const tokens = new Map(accounts.map((account) => [account.name, account.fileToken]));
  const deps: CopyDeps = {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
    copyFile: (ref, file, signal) => {
      const access = tokens.get(ref.account);
      const shown = access && { token: access.token, tokenHosts: access.hosts };
      return copyOutput(bucket, ref, file, { agent, maxBytes: MAX_OUTPUT_BYTES, ...shown }, signal);
    },
    move: ledger.move,
    enqueueRecord: queues.record,
    clock: Date.now,
  };
  return closingToo(
    agent,
    consume(copyQueue, (errand, signal) => copyOutputs(errand, deps, signal), at(services, log)),
  );
}

function record(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const deps: RecordDeps = {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    readReceipt: (ref) => readReceipt(bucket, ref),
    writeReceipt: (ref, receipt) => writeReceipt(bucket, ref, receipt),
    move: ledger.move,
    reply: queues.reply,
    enqueueNotify: queues.notify,
    enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
    clock: Date.now,
  };
  return consume(recordQueue, (ref, _signal) => recordMetrics(ref, deps), at(services, log));
}

function notify(services: Services, log: Logger): Consumer {
  const { bucket, ledger, webhookHosts } = services;
  const agent = openWebhookAgent({ hosts: webhookHosts });
  const deps: NotifyDeps = {
    findItem: (id) => findItem({ bucket, ledger }, id),
    describe: async (found, { base_url: baseUrl }) => {
      const secret = await ledger.secretFor("files");
      return describePrediction(bucket, found, {
        baseUrl,
        fileUrl: (item, key) => signedFileUrl(secret, baseUrl, item, key, Date.now()),
      });
    },
    secretOf: (tenant) => ledger.secretFor(`webhooks:${tenant}`),
    deliver: (url, call, signal) => deliver(url, call, agent, signal),
    clock: Date.now,
  };
  return closingToo(
    agent,
    consume(notifyQueue, (errand, signal) => notifyClients(errand, deps, signal), at(services, log)),
  );
}

function finish(services: Services, log: Logger): Consumer {
  const { bucket, ledger } = services;
  const deps: FinishDeps = {
    standing: ({ account, batch }) => ledger.standing(account, batch),
    writeResults: (standing, signal) => writeResults({ bucket, ledger }, standing, signal),
    writeManifest: (batch, manifest) => writeManifest(bucket, batch, manifest),
    noteFinished: ({ account, batch }, nowMs) => ledger.finishBatch(account, batch, nowMs),
    clock: Date.now,
  };
  return consume(finishQueue, (errand, signal) => finishBatch(errand, deps, signal), at(services, log));
}

function sweep(services: Services, log: Logger): Consumer {
  const { config, bucket, ledger, queues } = services;
  const policy = { ...DEFAULT_SWEEP_POLICY, settlingMs: config.settlingMs, horizonMs: config.listHorizonMs };
  const accounts = new Map(
    services.accounts.map((account): [string, SweepDeps] => [
      account.name,
      {
        account: account.name,
        provider: account.speak,
        noteSweep: ledger.noteSweep,
        intents: ledger.intents,
        readRow: async ({ account: of, batch, index }) => {
          const [place] = await placeItems({ bucket, ledger }, of, batch, index, 1);
          if (place === undefined) throw new Error(`item ${index} of batch ${batch} stands in no part of its input`);
          return readRow(bucket, batch, place);
        },
        boundAmong: ledger.boundAmong,
        move: ledger.move,
        withdraw: (ref, row, why) => withdrawItem(ref, row, why, { bucket, ledger, queues, clock: Date.now }),
        keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
        enqueueFollow: queues.follow,
        enqueueRecord: queues.record,
        wakeFeed: queues.wakeFeed,
        warn: (fields, message) => log.warn(fields, message),
        policy,
        whenAbsent: account.onUnclear ?? "resend",
        clock: Date.now,
      },
    ]),
  );
  return consume(
    sweepQueue,
    ({ account }, signal) => {
      const deps = accounts.get(account);
      if (deps === undefined) throw new Error(`this worker has no account ${account}; all workers must have the same`);
      return sweepPredictions(deps, signal);
    },
    at(services, log),
  );
}

function keep(services: Services, log: Logger): Consumer {
  const { ledger, queues, accounts } = services;
  const deps: KeepDeps = {
    accounts: accounts.map((account) => account.name),
    untouched: ledger.untouched,
    readItem: ledger.readItem,
    touch: ledger.touch,
    close: ledger.close,
    revive: (ref, errand, fields) => revive(services, ref, errand, fields),
    reviveErrands: async (account) => {
      await queues.retryFailed(feedQueue.name, feedJobId(account));
      await queues.wakeFeed(account);
      await queues.retryFailed(sweepQueue.name, sweepJobId(account));
      await queues.startSweep(account);
    },
    unfinishedBatches: ledger.unfinishedBatches,
    standing: ledger.standing,
    enqueueFinish: async (account, batch) => {
      if (!(await queues.retryFailed(finishQueue.name, batch))) await queues.finish(account, batch);
    },
    warn: (fields, message) => log.warn(fields, message),
    clock: Date.now,
  };
  return consume(keepQueue, (_nothing, signal) => keepItems(deps, signal), at(services, log));
}

/** Gives an attempt its errand again: a failed one its tries, a missing one itself; one that is there stays as it is. */
async function revive(
  { bucket, ledger, queues }: Services,
  ref: AttemptRef,
  errand: Errand,
  fields: Partial<OpenItemFields>,
): Promise<void> {
  const id = errandId(ref);
  const startedAtMs = fields.intent_at === undefined ? Date.now() : Number(fields.intent_at);
  switch (errand) {
    case "create": {
      if (await queues.retryFailed(createQueue(ref.account).name, id)) return;
      const [place] = await placeItems({ bucket, ledger }, ref.account, ref.batch, ref.index, 1);
      const kind = (await ledger.standing(ref.account, ref.batch))?.batch.kind;
      if (place !== undefined && kind !== undefined) await queues.create([{ ...ref, place }], kind);
      return;
    }
    case "follow": {
      if (await queues.retryFailed(followQueue(ref.account).name, id)) return;
      if (fields.prediction_id === undefined) throw new Error(`${id} is running, but Redis holds no prediction for it`);
      const deadlineAtMs = fields.deadline_at === undefined ? null : Number(fields.deadline_at);
      await queues.follow(ref, { id: predictionId(fields.prediction_id), startedAtMs, deadlineAtMs }, 0);
      return;
    }
    case "copy":
      if (!(await queues.retryFailed(copyQueue.name, id))) await queues.copy(ref, startedAtMs + OUTPUT_LIFETIME_MS);
      return;
    case "record":
      if (!(await queues.retryFailed(recordQueue.name, id))) await queues.record(ref);
      return;
    default:
      errand satisfies never;
  }
}

/** What only this consumer uses is closed once its last job has ended. */
function closingToo(used: { close(): Promise<void> }, consumer: Consumer): Consumer {
  return {
    ...consumer,
    async close() {
      await consumer.close();
      await used.close();
    },
  };
}

function pauser({ ledger }: Services, account: Account, log: Logger): (reason: string) => Promise<void> {
  return async (reason) => {
    if (await ledger.pauseAccount(account.name, reason)) {
      log.error(
        { account: account.name },
        `account ${account.name} is paused: ${reason}; when that is mended: outlast resume --account ${account.name}`,
      );
    }
  };
}

function at({ redis }: { readonly redis: Redis }, log: Logger): { readonly redis: Redis; readonly log: Logger } {
  return { redis, log };
}
