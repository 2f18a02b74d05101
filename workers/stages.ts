/**
 * Each stage with the effects it is given: the one place where stages meet queues, ledger, bucket and providers.
 */

import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { openAdmission, readInputJob } from "../src/batches/admit-single.ts";
import { writeResults } from "../src/batches/write-results.ts";
import { copyOutput } from "../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../src/bucket/endings.ts";
import { placeRows, readRow } from "../src/bucket/input-parts.ts";
import { readReceipt, writeManifest, writeReceipt } from "../src/bucket/records.ts";
import { rateWindow } from "../src/core/feeding.ts";
import type { Errand } from "../src/core/keeping.ts";
import { type AccountName, type AttemptRef, errandId, type ItemId } from "../src/core/naming.ts";
import { DEFAULT_POLL_POLICY, OUTPUT_LIFETIME_MS } from "../src/core/polling.ts";
import { predictionId } from "../src/core/prediction.ts";
import type { OpenItemFields } from "../src/ledger/ledger.ts";
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
  recordQueue,
} from "../src/queues/queues.ts";
import type { Account, Services } from "../src/wiring.ts";
import { admitInputs } from "./admit-inputs.ts";
import { copyOutputs } from "./copy-outputs.ts";
import { createPrediction } from "./create-prediction.ts";
import { feedBatches } from "./feed-batches.ts";
import { finishBatch } from "./finish-batch.ts";
import { followPrediction } from "./follow-prediction.ts";
import { keepItems } from "./keep-items.ts";
import { recordMetrics } from "./record-metrics.ts";

export const STAGES = ["admit", "feed", "create", "follow", "copy", "record", "finish", "keep"] as const;
export type Stage = (typeof STAGES)[number];

/** No output is larger; a runaway body ends here. */
const MAX_OUTPUT_BYTES = 50 * 1024 ** 3;
/** Follow's share of an account's reads; cancels, sweeps and audits have the rest. */
const FOLLOW_SHARE = 0.8;

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
    finish: () => finish(services, log),
    keep: () => keep(services, log),
  };
  for (const account of services.accounts) await setRates(services, account);
  const consumers = stages.flatMap((stage) => makers[stage]());
  if (stages.includes("keep")) await services.queues.scheduleKeeper();
  if (stages.includes("feed")) for (const { name } of services.accounts) await services.queues.wakeFeed(name);
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
  const deps = {
    readInput: (job: Parameters<typeof readInputJob>[0]) => readInputJob(job, accounts),
    admit: (input: Parameters<typeof admission.admit>[0]): Promise<ItemId> => admission.admit(input),
  };
  return consume(inputsQueue, (job, _signal) => admitInputs(job, deps), at(services, log));
}

