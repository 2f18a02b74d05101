/**
 * Each stage with the effects it is given: the one place where stages meet queues, ledger, bucket and providers.
 */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { Logger } from "pino";
import { openAdmission } from "../src/batches/admit-single.ts";
import { bookDuplicate } from "../src/batches/book-duplicate.ts";
import { countInFlight } from "../src/batches/count-in-flight.ts";
import { deferPolls } from "../src/batches/defer-polls.ts";
import { describePrediction } from "../src/batches/describe-prediction.ts";
import { openExpectations } from "../src/batches/expect-runs.ts";
import { signedFileUrl } from "../src/batches/file-links.ts";
import { findItem } from "../src/batches/find-item.ts";
import { patiently } from "../src/batches/gated-provider.ts";
import { giveErrand } from "../src/batches/give-errand.ts";
import { placeItems } from "../src/batches/place-items.ts";
import { isDataRemoved } from "../src/batches/read-again.ts";
import { reopenAccount } from "../src/batches/reopen-account.ts";
import { readInputJob } from "../src/batches/single-input.ts";
import { withdrawItem } from "../src/batches/withdraw-item.ts";
import { writeResults } from "../src/batches/write-results.ts";
import { copyOutput } from "../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../src/bucket/download-agent.ts";
import { keepEnding, readEnding } from "../src/bucket/endings.ts";
import { readRow } from "../src/bucket/input-parts.ts";
import { readEarlierAttempts, readReceipt, writeManifest, writeReceipt } from "../src/bucket/records.ts";
import { noteWindow } from "../src/bucket/window-notes.ts";
import { windowRows } from "../src/core/feeding.ts";
import { type AccountName, webhookPath } from "../src/core/naming.ts";
import { DEFAULT_POLL_POLICY } from "../src/core/polling.ts";
import { DEFAULT_SWEEP_POLICY } from "../src/core/sweeping.ts";
import { isCallable } from "../src/core/telling.ts";
import { MINUTE } from "../src/core/time.ts";
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
import { openSelfCall } from "../src/webhooks/self-call.ts";
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
import { type SweepDeps, sweepMemory, sweepPredictions } from "./sweep-predictions.ts";
import { throughGate } from "./through-gate.ts";

/** No output is larger; a runaway body ends here. */
const MAX_OUTPUT_BYTES = 50 * 1024 ** 3;

/** See `steady-sends.ts`: a row and a claim need a few milliseconds; this leaves room for a busy moment. */
const SEND_OFFSET_MS = 40;

const NOTE_TOLD_EVERY_MS = 2 * MINUTE;

/** A provider that makes up a status for each prediction doesn't fill the log. */
const MAX_WORDS_TOLD = 100;

