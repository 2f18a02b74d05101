/**
 * How an account stands, in the shape that leaves the process: `status --accounts --json`, and what `/metrics` is made of.
 * None of what is asked of Redis grows with the account's batches.
 */

import { type Progress, progressOf } from "../core/batch.ts";
import type { Breaker } from "../core/breaking.ts";
import { savesPerMinute } from "../core/feeding.ts";
import type { AccountName } from "../core/naming.ts";
import { effectiveRate, freshPace, type Pace, type Rate, SHARE_BESIDE_POLLS, tierAt } from "../core/pacing.ts";
import type { PollKind } from "../core/polling.ts";
import { type RunCounts, runTimesOf } from "../core/run-times.ts";
import { POLLED } from "../gates/account-gate.ts";
import type { Ledger, SweepNote } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";

export type LimitReport = {
  readonly configured_per_minute: number;
  /** Set by hand, or configured. */
  readonly per_minute: number;
  readonly by_hand: boolean;
  /** What is allowed now. */
  readonly effective_per_minute: number;
  /** To what the provider reduced the account, and until when that is believed. */
  readonly tier: { readonly per_minute: number; readonly burst: number; readonly until: string } | null;
  /** The last 429. */
  readonly last_refusal: { readonly at: string; readonly until: string; readonly said: string } | null;
  readonly breaker: BreakerReport;
};

type BreakerReport = {
  readonly state: Breaker["state"];
  readonly since: string | null;
  readonly reason: string | null;
};

export type AccountReport = {
  readonly account: AccountName;
  readonly paused: string | null;
  /** Why it can't be opened on this Redis, or null; it is tried by itself, and nothing is bought before. */
  readonly unopened: string | null;
  readonly creates: LimitReport | null;
  readonly reads: (LimitReport & { readonly left_beside_polls: number }) | null;
  /** Items of the oldest unfinished batches, `counted_batches` of them. */
  readonly items: {
    readonly waiting: number;
    readonly in_flight: number;
    readonly saved: number;
    readonly failed: number;
    readonly canceled: number;
    readonly unclear: number;
  };
  readonly unfinished_batches: number;
  readonly counted_batches: number;
  /** Items that somebody must be working on, and since when the oldest of them stands still. */
  readonly open: number;
  readonly untouched_since: string | null;
  readonly unclear: number;
  readonly create_backlog: number;
  readonly saving: {
    /** Why less is fed than could be, though nothing is paused; or null. */
    readonly held: string | null;
    /** Outputs of all accounts that wait to be copied, and receipts that wait to be written. */
    readonly copies: number;
    readonly records: number;
    /** So many outputs a minute the fleet can save; null: nobody knows. */
    readonly saves_per_minute: number | null;
    /** Of the account's outputs that aren't saved yet the one that expires first. */
    readonly oldest_unsaved: { readonly bought_at: string | null; readonly expires_at: string } | null;
    /** Whether the bucket takes what is written. */
    readonly bucket: BreakerReport;
  };
  /** What requests to the provider came to, by request and outcome. */
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** Polls that were answered, by why they came: as a net, singly, or brought forward by a sweep or a webhook. */
  readonly polls: Readonly<Record<PollKind, number>>;
  /** What the provider's webhooks came to. */
  readonly webhooks: Readonly<Record<string, number>>;
  /** When a create last asked for the provider's webhook. */
  readonly webhook_asked_at: string | null;
  /** Reading the provider's list; null: nobody has. */
  readonly sweeps: {
    readonly swept_at: string;
    /** As the last one left it: from one to the next, and what it read. */
    readonly interval_ms: number;
    readonly pages: number;
    /** Polls that all of them brought forward. */
    readonly woken: number;
    /** Until then polls rely on them, for predictions up to this age. */
    readonly cover_until: string;
    readonly cover_age_ms: number;
  } | null;
  /** Of the models whose runs ended most often since yesterday, at most 20 of them. */
  readonly run_times: readonly ModelTimes[];
};

type ModelTimes = {
  readonly model: string;
  readonly runs: number;
  readonly p5_ms: number;
  readonly median_ms: number;
  readonly p95_ms: number;
};

export type ReportDeps = {
  readonly ledger: Pick<
    Ledger,
    | "readBudgets"
    | "configuredRates"
    | "accountHolds"
    | "readAccountSight"
    | "unfinishedBatches"
    | "standing"
    | "requestCounts"
    | "webhookCounts"
    | "readsLeft"
    | "readFollowing"
    | "runCounts"
    | "oldestUnsaved"
    | "savingMinutes"
    | "bucketBreaker"
  >;
  readonly queues: Pick<Queues, "createBacklog" | "savingBacklog">;
  readonly clock: () => number;
};

/** So many batches are looked into, the oldest. */
const MAX_BATCHES = 100;
const MAX_MODELS = 20;

