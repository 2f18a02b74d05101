/** From an end to what is kept and told of it: copy, record, notify and finish, each with the effects it is given. */

import { randomUUID } from "node:crypto";
import type { Logger } from "pino";
import { describePrediction } from "../src/batches/describe-prediction.ts";
import { fileUrls, publicFileUrl } from "../src/batches/file-links.ts";
import { findItem } from "../src/batches/find-item.ts";
import { isDataRemoved, type ReadAgainDeps } from "../src/batches/read-again.ts";
import { openSavingPace, type SavingPace } from "../src/batches/saving-pace.ts";
import { writeResults } from "../src/batches/write-results.ts";
import { copyOutput } from "../src/bucket/copy-output.ts";
import { type DownloadTimeouts, openDownloadAgent } from "../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../src/bucket/endings.ts";
import { type CopyThrough, NoLargeSlot, openLargeFiles } from "../src/bucket/large-files.ts";
import { readEarlierAttempts, readReceipt, writeManifest, writeReceipt } from "../src/bucket/records.ts";
import type { Config } from "../src/config.ts";
import { errandId } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import { MINUTE } from "../src/core/time.ts";
import { type BucketGate, gatedBucket, openBucketGate } from "../src/gates/bucket-gate.ts";
import { type Consumer, closingToo, consume } from "../src/queues/consume.ts";
import {
  type CopyErrand,
  copyQueue,
  finishQueue,
  notifyQueue,
  type RecordErrand,
  recordQueue,
} from "../src/queues/queues.ts";
import { deliver, openWebhookAgent } from "../src/webhooks/deliver.ts";
import type { Account, Services } from "../src/wiring.ts";
import { type CopyDeps, copyOutputs } from "./copy-outputs.ts";
import { type FinishDeps, finishBatch } from "./finish-batch.ts";
import { type NotifyDeps, notifyClients } from "./notify-clients.ts";
import { type RecordDeps, recordMetrics } from "./record-metrics.ts";
import { throughBucket } from "./through-bucket.ts";

/** No output is larger; a runaway body ends here. */
const MAX_OUTPUT_BYTES = 50 * 1024 ** 3;

/** So long before its files expire a large one waits for no slot any more. */
const LAST_CALL_MS = 10 * MINUTE;

/** What copying needs. */
export type CopyServices = Pick<Services, "bucket" | "ledger" | "queues" | "redis" | "outputHosts"> & {
  readonly accounts: readonly CopyAccount[];
  readonly config: Pick<Config, "publicBucketUrl">;
};

type CopyAccount = Pick<Account, "name" | "fileToken"> & {
  readonly speak: ReadAgainDeps["provider"];
  readonly gate: ReadAgainDeps["gate"];
};

export type CopyOptions = { readonly timeouts?: Partial<DownloadTimeouts>; readonly clock?: () => number };

export function copy(services: CopyServices, log: Logger, options: CopyOptions = {}): Consumer {
  const { ledger, queues, accounts, outputHosts } = services;
  const { publicBucketUrl } = services.config;
  const { clock = Date.now, timeouts = {} } = options;
  const agent = openDownloadAgent({ hosts: outputHosts, timeouts });
  const gate = bucketGate(services, log);
  const bucket = gatedBucket(services.bucket, gate);
  const large = openLargeFiles(copyQueue.concurrency / 2);
  const pace = openSavingPace(copyQueue.concurrency, { ledger, clock });
  const known = new Map(accounts.map((account) => [account.name, account]));
  const deps: Omit<CopyDeps, "copyFile"> = {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
    isDataRemoved: async (ref, prediction, signal) => {
      const account = known.get(ref.account);
      if (account === undefined) return null;
      return isDataRemoved(prediction, { provider: account.speak, gate: account.gate }, signal);
    },
    noteProgress: async (ref, progress) => void (await ledger.markItem(ref, "progress", progress)),
    move: ledger.move,
    enqueueRecord: queues.record,
    clock,
  };
  const copyFile =
    (through: CopyThrough): CopyDeps["copyFile"] =>
    async (ref, file, signal) => {
      const access = known.get(ref.account)?.fileToken;
      const shown = access && { token: access.token, tokenHosts: access.hosts };
      const copied = await through({ bucket, agent }, (ends) =>
        copyOutput(ends.bucket, ref, file, { agent: ends.agent, maxBytes: MAX_OUTPUT_BYTES, ...shown }, signal),
      );
      return publicBucketUrl === null ? copied : { ...copied, url: publicFileUrl(publicBucketUrl, copied.key) };
    };
  const copying: CopyStage = (errand, signal) => {
    const mayWait = clock() < errand.expiresAtMs - LAST_CALL_MS;
    return large.during(errandId(errand), mayWait, (through) =>
      copyOutputs(errand, { ...deps, copyFile: copyFile(through) }, signal),
    );
  };
  const stage = throughBucket<CopyErrand>(measured(pace, copying), {
    gate,
    deadlineMs: ({ expiresAtMs }) => expiresAtMs,
    clock,
    random: Math.random,
  });
  return closingToo(pace, closingToo(agent, consume(copyQueue, stage, { redis: services.redis, log })));
}

