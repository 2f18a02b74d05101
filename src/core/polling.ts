/** When to ask about a running prediction again, and when to stop waiting for it. */

import { HOUR, MINUTE, SECOND } from "./time.ts";

export type PollPolicy = {
  /** The first poll comes so long after the create. */
  readonly firstPauseMs: number;
  readonly shortestPauseMs: number;
  readonly longestPauseMs: number;
  /** Past this age the prediction is canceled upstream, so that paying stops. */
  readonly deadlineMs: number;
  /** How long after the deadline a canceled prediction is followed on before the item is given up. */
  readonly graceMs: number;
};

/**
 * Replicate stops a run after 30 minutes by itself (its lifecycle page), and a queue may come before the run:
 * an hour and a half bounds both.
 */
export const DEFAULT_POLL_POLICY: PollPolicy = {
  firstPauseMs: 2 * SECOND,
  shortestPauseMs: SECOND,
  longestPauseMs: 30 * SECOND,
  deadlineMs: 90 * MINUTE,
  graceMs: 15 * MINUTE,
};

/** Outputs are deleted an hour after the prediction; whether from its creation or its end isn't documented, so: creation. */
export const OUTPUT_LIFETIME_MS = HOUR;

export type NextPoll =
  | { readonly kind: "poll"; readonly atMs: number }
  /** Past its deadline: cancel it upstream, and poll again at `atMs`. */
  | { readonly kind: "overdue"; readonly atMs: number }
  /** Nothing helped; the item is recorded as failed. */
  | { readonly kind: "give-up"; readonly ageMs: number };

/**
 * Decides when to poll a running prediction again: after a quarter of its age, so the backoff is exponential
 * without a counter that would have to be stored, and the end is known late by at most a quarter of the run time
 * (or `longestPauseMs`).
 *
 * `jitter` is a random number in [0, 1). It moves the poll by up to a tenth either way, so that a batch created
 * in one second isn't polled in one second.
 */
export function nextPoll(startedAtMs: number, nowMs: number, jitter: number, policy: PollPolicy): NextPoll {
  const ageMs = Math.max(nowMs - startedAtMs, 0);
  if (ageMs >= policy.deadlineMs + policy.graceMs) return { kind: "give-up", ageMs };

  const pauseMs = Math.min(Math.max(ageMs / 4, policy.shortestPauseMs), policy.longestPauseMs);
  const atMs = nowMs + Math.ceil(pauseMs * (0.9 + 0.2 * jitter));
  if (ageMs >= policy.deadlineMs) return { kind: "overdue", atMs };
  return { kind: "poll", atMs: Math.max(nowMs + 1, Math.min(atMs, startedAtMs + policy.deadlineMs)) };
}

/** When the first poll of a fresh prediction is due. `jitter` as in `nextPoll`. */
export function firstPollDelayMs(jitter: number, policy: PollPolicy): number {
  return Math.ceil(policy.firstPauseMs * (0.9 + 0.2 * jitter));
}
