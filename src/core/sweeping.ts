/**
 * When a provider's list can prove that a prediction isn't there. All times are on the provider's clock, since that is
 * what its list is sorted by.
 *
 * A sweep is clean for an intent if it covers the time in which its prediction can have been created, was read so late
 * that a list that lags has caught up, and so early that the provider hasn't emptied the inputs yet.
 */

import { MINUTE, SECOND } from "./time.ts";

export type SweepPolicy = {
  /** A request that was sent is answered, or given up, within so long. */
  readonly requestDeadlineMs: number;
  /**
   * How long after its creation a prediction may not show in the list yet; and how long after its request was given up
   * one may still be created, where the network or a frozen process was slow to send it.
   */
  readonly settlingMs: number;
  /** So long after its creation a prediction's input may be gone from the list. */
  readonly horizonMs: number;
  /** By how much our workers' clocks may differ, among one another and after the provider's is allowed for. */
  readonly skewMs: number;
};

export const DEFAULT_SWEEP_POLICY: SweepPolicy = {
  requestDeadlineMs: 30 * SECOND,
  settlingMs: 10 * MINUTE,
  horizonMs: 50 * MINUTE,
  skewMs: 30 * SECOND,
};

export type SentBetween = { readonly fromMs: number; readonly toMs: number };

/** How long after its intent a prediction may have been created: a request may arrive that was given up long since. */
export function latestAfterIntentMs({ requestDeadlineMs, settlingMs, skewMs }: SweepPolicy): number {
  return requestDeadlineMs + settlingMs + skewMs;
}

/**
 * What of the list one sweep reads; null: there is nothing to look for. A prediction that is there is bound whenever it is
 * seen, so an intent is looked for as long as its prediction's input can still be there; what is older is not read.
 */
export function sweptSpan(
  intents: readonly SentBetween[],
  nowMs: number,
  policy: SweepPolicy,
): { readonly afterMs: number; readonly beforeMs: number } | null {
  const readable = intents.filter(({ toMs }) => nowMs <= toMs + policy.horizonMs);
  if (readable.length === 0) return null;
  const earliest = readable.reduce((first, { fromMs }) => Math.min(first, fromMs), Infinity);
  const latest = readable.reduce((last, { toMs }) => Math.max(last, toMs), -Infinity);
  return {
    afterMs: Math.max(earliest, nowMs - policy.horizonMs) - policy.skewMs,
    beforeMs: latest + latestAfterIntentMs(policy),
  };
}

/** Whether a sweep of `sweptSpan` that was read at that moment is clean for an intent. */
export function isClean(sent: SentBetween, readAtMs: number, policy: SweepPolicy): boolean {
  return readAtMs >= sent.toMs + latestAfterIntentMs(policy) && mayBeClean(sent, readAtMs, policy);
}

/** Whether a sweep that is read at that moment, or later, may be clean for an intent. */
export function mayBeClean({ fromMs, toMs }: SentBetween, readAtMs: number, policy: SweepPolicy): boolean {
  const lastMs = fromMs + policy.horizonMs;
  return readAtMs <= lastMs && toMs + latestAfterIntentMs(policy) <= lastMs;
}
