/** When to ask about a running prediction again, and when to stop waiting for it. */

import type { RunTimes } from "./run-times.ts";
import { HOUR, MINUTE, SECOND } from "./time.ts";

export type PollPolicy = {
  readonly shortestPauseMs: number;
  readonly longestPauseMs: number;
  /** So long at most until the next poll, however long the model's runs are, and whoever is to tell of the end. */
  readonly longestWaitMs: number;
  /** Past this age the prediction is canceled upstream, so that paying stops. */
  readonly deadlineMs: number;
  /** How long after the deadline a canceled prediction is followed on before the item is given up. */
  readonly graceMs: number;
};

/**
 * Replicate stops a run after 30 minutes by itself (its lifecycle page), and a queue may come before the run:
 * an hour and a half bounds both. Ten minutes of waiting leave fifty of the hour for which files are kept.
 */
export const DEFAULT_POLL_POLICY: PollPolicy = {
  shortestPauseMs: SECOND,
  longestPauseMs: 30 * SECOND,
  longestWaitMs: 10 * MINUTE,
  deadlineMs: 90 * MINUTE,
  graceMs: 15 * MINUTE,
};

/**
 * Outputs are deleted an hour after the prediction; whether from its creation or its end isn't documented, so: creation. An
 * account whose provider keeps them for another time says so in its settings.
 */
export const OUTPUT_LIFETIME_MS = HOUR;

/**
 * A success without its output, or without a part of it, is polled again for so long: what is written in two steps may be
 * read between them.
 */
export const INCOMPLETE_FOR_MS = MINUTE;
export const INCOMPLETE_PAUSE_MS = 5 * SECOND;

export type NextPoll =
  | { readonly kind: "poll"; readonly atMs: number }
  /** Past its deadline: cancel it upstream, and poll again at `atMs`. */
  | { readonly kind: "overdue"; readonly atMs: number }
  /** Nothing helped; the item is recorded as failed. */
  | { readonly kind: "give-up"; readonly ageMs: number };

/** What is known of a prediction when its next poll is decided. */
export type Expectation = {
  /** How long its model takes. */
  readonly times: RunTimes;
  /**
   * Up to which age something else tells of its end: the provider's webhook at any age, a sweep of the list up to the
   * age that it reads to, nothing: 0.
   */
  readonly coveredToMs: number;
};

/** Who brings a poll forward: the mark on an item says so. */
export const WAKERS = ["webhook", "sweep"] as const;
export type Waker = (typeof WAKERS)[number];

/**
 * Why a prediction was polled, for the statistics: `net`: something else is to tell of its end, and hadn't; `single`:
 * nothing is.
 */
export type PollKind = Waker | "net" | "single";

export function pollKind(
  wokenBy: Waker | undefined,
  ageMs: number,
  { coveredToMs }: Pick<Expectation, "coveredToMs">,
): PollKind {
  return wokenBy ?? (ageMs < coveredToMs ? "net" : "single");
}

/**
 * Decides when to poll a running prediction again; also when a fresh one is polled first.
 *
 * Where something else tells of the end, the poll is a net for what that misses: at twice the time in which all but
 * one in twenty of the model's runs end. Otherwise the first poll comes when half of them have ended. After that, a third
 * of the age later each, so the backoff is exponential without a counter that would have to be stored, and the end is known
 * late by at most a third of the run time (or `longestPauseMs`).
 *
 * `jitter` is a random number in [0, 1). It moves the poll by up to a tenth either way, so that a batch created
 * in one second isn't polled in one second.
 */
export function nextPoll(
  startedAtMs: number,
  nowMs: number,
  jitter: number,
  { times, coveredToMs }: Expectation,
  policy: PollPolicy,
): NextPoll {
  const ageMs = Math.max(nowMs - startedAtMs, 0);
  if (ageMs >= policy.deadlineMs + policy.graceMs) return { kind: "give-up", ageMs };

  const byAgeMs = Math.min(Math.max(ageMs / 3, policy.shortestPauseMs), policy.longestPauseMs);
  const jittered = (pauseMs: number): number => nowMs + Math.ceil(pauseMs * (0.9 + 0.2 * jitter));
  if (ageMs >= policy.deadlineMs) return { kind: "overdue", atMs: jittered(byAgeMs) };

  const netMs = Math.min(2 * times.p95Ms, coveredToMs);
  const waitMs = (netMs > ageMs ? netMs : times.medianMs) - ageMs;
  // What is left to wait may be as good as nothing, since the last poll came a little early.
  const atMs = jittered(Math.max(byAgeMs, Math.min(waitMs, policy.longestWaitMs)));
  return { kind: "poll", atMs: Math.max(nowMs + 1, Math.min(atMs, startedAtMs + policy.deadlineMs)) };
}
