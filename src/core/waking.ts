/**
 * How a provider's list is read to learn which predictions have ended: which of it, how much, how often.
 *
 * A read of a page tells of a hundred predictions, a poll of one. So pages are read as often as they pay: some fraction
 * of a page for each prediction that ends, and never more than the sweeps' share of the account's reads.
 */

import { POLLS_SHARE } from "./pacing.ts";
import type { PollPolicy } from "./polling.ts";
import { COLD_RUN_TIMES, type LearnedRuns } from "./run-times.ts";
import { HOUR, MINUTE, SECOND } from "./time.ts";

/** Predictions of these ages are looked for. */
export type SweptAges = { readonly fromMs: number; readonly toMs: number };

/** A tenth of an account's reads; cancels and audits have another, polls the rest. */
const SHARE_OF_READS = 0.1;
/** Pages for each prediction that ends: nearly all there is to know by, or a second net below the webhooks. */
const PAGES_PER_END = { alone: 0.22, besideWebhooks: 0.04 };
const SHORTEST_MS = SECOND;
const LONGEST_MS = 15 * SECOND;
/**
 * A sweep of very many pages would cost too much so often: each puts the next one off by so much, up to the longest of
 * all.
 */
const LONGEST_BY_PAGE_MS = SECOND / 4;
const LONGEST_OF_ALL_MS = 30 * SECOND;
/** Reaching further costs little, since reading stops where nothing more can be found. */
const COLD_REACH_MS = 10 * MINUTE;
/** Where polls are few, reading on is worth more. */
const LONGEST_GAP_MS = SECOND;
const SHORTEST_REACH_MS = 30 * SECOND;
/** So long the list is sure to show what is bound (`ledger/items.ts`). */
const LONGEST_REACH_MS = HOUR;
/** A model that is quicker than all that ran lately isn't known yet. */
const YOUNG = 0.5;

/**
 * What is too young has hardly ever ended; what is as old as the net of its own poll is left to that. Where nothing is
 * learned yet, all that may run.
 */
export function sweptAges({ all, byModel }: LearnedRuns): SweptAges {
  if (all === null) return { fromMs: 0, toMs: COLD_REACH_MS };
  const models = [all, ...byModel.values()];
  const youngMs = YOUNG * Math.min(...models.map(({ p5Ms }) => p5Ms));
  const oldMs = 2 * Math.max(...models.map(({ p95Ms }) => p95Ms));
  return {
    fromMs: youngMs < SECOND ? 0 : Math.floor(youngMs),
    toMs: Math.min(Math.max(oldMs, SHORTEST_REACH_MS), LONGEST_REACH_MS),
  };
}

/** Pages of one sweep, at most: what the share allows in the longest pause. */
export function pagesAtMost(readsPerMinute: number): number {
  return Math.max(Math.floor((readsPerMinute * SHARE_OF_READS * LONGEST_OF_ALL_MS) / MINUTE), 1);
}

/**
 * So long after a page the next one is read, at the soonest: who was woken by it has been polled then, and nobody
 * queues.
 */
export function pageGapMs(woken: number, readsPerMinute: number): number {
  return Math.min((woken * MINUTE) / (readsPerMinute * POLLS_SHARE), LONGEST_GAP_MS);
}

export type SweepLoad = {
  /** Predictions that may end. */
  readonly inFlight: number;
  /** What it took to look for them. */
  readonly pages: number;
  readonly learned: LearnedRuns;
  /** The provider's webhooks tell of ends, too. */
  readonly besideWebhooks: boolean;
  readonly readsPerMinute: number;
};

/** From the start of a sweep to the next one's: shorter for more in flight and for quicker models, and within the budget. */
export function sweepPauseMs({ inFlight, pages, learned, besideWebhooks, readsPerMinute }: SweepLoad): number {
  const { medianMs } = learned.all ?? COLD_RUN_TIMES;
  const paysMs = (pages * medianMs) / (inFlight * PAGES_PER_END[besideWebhooks ? "besideWebhooks" : "alone"]);
  // Few in flight cost little either way, and are to be known of before their own polls would have asked.
  const manyMs = Math.min(Math.max(pages * LONGEST_BY_PAGE_MS, LONGEST_MS), LONGEST_OF_ALL_MS);
  const longestMs = besideWebhooks ? manyMs : Math.min(manyMs, medianMs / 2);
  const wantedMs = Math.max(Math.min(paysMs, longestMs), SHORTEST_MS);
  return Math.ceil(Math.max(wantedMs, (pages * MINUTE) / (readsPerMinute * SHARE_OF_READS)));
}

/**
 * Until when the poll of a prediction is put off that the list shows running; null: it isn't put off, since it is past its
 * deadline, or soon too old for sweeps. `quietMs`: in so long sweeps are sure to have come by again.
 */
export function deferredPollMs(
  { startedAtMs, deadlineAtMs }: { readonly startedAtMs: number; readonly deadlineAtMs: number | null },
  nowMs: number,
  quietMs: number,
  reachMs: number,
  policy: PollPolicy,
): number | null {
  const ageMs = Math.max(nowMs - startedAtMs, 0);
  const wantedMs = nowMs + Math.min(Math.max(quietMs, ageMs / 3), policy.longestWaitMs);
  const latestMs = Math.min(
    startedAtMs + Math.min(reachMs, policy.deadlineMs),
    deadlineAtMs ?? Number.POSITIVE_INFINITY,
  );
  return latestMs <= nowMs ? null : Math.ceil(Math.min(wantedMs, latestMs));
}