export async function reportAccount(
  account: AccountName,
  { ledger, queues, clock }: ReportDeps,
): Promise<AccountReport> {
  const nowMs = clock();
  const [
    budgets,
    configured,
    { paused, unopened, held },
    sight,
    batches,
    requests,
    webhooks,
    backlog,
    following,
    runs,
  ] = await Promise.all([
    ledger.readBudgets(account),
    ledger.configuredRates(account),
    ledger.accountHolds(account),
    ledger.readAccountSight(account),
    ledger.unfinishedBatches(account, MAX_BATCHES),
    ledger.requestCounts(account),
    ledger.webhookCounts(account),
    queues.createBacklog(account),
    ledger.readFollowing(account),
    ledger.runCounts(account, nowMs),
  ]);
  const standings = await Promise.all(batches.map((batch) => ledger.standing(account, batch)));
  const progress = standings.flatMap((standing) => (standing === null ? [] : [progressOf(standing.counts)]));
  const { [POLLED]: polls = {}, ...asked } = byRequest(requests);
  const reads = configured && limitReport(configured.reads, budgets.paces.reads, budgets.breakers.reads, nowMs);
  return {
    account,
    paused,
    unopened,
    creates: configured && limitReport(configured.creates, budgets.paces.creates, budgets.breakers.creates, nowMs),
    reads: reads && {
      ...reads,
      left_beside_polls: await ledger.readsLeft(account, reads.effective_per_minute * SHARE_BESIDE_POLLS),
    },
    items: {
      waiting: sum(progress, "waiting"),
      in_flight: sum(progress, "inFlight"),
      saved: sum(progress, "saved"),
      failed: sum(progress, "failed"),
      canceled: sum(progress, "canceled"),
      unclear: sum(progress, "unclear"),
    },
    unfinished_batches: sight.unfinished,
    counted_batches: progress.length,
    open: sight.open,
    untouched_since: isoOrNull(sight.untouchedSinceMs),
    unclear: sight.unclear,
    create_backlog: backlog,
    saving: await savingOf(account, held, nowMs, { ledger, queues }),
    requests: asked,
    polls: {
      net: polls["net"] ?? 0,
      single: polls["single"] ?? 0,
      sweep: polls["sweep"] ?? 0,
      webhook: polls["webhook"] ?? 0,
    },
    webhooks,
    webhook_asked_at: isoOrNull(following.toldAtMs === 0 ? null : following.toldAtMs),
    sweeps: sight.sweptAtMs === null ? null : sweepsOf(sight.sweptAtMs, following),
    run_times: timesOf(runs),
  };
}

function limitReport(configured: Rate, known: Pace | null, breaker: Breaker, nowMs: number): LimitReport {
  const pace = known ?? freshPace(configured);
  const tier = tierAt(pace, nowMs);
  const { lastRefusal } = pace;
  return {
    configured_per_minute: configured.perMinute,
    per_minute: pace.perMinute,
    by_hand: pace.byHand,
    effective_per_minute: effectiveRate(pace, nowMs).perMinute,
    tier: tier && { per_minute: tier.perMinute, burst: tier.burst, until: iso(tier.toldAtMs + tier.believedForMs) },
    last_refusal: lastRefusal && {
      at: iso(lastRefusal.atMs),
      until: iso(lastRefusal.untilMs),
      said: lastRefusal.said,
    },
    breaker: breakerReport(breaker),
  };
}

function breakerReport(breaker: Breaker): BreakerReport {
  const isClosed = breaker.state === "closed";
  return {
    state: breaker.state,
    since: isClosed ? null : iso(breaker.sinceMs),
    reason: isClosed ? null : breaker.reason,
  };
}

async function savingOf(
  account: AccountName,
  held: string | null,
  nowMs: number,
  { ledger, queues }: Pick<ReportDeps, "ledger" | "queues">,
): Promise<AccountReport["saving"]> {
  const [backlog, minutes, oldest, breaker] = await Promise.all([
    queues.savingBacklog(),
    ledger.savingMinutes(nowMs),
    ledger.oldestUnsaved(account),
    ledger.bucketBreaker(),
  ]);
  return {
    held,
    ...backlog,
    saves_per_minute: savesPerMinute(minutes),
    oldest_unsaved: oldest && { bought_at: isoOrNull(oldest.boughtAtMs), expires_at: iso(oldest.expiresAtMs) },
    bucket: breakerReport(breaker),
  };
}

function byRequest(counts: Readonly<Record<string, number>>): AccountReport["requests"] {
  const requests: Record<string, Record<string, number>> = {};
  for (const [name, count] of Object.entries(counts).toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const [request = "", outcome = ""] = name.split(" ");
    (requests[request] ??= {})[outcome] = count;
  }
  return requests;
}

function sum(all: readonly Progress[], of: keyof Progress): number {
  return all.reduce((total, progress) => total + progress[of], 0);
}

function sweepsOf(
  sweptAtMs: number,
  { untilMs, toAgeMs, pauseMs, pages, woken }: SweepNote & { readonly woken: number },
): AccountReport["sweeps"] {
  return {
    swept_at: iso(sweptAtMs),
    interval_ms: pauseMs,
    pages,
    woken,
    cover_until: iso(untilMs),
    cover_age_ms: toAgeMs,
  };
}

function timesOf(counts: ReadonlyMap<string, RunCounts>): readonly ModelTimes[] {
  return [...counts]
    .flatMap(([model, ofModel]) => {
      const times = runTimesOf(ofModel);
      const runs = [...ofModel.values()].reduce((total, count) => total + count, 0);
      return times === null ? [] : [{ model, runs, p5_ms: times.p5Ms, median_ms: times.medianMs, p95_ms: times.p95Ms }];
    })
    .toSorted((a, b) => b.runs - a.runs)
    .slice(0, MAX_MODELS);
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : iso(ms);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
