/**
 * Even intervals between creates, for a provider that tolerates no burst.
 *
 * Errands are taken at even intervals, since the queue's limit is the fleet's. But what the row and the claim take
 * differs from one to the next, and two requests that leave too close together cost a 429. So each leaves a fixed
 * while after it was taken, and, within this process, never sooner than the interval after the one before.
 */

import { SECOND } from "../core/time.ts";

export type SteadySends = {
  /** The account's interval, as it is now. */
  readonly intervalMs: () => number;
  /** From taking an errand to sending it: longer than a row and a claim take but for a few in a thousand. */
  readonly offsetMs: number;
  readonly clock: () => number;
  readonly sleep: (ms: number) => Promise<unknown>;
};

/** Well within the time for which an intent is fresh. */
const LONGEST_WAIT_MS = 2 * SECOND;

/** Answers a function that resolves when an errand taken at `takenAtMs` may be sent. Turns go in the order of calls. */
export function steadySends({ intervalMs, offsetMs, clock, sleep }: SteadySends): (takenAtMs: number) => Promise<void> {
  let lastAtMs = Number.NEGATIVE_INFINITY;
  return async (takenAtMs) => {
    // Bounded, so that a rate that was raised since, or a clock that was set, delays an errand and stops none.
    const atMs = Math.min(Math.max(takenAtMs + offsetMs, lastAtMs + intervalMs()), clock() + LONGEST_WAIT_MS);
    lastAtMs = atMs;
    const leftMs = atMs - clock();
    if (leftMs > 0) await sleep(leftMs);
    // Woken late, or late to begin with: the next one is counted from here.
    lastAtMs = Math.min(Math.max(lastAtMs, clock()), clock() + LONGEST_WAIT_MS);
  };
}
