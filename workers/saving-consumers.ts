/** From an end to what is kept and told of it: copy, record, notify and finish, each with the effects it is given. */

import type { Logger } from "pino";
import { describePrediction } from "../src/batches/describe-prediction.ts";
import { signedFileUrl } from "../src/batches/file-links.ts";
import { findItem } from "../src/batches/find-item.ts";
import { isDataRemoved } from "../src/batches/read-again.ts";
import { writeResults } from "../src/batches/write-results.ts";
import { copyOutput } from "../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../src/bucket/endings.ts";
import { readEarlierAttempts, readReceipt, writeManifest, writeReceipt } from "../src/bucket/records.ts";
import { type Consumer, closingToo, consume } from "../src/queues/consume.ts";
import { copyQueue, finishQueue, notifyQueue, recordQueue } from "../src/queues/queues.ts";
import { deliver, openWebhookAgent } from "../src/webhooks/deliver.ts";
import type { Services } from "../src/wiring.ts";
import { type CopyDeps, copyOutputs } from "./copy-outputs.ts";
import { type FinishDeps, finishBatch } from "./finish-batch.ts";
import { type NotifyDeps, notifyClients } from "./notify-clients.ts";
import { type RecordDeps, recordMetrics } from "./record-metrics.ts";

/** No output is larger; a runaway body ends here. */
const MAX_OUTPUT_BYTES = 50 * 1024 ** 3;

export function copy(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts, outputHosts } = services;
  const agent = openDownloadAgent({ hosts: outputHosts });
  const known = new Map(accounts.map((account) => [account.name, account]));
  const deps: CopyDeps = {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending, "copied"),
    copyFile: (ref, file, signal) => {
      const access = known.get(ref.account)?.fileToken;
      const shown = access && { token: access.token, tokenHosts: access.hosts };
      return copyOutput(bucket, ref, file, { agent, maxBytes: MAX_OUTPUT_BYTES, ...shown }, signal);
    },
    isDataRemoved: async (ref, prediction, signal) => {
      const account = known.get(ref.account);
      if (account === undefined) return null;
      return isDataRemoved(prediction, { provider: account.speak, gate: account.gate }, signal);
    },
    noteProgress: async (ref, progress) => void (await ledger.markItem(ref, "progress", progress)),
    move: ledger.move,
    enqueueRecord: queues.record,
    clock: Date.now,
  };
  return closingToo(
    agent,
    consume(copyQueue, (errand, signal) => copyOutputs(errand, deps, signal), { redis: services.redis, log }),
  );
}

export function record(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
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
  return consume(recordQueue, (ref, _signal) => recordMetrics(ref, deps), { redis: services.redis, log });
}

export function notify(services: Services, log: Logger): Consumer {
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
    consume(notifyQueue, (errand, signal) => notifyClients(errand, deps, signal), { redis: services.redis, log }),
  );
}

export function finish(services: Services, log: Logger): Consumer {
  const { bucket, ledger } = services;
  const deps: FinishDeps = {
    standing: ({ account, batch }) => ledger.standing(account, batch),
    writeResults: (standing, signal) => writeResults({ bucket, ledger }, standing, signal),
    writeManifest: (batch, manifest) => writeManifest(bucket, batch, manifest),
    noteFinished: ({ account, batch }, nowMs) => ledger.finishBatch(account, batch, nowMs),
    clock: Date.now,
  };
  return consume(finishQueue, (errand, signal) => finishBatch(errand, deps, signal), { redis: services.redis, log });
}