export function admit(services: Services, log: Logger): Consumer {
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

export function feed(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const pace = new Map(
    accounts.map(({ name, createsPerMinute, speak, gate }) => [
      name,
      { gate, windowRows: windowRows(createsPerMinute, speak.list !== undefined) },
    ]),
  );
  const deps: Omit<FeedDeps, "createsPerMinute" | "windowRows"> = {
    reopen: (account) => reopen(services, account, log),
    pausedReason: ledger.pausedReason,
    createBacklog: queues.createBacklog,
    savingBacklog: queues.savingBacklog,
    unfedBatches: ledger.unfedBatches,
    standing: ledger.standing,
    returnedRows: ledger.returnedRows,
    placeRows: (account, batch, index, count) => placeItems({ bucket, ledger }, account, batch, index, count),
    async noteWindow(batch, { first, last }) {
      const window = await noteWindow(bucket, batch.id, { first, last, notedAtMs: Date.now() });
      await ledger.noteWindow(batch, window.last + 1);
      return window.last;
    },
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
    async (errand, _signal) => {
      const own = pace.get(errand.account);
      if (own === undefined) throw new Error(`this worker has no account ${errand.account}; all must have the same`);
      const { gate, windowRows } = own;
      return feedBatches(errand, { ...deps, windowRows, createsPerMinute: await gate.retune() });
    },
    at(services, log),
  );
}

async function reopen({ config, bucket, ledger, queues }: Services, account: AccountName, log: Logger): Promise<void> {
  const reopened = await reopenAccount(account, {
    bucket,
    ledger,
    queues,
    restartLosesNothing: config.ownRedis,
    tell: ({ batch, how, unclear }) => {
      if (how === "rebuilt" || unclear > 0) log.warn({ batch: batch.id, unclear }, `batch ${batch.id} was ${how}`);
    },
    clock: Date.now,
  });
  if (reopened === null || reopened.rebuilt + reopened.unclear === 0) return;
  log.warn(
    { account, ...reopened },
    `account ${account} is open on this Redis, which may have lost its last moments: ${reopened.unclear} items may have been bought; they are looked for, and nothing is bought twice`,
  );
}

/** One self-call for all accounts: who can't be reached asks no provider to call. */
export function creates(services: Services, log: Logger): readonly Consumer[] {
  const { publicUrl } = services.config;
  const reach =
    publicUrl === null
      ? null
      : openSelfCall({
          publicUrl,
          secret: () => services.ledger.secretFor("self-call"),
          info: (message) => log.info(message),
          warn: (message) => log.warn(message),
        });
  return services.accounts.map((account) => {
    const noteTold = telling(services, account, log);
    const isAble = publicUrl !== null && account.speak.webhookSecret !== undefined;
    const told = isAble && isCallable(publicUrl, account.baseUrl);
    if (isAble && !told) {
      log.warn(
        { account: account.name },
        `no webhooks are asked for: ${publicUrl} isn't https, or is this machine alone`,
      );
    }
    const consumer = create(services, account, log, (ref, nonce) => {
      if (!told || reach?.passes() !== true) return null;
      noteTold();
      return publicUrl + webhookPath(ref, nonce);
    });
    return reach === null ? consumer : closingToo(reach, consumer);
  });
}

/** Tells the sweeps, every other minute, that webhooks are asked for; where that fails, they only read more. */
function telling({ ledger }: Services, { name }: Account, log: Logger): () => void {
  let notedAtMs = Number.NEGATIVE_INFINITY;
  return () => {
    const nowMs = Date.now();
    if (nowMs - notedAtMs < NOTE_TOLD_EVERY_MS) return;
    notedAtMs = nowMs;
    ledger
      .noteTold(name, nowMs)
      .catch((err: unknown) => log.warn({ account: name, err }, "it couldn't be noted that webhooks are asked for"));
  };
}

function create(services: Services, account: Account, log: Logger, webhookFor: CreateDeps["webhookFor"]): Consumer {
  const { bucket, ledger, queues } = services;
  const deps: CreateDeps = {
    readRow: ({ batch, place }) => readRow(bucket, batch, place),
    move: ledger.move,
    withdraw: (ref, row, why) => withdrawItem(ref, row, why, { bucket, ledger, queues, clock: Date.now }),
    provider: account.speak,
    webhookFor,
    pauseAccount: pauser(services, account, log),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    isOpen: ledger.isOpen,
    readItem: ledger.readItem,
    pause: sleep,
    warn: (fields, message) => log.error(fields, message),
    expect: openExpectations(account.name, { ledger, clock: Date.now }).expect,
    bookDuplicate: (ref, prediction) =>
      bookDuplicate(ref, prediction, {
        bucket,
        ledger,
        provider: patiently(account.speak),
        warn: (fields, message) => log.error(fields, message),
        clock: Date.now,
      }),
    enqueueRecord: queues.record,
    enqueueNotify: queues.notify,
    enqueueFinish: ({ account, batch }) => queues.finish(account, batch),
    waitForTurn: account.toleratesBurst
      ? async () => undefined
      : steadySends({
          intervalMs: () => MINUTE / account.gate.createsPerMinute(),
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
    throughGate(account.gate, "creates", (errand, signal) => createPrediction(errand, deps, signal)),
    at(services, log),
  );
}

export function follow(services: Services, account: Account, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const wordsTold = new Set<string>();
  const deps: FollowDeps = {
    provider: account.speak,
    move: ledger.move,
    takeMarks: ledger.takeMarks,
    incompleteSince: (ref) => ledger.incompleteSince(ref, Date.now()),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueCopy: queues.copy,
    enqueueRecord: queues.record,
    pauseAccount: pauser(services, account, log),
    expect: openExpectations(account.name, { ledger, clock: Date.now }).expect,
    learnRun: (model, runMs) => ledger.learnRun(account.name, model, runMs, Date.now()),
    warn: (message) => log.warn({ account: account.name }, message),
    warnOfStatus(word, message) {
      if (wordsTold.has(word) || wordsTold.size >= MAX_WORDS_TOLD) return;
      wordsTold.add(word);
      log.warn({ account: account.name }, message);
    },
    clock: Date.now,
    random: Math.random,
    policy: DEFAULT_POLL_POLICY,
  };
  return consume(
    followQueue(account.name),
    throughGate(account.gate, "reads", (errand, signal) => followPrediction(errand, deps, signal)),
    at(services, log),
  );
}

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
    consume(copyQueue, (errand, signal) => copyOutputs(errand, deps, signal), at(services, log)),
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
  return consume(recordQueue, (ref, _signal) => recordMetrics(ref, deps), at(services, log));
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
    consume(notifyQueue, (errand, signal) => notifyClients(errand, deps, signal), at(services, log)),
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
  return consume(finishQueue, (errand, signal) => finishBatch(errand, deps, signal), at(services, log));
}

export function sweep(services: Services, log: Logger): Consumer {
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
        openOn: ledger.openOn,
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
        known: openExpectations(account.name, { ledger, clock: Date.now }).known,
        readsPerMinute: account.readsPerMinute,
        inFlight: (name, fromMs, toMs) => countInFlight(name, fromMs, toMs, { ledger, queues }),
        holdersAmong: ledger.holdersAmong,
        runningAmong: ledger.runningAmong,
        markItem: ledger.markItem,
        wakeFollow: queues.wakeFollow,
        deferPolls: (name, refs, by) => deferPolls(name, refs, by, { queues, clock: Date.now }),
        noteSwept: ledger.noteSwept,
        memory: sweepMemory(),
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

export function keep(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const deps: KeepDeps = {
    accounts: accounts.map((account) => account.name),
    untouched: ledger.untouched,
    readItem: ledger.readItem,
    touch: ledger.touch,
    close: ledger.close,
    revive: (ref, errand, fields) => giveErrand(ref, errand, fields, { bucket, ledger, queues }),
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