function feed(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const rates = new Map(accounts.map((account) => [account.name, account.createsPerMinute]));
  const deps = {
    pausedReason: ledger.pausedReason,
    createBacklog: queues.createBacklog,
    savingBacklog: queues.savingBacklog,
    unfedBatches: ledger.unfedBatches,
    standing: ledger.standing,
    returnedRows: ledger.returnedRows,
    async placeRows(account: AccountName, batch: AttemptRef["batch"], index: number, count: number) {
      const part = await ledger.partOf(account, batch, index);
      const places = await placeRows(bucket, batch, part, index, count);
      return places.map((place) => ({ ...place, part: part.part }));
    },
    enqueueCreates: queues.create,
    advance: ledger.advance,
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
  const deps = {
    readRow: (errand: Parameters<typeof createPrediction>[0]) => readRow(bucket, errand.batch, errand.place),
    move: ledger.move,
    provider: account.speak,
    pauseAccount: pauser(services, account, log),
    keepEnding: (ref: AttemptRef, ending: Parameters<typeof keepEnding>[2]) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    enqueueRecord: queues.record,
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
  const deps = {
    provider: account.speak,
    move: ledger.move,
    keepEnding: (ref: AttemptRef, ending: Parameters<typeof keepEnding>[2]) => keepEnding(bucket, ref, ending),
    enqueueCopy: queues.copy,
    enqueueRecord: queues.record,
    pauseAccount: pauser(services, account, log),
    warn: (message: string) => log.warn({ account: account.name }, message),
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
  const deps = {
    readItem: ledger.readItem,
    readEnding: (ref: AttemptRef, kept: string) => readEnding(bucket, ref, kept),
    keepEnding: (ref: AttemptRef, ending: Parameters<typeof keepEnding>[2]) =>
      keepEnding(bucket, ref, ending, "copied"),
    copyFile: (ref: AttemptRef, file: Parameters<typeof copyOutput>[2], signal: AbortSignal) => {
      const access = tokens.get(ref.account);
      const options = {
        agent,
        maxBytes: MAX_OUTPUT_BYTES,
        ...(access && { token: access.token, tokenHosts: access.hosts }),
      };
      return copyOutput(bucket, ref, file, options, signal);
    },
    move: ledger.move,
    enqueueRecord: queues.record,
    clock: Date.now,
  };
  const consumer = consume(copyQueue, (errand, signal) => copyOutputs(errand, deps, signal), at(services, log));
  return {
    ...consumer,
    async close() {
      await consumer.close();
      await agent.close();
    },
  };
}

function record(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const deps = {
    readItem: ledger.readItem,
    readEnding: (ref: AttemptRef, kept: string) => readEnding(bucket, ref, kept),
    readReceipt: (ref: AttemptRef) => readReceipt(bucket, ref),
    writeReceipt: (ref: AttemptRef, receipt: Parameters<typeof writeReceipt>[2]) => writeReceipt(bucket, ref, receipt),
    move: ledger.move,
    reply: queues.reply,
    enqueueFinish: (ref: AttemptRef) => queues.finish(ref.account, ref.batch),
    clock: Date.now,
  };
  return consume(recordQueue, (ref, _signal) => recordMetrics(ref, deps), at(services, log));
}

function finish(services: Services, log: Logger): Consumer {
  const { bucket, ledger } = services;
  const deps = {
    standing: ({ account, batch }: { account: AccountName; batch: AttemptRef["batch"] }) =>
      ledger.standing(account, batch),
    writeResults: (standing: Parameters<typeof writeResults>[1], signal: AbortSignal) =>
      writeResults({ bucket, ledger }, standing, signal),
    writeManifest: (batch: AttemptRef["batch"], manifest: Readonly<Record<string, unknown>>) =>
      writeManifest(bucket, batch, manifest),
    noteFinished: ({ account, batch }: { account: AccountName; batch: AttemptRef["batch"] }, nowMs: number) =>
      ledger.finishBatch(account, batch, nowMs),
    clock: Date.now,
  };
  return consume(finishQueue, (errand, signal) => finishBatch(errand, deps, signal), at(services, log));
}

function keep(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const deps = {
    accounts: accounts.map((account) => account.name),
    untouched: ledger.untouched,
    readItem: ledger.readItem,
    touch: ledger.touch,
    close: ledger.close,
    revive,
    reviveFeed: async (account: AccountName) => {
      await queues.retryFailed(feedQueue.name, feedJobId(account));
      await queues.wakeFeed(account);
    },
    unfinishedBatches: ledger.unfinishedBatches,
    standing: ledger.standing,
    enqueueFinish: queues.finish,
    clock: Date.now,
  };
  return consume(keepQueue, (_nothing, signal) => keepItems(deps, signal), at(services, log));

  async function revive(ref: AttemptRef, errand: Errand, fields: Partial<OpenItemFields>): Promise<void> {
    const startedAtMs = fields.intent_at === undefined ? Date.now() : Number(fields.intent_at);
    const id = errandId(ref);
    switch (errand) {
      case "create": {
        if (await queues.retryFailed(createQueue(ref.account).name, id)) return;
        const part = await ledger.partOf(ref.account, ref.batch, ref.index);
        const [place] = await placeRows(bucket, ref.batch, part, ref.index, 1);
        if (place !== undefined) await queues.create([{ ...ref, place: { ...place, part: part.part } }], "file");
        return;
      }
      case "follow":
        if (await queues.retryFailed(followQueue(ref.account).name, id)) return;
        if (fields.prediction_id !== undefined) {
          await queues.follow(ref, { id: predictionId(fields.prediction_id), startedAtMs }, 0);
        }
        return;
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
