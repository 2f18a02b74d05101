/**
 * How an account stands, in the shape that leaves the process: `status --accounts --json`, and what `/metrics` is made of.
 * None of what is asked of Redis grows with the account's batches.
 */

import { type Progress, progressOf } from "../core/batch.ts";
import type { Breaker } from "../core/breaking.ts";
import type { AccountName } from "../core/naming.ts";
import { effectiveRate, freshPace, type Pace, type Rate, tierAt } from "../core/pacing.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { SHARE_BESIDE_POLLS } from "./account-gate.ts";

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
  readonly breaker: {
    readonly state: Breaker["state"];
    readonly since: string | null;
    readonly reason: string | null;
  };
};

export type AccountReport = {
  readonly account: AccountName;
  readonly paused: string | null;
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
  /** What requests to the provider came to, by request and outcome. */
  readonly requests: Readonly<Record<string, Readonly<Record<string, number>>>>;
  /** What the provider's webhooks came to. */
  readonly webhooks: Readonly<Record<string, number>>;
  /** What sweeps note of themselves. */
  readonly sweep: Readonly<Record<string, number | string>>;
};

export type ReportDeps = {
  readonly ledger: Pick<
    Ledger,
    | "readBudgets"
    | "configuredRates"
    | "pausedReason"
    | "readAccountSight"
    | "unfinishedBatches"
    | "standing"
    | "requestCounts"
    | "webhookCounts"
    | "readsLeft"
  >;
  readonly queues: Pick<Queues, "createBacklog">;
  readonly clock: () => number;
};

/** So many batches are looked into, the oldest. */
const MAX_BATCHES = 100;

export async function reportAccount(
  account: AccountName,
  { ledger, queues, clock }: ReportDeps,
): Promise<AccountReport> {
  const [budgets, configured, paused, sight, batches, requests, webhooks, backlog] = await Promise.all([
    ledger.readBudgets(account),
    ledger.configuredRates(account),
    ledger.pausedReason(account),
    ledger.readAccountSight(account),
    ledger.unfinishedBatches(account, MAX_BATCHES),
    ledger.requestCounts(account),
    ledger.webhookCounts(account),
    queues.createBacklog(account),
  ]);
  const standings = await Promise.all(batches.map((batch) => ledger.standing(account, batch)));
  const progress = standings.flatMap((standing) => (standing === null ? [] : [progressOf(standing.counts)]));
  const nowMs = clock();
  const reads = configured && limitReport(configured.reads, budgets.paces.reads, budgets.breakers.reads, nowMs);
  return {
    account,
    paused,
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
    requests: byRequest(requests),
    webhooks,
    sweep: Object.fromEntries(Object.entries(sight.sweep).map(([name, text]) => [name, numberOrText(text)])),
  };
}

function limitReport(configured: Rate, known: Pace | null, breaker: Breaker, nowMs: number): LimitReport {
  const pace = known ?? freshPace(configured);
  const tier = tierAt(pace, nowMs);
  const { lastRefusal } = pace;
  const isClosed = breaker.state === "closed";
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
    breaker: {
      state: breaker.state,
      since: isClosed ? null : iso(breaker.sinceMs),
      reason: isClosed ? null : breaker.reason,
    },
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

function numberOrText(text: string): number | string {
  return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : iso(ms);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
