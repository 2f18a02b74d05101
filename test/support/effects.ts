/** The effects that stages are given in production, on a test's line: what a test doesn't name is real. */

import { countInFlight } from "../../src/batches/count-in-flight.ts";
import { deferPolls } from "../../src/batches/defer-polls.ts";
import { openExpectations } from "../../src/batches/expect-runs.ts";
import { giveFollow } from "../../src/batches/give-errand.ts";
import { placeItems } from "../../src/batches/place-items.ts";
import { readSaving } from "../../src/batches/read-saving.ts";
import { readEnding } from "../../src/bucket/endings.ts";
import { readEarlierAttempts, readReceipt, writeReceipt } from "../../src/bucket/records.ts";
import { noteWindow } from "../../src/bucket/window-notes.ts";
import { OUTPUT_LIFETIME_MS } from "../../src/core/polling.ts";
import type { FeedDeps } from "../../workers/feed-batches.ts";
import type { RecordDeps } from "../../workers/record-metrics.ts";
import type { WakeDeps } from "../../workers/wake-by-list.ts";
import { ACCOUNT, type Line } from "./stages.ts";

/** At so many creates a minute. The account is open already. */
export function feedEffects({ bucket, ledger, queues, clock }: Line, createsPerMinute: number): FeedDeps {
  return {
    createsPerMinute,
    windowRows: 2_000,
    reopen: async () => undefined,
    pausedReason: ledger.pausedReason,
    createBacklog: queues.createBacklog,
    savingFacts: () => readSaving({ ledger, queues, clock }, OUTPUT_LIFETIME_MS),
    noteHeld: ledger.noteHeld,
    unfedBatches: ledger.unfedBatches,
    standing: ledger.standing,
    returnedRows: ledger.returnedRows,
    placeRows: (account, batch, index, count) => placeItems({ bucket, ledger }, account, batch, index, count),
    async noteWindow(batch, window) {
      const noted = await noteWindow(bucket, batch.id, { ...window, notedAtMs: clock() });
      await ledger.noteWindow(batch, noted.last + 1);
      return noted.last;
    },
    enqueueCreates: queues.create,
    advance: ledger.advance,
    cancelingBatches: ledger.cancelingBatches,
    walkCancel: ledger.walkCancel,
    wakeFollow: queues.wakeFollow,
    pause: async () => undefined,
    enqueueFinish: queues.finish,
    warnOfBatch(_batch, error) {
      throw error;
    },
    clock,
  };
}

export function recordEffects({ bucket, ledger, queues, clock }: Line): RecordDeps {
  return {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    readReceipt: (ref) => readReceipt(bucket, ref),
    readEarlierAttempts: (ref) => readEarlierAttempts(bucket, ref),
    writeReceipt: (ref, receipt) => writeReceipt(bucket, ref, receipt),
    move: ledger.move,
    reply: queues.reply,
    enqueueNotify: queues.notify,
    enqueueFinish: (ref) => queues.finish(ref.account, ref.batch),
    wakeFeed: ({ account }) => queues.wakeFeed(account),
    clock,
  };
}

type OnClock = Pick<Line, "bucket" | "ledger" | "queues"> & { readonly clock: () => number };

/** At the published reads a minute. Nobody hears its warnings. */
export function wakeEffects({ bucket, ledger, queues, clock }: OnClock): Omit<WakeDeps, "provider"> {
  return {
    account: ACCOUNT,
    known: openExpectations(ACCOUNT, { ledger, clock }).known,
    readsPerMinute: async () => 3_000,
    inFlight: (of, fromMs, toMs) => countInFlight(of, fromMs, toMs, { ledger, queues }),
    holdersAmong: ledger.holdersAmong,
    runningAmong: ledger.runningAmong,
    markItem: ledger.markItem,
    wakeFollow: queues.wakeFollow,
    giveFollow: (ref) => giveFollow(ref, { bucket, ledger, queues, filesKeptMs: () => OUTPUT_LIFETIME_MS, clock }),
    deferPolls: (of, refs, by) => deferPolls(of, refs, by, { queues, clock }),
    noteSwept: ledger.noteSwept,
    warn: () => undefined,
    pause: async () => undefined,
    clock,
  };
}
