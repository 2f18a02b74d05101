/** From an input to a bought prediction: admit, feed and create, each with the effects it is given. */

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import type { Logger } from "pino";
import { openAdmission } from "../src/batches/admit-single.ts";
import { bookDuplicate } from "../src/batches/book-duplicate.ts";
import { openExpectations } from "../src/batches/expect-runs.ts";
import { pauseAccount } from "../src/batches/pause-account.ts";
import { placeItems } from "../src/batches/place-items.ts";
import { readSaving } from "../src/batches/read-saving.ts";
import { reopenAccount } from "../src/batches/reopen-account.ts";
import { restoreLimits } from "../src/batches/restore-limits.ts";
import { readInputJob } from "../src/batches/single-input.ts";
import { withdrawItem } from "../src/batches/withdraw-item.ts";
import { keepEnding } from "../src/bucket/endings.ts";
import { readRow } from "../src/bucket/input-parts.ts";
import { noteWindow } from "../src/bucket/window-notes.ts";
import { windowRows } from "../src/core/feeding.ts";
import { type BatchId, webhookPath } from "../src/core/naming.ts";
import { DEFAULT_POLL_POLICY } from "../src/core/polling.ts";
import { isCallable } from "../src/core/telling.ts";
import { MINUTE } from "../src/core/time.ts";
import type { GatedAccount } from "../src/gates/account-gate.ts";
import { patiently } from "../src/gates/gated-provider.ts";
import { steadySends } from "../src/providers/steady-sends.ts";
import { type Consumer, closingToo, consume } from "../src/queues/consume.ts";
import { createQueue, feedQueue, inputsQueue } from "../src/queues/queues.ts";
import { openSelfCall } from "../src/webhooks/self-call.ts";
import type { Account, Services } from "../src/wiring.ts";
import { type AdmitDeps, admitInputs } from "./admit-inputs.ts";
import { type CreateDeps, createPrediction } from "./create-prediction.ts";
import { type FeedDeps, feedBatches } from "./feed-batches.ts";
import { throughGate } from "./through-gate.ts";

/** See `steady-sends.ts`: a row and a claim need a few milliseconds; this leaves room for a busy moment. */
const SEND_OFFSET_MS = 40;

const NOTE_TOLD_EVERY_MS = 2 * MINUTE;
const WARN_OF_BATCH_EVERY_MS = MINUTE;

export function admit(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const admission = openAdmission({ bucket, ledger, queues, clock: Date.now });
  const deps: AdmitDeps = {
    readInput: (job) => readInputJob(job, accounts),
    admit: admission.admit,
    warn: (fields, message) => log.warn(fields, message),
    clock: Date.now,
  };
  return consume(inputsQueue, (job, _signal) => admitInputs(job, deps), { redis: services.redis, log });
}

export function feed(services: Services, log: Logger): Consumer {
  const { bucket, ledger, queues, accounts } = services;
  const known = new Map(accounts.map((account) => [account.name, account]));
  const warnedOf = new LRUCache<BatchId, true>({ max: 1_000, ttl: WARN_OF_BATCH_EVERY_MS });
  const deps: Omit<FeedDeps, "createsPerMinute" | "windowRows" | "reopen" | "savingFacts"> = {
    pausedReason: ledger.pausedReason,
    createBacklog: queues.createBacklog,
    noteHeld: ledger.noteHeld,
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
    pause: (ms) => sleep(ms),
    enqueueFinish: queues.finish,
    warnOfBatch(batch, err) {
      if (warnedOf.has(batch)) return;
      warnedOf.set(batch, true);
      log.warn({ batch, err }, `batch ${batch} can't be fed; others are, and it is tried again`);
    },
    clock: Date.now,
  };
  return consume(
    feedQueue,
    async (errand, _signal) => {
      const account = known.get(errand.account);
      if (account === undefined)
        throw new Error(`this worker has no account ${errand.account}; all must have the same`);
      const createsPerMinute = await account.gate.retune();
      return feedBatches(errand, {
        ...deps,
        // By the rate that holds: one that was set, or reduced, since makes a window last as long as any.
        windowRows: windowRows(createsPerMinute, account.speak.list !== undefined),
        createsPerMinute,
        reopen: () => reopen(services, account, log),
        savingFacts: () => readSaving({ ledger, queues, clock: Date.now }, account.filesKeptMs),
      });
    },
    { redis: services.redis, log },
  );
}

async function reopen({ config, bucket, ledger, queues }: Services, account: GatedAccount, log: Logger): Promise<void> {
  const { name } = account;
  const reopened = await reopenAccount(name, {
    bucket,
    ledger,
    queues,
    restoreLimits: () => restoreLimits(account, { bucket, ledger }),
    restartLosesNothing: config.ownRedis,
    tell: ({ batch, how, unclear }) => {
      if (how === "rebuilt" || unclear > 0) log.warn({ batch: batch.id, unclear }, `batch ${batch.id} was ${how}`);
    },
    clock: Date.now,
  });
  if (reopened === null || reopened.rebuilt + reopened.unclear === 0) return;
  log.warn(
    { account: name, ...reopened },
    `account ${name} is open on this Redis, which may have lost its last moments: ${reopened.unclear} items may have been bought; they are looked for, and nothing is bought twice`,
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
    pauseAccount: (reason) =>
      pauseAccount(account.name, reason, { ledger, tell: (fields, message) => log.error(fields, message) }),
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
    { redis: services.redis, log },
  );
}