type CopyStage = (errand: CopyErrand, signal: AbortSignal) => Promise<StageOutcome>;

/** A copy that waits for a large file's slot has done nothing; one that was refused, and waits, has saved nothing. */
function measured(pace: SavingPace, stage: CopyStage): CopyStage {
  return async (errand, signal) => {
    const startMs = performance.now();
    const note = (saved: boolean) => pace.note(saved, performance.now() - startMs);
    try {
      const outcome = await stage(errand, signal);
      note(outcome.kind === "done");
      return outcome;
    } catch (error) {
      if (!(error instanceof NoLargeSlot)) note(false);
      throw error;
    }
  };
}

/** One for each stage that writes: what one of them finds out, all know within a second. */
function bucketGate({ ledger }: Pick<Services, "ledger">, log: Logger): BucketGate {
  return openBucketGate({ ledger, clock: Date.now, mark: randomUUID, tell: (level, message) => log[level](message) });
}

export function record(services: Services, log: Logger): Consumer {
  const { ledger, queues } = services;
  const gate = bucketGate(services, log);
  const bucket = gatedBucket(services.bucket, gate);
  const deps: RecordDeps = {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    readReceipt: (ref) => readReceipt(bucket, ref),
    readEarlierAttempts: (ref) => readEarlierAttempts(bucket, ref),
    writeReceipt: (ref, receipt) => writeReceipt(bucket, ref, receipt),
    move: ledger.move,
    reply: queues.reply,
    enqueueNotify: queues.notify,
    enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
    wakeFeed: ({ account }) => queues.wakeFeed(account),
    clock: Date.now,
  };
  const stage = throughBucket<RecordErrand>((ref, _signal) => recordMetrics(ref, deps), {
    gate,
    deadlineMs: () => 0, // a receipt has no deadline: its tries are the job's, and while the bucket is down none is made
    clock: Date.now,
    random: Math.random,
  });
  return consume(recordQueue, stage, { redis: services.redis, log });
}

export function notify(services: Services, log: Logger): Consumer {
  const { bucket, ledger, config, webhookHosts } = services;
  const agent = openWebhookAgent({ hosts: webhookHosts });
  const deps: NotifyDeps = {
    findItem: (id) => findItem({ bucket, ledger }, id),
    describe: async (found, { base_url: baseUrl }) => {
      const secret = await ledger.secretFor("files");
      const fileUrl = fileUrls({ ...config, secret, baseUrl, nowMs: Date.now() });
      return describePrediction(bucket, found, { baseUrl, fileUrl });
    },
    secretOf: (tenant) => ledger.secretFor(`webhooks:${tenant}`),
    deliver: (url, call, signal) => deliver(url, call, agent, signal),
    clock: Date.now,
  };
  return closingToo(
    agent,
    consume(notifyQueue, (errand, signal) => notifyClients(errand, deps, signal), { redis: services.redis, log }),
  );
}

export function finish(services: Services, log: Logger): Consumer {
  const { bucket, ledger } = services;
  const deps: FinishDeps = {
    standing: ({ account, batch }) => ledger.standing(account, batch),
    writeResults: (standing, signal) => writeResults({ bucket, ledger }, standing, signal),
    writeManifest: (batch, manifest) => writeManifest(bucket, batch, manifest),
    noteFinished: ({ batch: { account, id }, openings }, nowMs) => ledger.finishBatch(account, id, nowMs, openings),
    clock: Date.now,
  };
  return consume(finishQueue, (errand, signal) => finishBatch(errand, deps, signal), { redis: services.redis, log });
}
