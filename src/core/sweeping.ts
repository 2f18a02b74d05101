/**
 * When a provider's list can prove that a prediction isn't there. All times are on the provider's clock, since that is
 * what its list is sorted by.
 *
 * A sweep is clean for an intent if it covers the time in which its prediction can have been created, was read so late
 * that a list that lags has caught up, and so early that the provider hasn't emptied the inputs yet.
 */

import { MINUTE, SECOND } from "./time.ts";

export type SweepPolicy = {
  /** A request that was sent is answered, or given up, within so long; a prediction of it is created within it too. */
  readonly requestDeadlineMs: number;
  /** How long after its creation a prediction may not show in the list yet. */
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

/** What of the list one sweep reads for all intents that it can still prove anything about; null: for none. */
export function sweptSpan(
  intents: readonly SentBetween[],
  nowMs: number,
  policy: SweepPolicy,
): { readonly afterMs: number; readonly beforeMs: number } | null {
  const readable = intents.filter(({ fromMs }) => nowMs <= fromMs + policy.horizonMs);
  if (readable.length === 0) return null;
  const earliest = Math.min(...readable.map(({ fromMs }) => fromMs));
  const latest = Math.max(...readable.map(({ toMs }) => toMs));
  return {
    afterMs: earliest - policy.skewMs,
    beforeMs: latest + policy.requestDeadlineMs + policy.skewMs,
  };
}

/** Whether a sweep of `sweptSpan` that was read at that moment is clean for an intent. */
export function isClean({ fromMs, toMs }: SentBetween, readAtMs: number, policy: SweepPolicy): boolean {
  return (
    readAtMs >= toMs + policy.requestDeadlineMs + policy.settlingMs + policy.skewMs &&
    readAtMs <= fromMs + policy.horizonMs
  );
}
