/** Until a prediction's end is known: follow, sweep and the keeper, each with the effects it is given. */

import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { countInFlight } from "../src/batches/count-in-flight.ts";
import { deferPolls } from "../src/batches/defer-polls.ts";
import { openExpectations } from "../src/batches/expect-runs.ts";
import { giveErrand, giveFollow } from "../src/batches/give-errand.ts";
import { pauseAccount } from "../src/batches/pause-account.ts";
import { readItemRow } from "../src/batches/place-items.ts";
import { withdrawItem } from "../src/batches/withdraw-item.ts";
import { keepEnding } from "../src/bucket/endings.ts";
import type { AccountName } from "../src/core/naming.ts";
import { DEFAULT_POLL_POLICY, OUTPUT_LIFETIME_MS } from "../src/core/polling.ts";
import { DEFAULT_SWEEP_POLICY } from "../src/core/sweeping.ts";
import { SECOND } from "../src/core/time.ts";
import { POLLED } from "../src/gates/account-gate.ts";
import { patiently, whilePollsMay } from "../src/gates/gated-provider.ts";
import { type Consumer, consume } from "../src/queues/consume.ts";
import {
  feedJobId,
  feedQueue,
  finishQueue,
  followQueue,
  keepQueue,
  sweepJobId,
  sweepQueue,
} from "../src/queues/queues.ts";
import type { Account, Services } from "../src/wiring.ts";
import { type FollowDeps, followPrediction } from "./follow-prediction.ts";
import { type KeepDeps, keepItems } from "./keep-items.ts";
import { type SweepDeps, sweepMemory, sweepPredictions } from "./sweep-predictions.ts";
import { throughGate } from "./through-gate.ts";

/** An account of ten reads a minute has one beside polls in so long. */
const PAGE_TURN_MS = 30 * SECOND;

/** A provider that makes up a status for each prediction doesn't fill the log. */
const MAX_WORDS_TOLD = 100;

export function follow(services: Services, account: Account, log: Logger): Consumer {
  const { bucket, ledger, queues } = services;
  const wordsTold = new Set<string>();
  const deps: FollowDeps = {
    provider: account.speak,
    move: ledger.move,
    takeMarks: ledger.takeMarks,
    incompleteSince: (ref) => ledger.incompleteSince(ref, Date.now()),
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    async enqueueCopy(ref, expiresAtMs, prediction) {
      await ledger.noteUnsaved(ref, expiresAtMs);
      await queues.copy(ref, expiresAtMs, prediction);
    },
    filesKeptMs: account.filesKeptMs,
    enqueueRecord: queues.record,
    pauseAccount: (reason) =>
      pauseAccount(account.name, reason, { ledger, tell: (fields, message) => log.error(fields, message) }),
    expect: openExpectations(account.name, { ledger, clock: Date.now }).expect,
    countPoll: (kind) => account.gate.count(`${POLLED} ${kind}`),
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
    { redis: services.redis, log },
  );
}

export function sweep(services: Services, log: Logger): Consumer {
  const { config, bucket, ledger, queues } = services;
  const policy = { ...DEFAULT_SWEEP_POLICY, settlingMs: config.settlingMs, horizonMs: config.listHorizonMs };
  const accounts = new Map(
    services.accounts.map((account): [string, SweepDeps] => [
      account.name,
      {
        account: account.name,
        provider: whilePollsMay(patiently(account.speak, PAGE_TURN_MS), account.gate),
        noteSweep: ledger.noteSweep,
        intents: ledger.intents,
        openOn: ledger.openOn,
        readRow: (ref) => readItemRow({ bucket, ledger }, ref),
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
        readsPerMinute: account.gate.readsPerMinute,
        inFlight: (name, fromMs, toMs) => countInFlight(name, fromMs, toMs, { ledger, queues }),
        holdersAmong: ledger.holdersAmong,
        runningAmong: ledger.runningAmong,
        markItem: ledger.markItem,
        wakeFollow: queues.wakeFollow,
        giveFollow: (ref) =>
          giveFollow(ref, { bucket, ledger, queues, filesKeptMs: () => account.filesKeptMs, clock: Date.now }),
        deferPolls: (name, refs, by) => deferPolls(name, refs, by, { queues, clock: Date.now }),
        noteSwept: ledger.noteSwept,
        pause: sleep,
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
    { redis: services.redis, log },
  );
}

export function keep(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const kept = new Map(accounts.map((account) => [account.name, account.filesKeptMs]));
  const filesKeptMs = (account: AccountName) => kept.get(account) ?? OUTPUT_LIFETIME_MS;
  const deps: KeepDeps = {
    accounts: accounts.map((account) => account.name),
    untouched: ledger.untouched,
    readItem: ledger.readItem,
    touch: ledger.touch,
    close: ledger.close,
    revive: (ref, errand, fields) =>
      giveErrand(ref, errand, fields, { bucket, ledger, queues, filesKeptMs, clock: Date.now }),
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
  return consume(keepQueue, (_nothing, signal) => keepItems(deps, signal), { redis: services.redis, log });
}
