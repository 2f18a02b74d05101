/**
 * Even intervals between creates, for a provider that tolerates no burst.
 *
 * Errands are taken at even intervals, since the queue's limit is the fleet's. But what the row and the claim take
 * differs from one to the next, and two requests that leave too close together cost a 429. So each leaves a fixed
 * while after it was taken, and, within this process, never sooner than the interval after the one before.
 */

export type SteadySends = {
  /** The account's interval. */
  readonly intervalMs: number;
  /** From taking an errand to sending it: longer than a row and a claim take but for a few in a thousand. */
  readonly offsetMs: number;
  readonly clock: () => number;
  readonly sleep: (ms: number) => Promise<unknown>;
};

/** Answers a function that resolves when an errand taken at `takenAtMs` may be sent. Turns go in the order of calls. */
export function steadySends({ intervalMs, offsetMs, clock, sleep }: SteadySends): (takenAtMs: number) => Promise<void> {
  let lastAtMs = Number.NEGATIVE_INFINITY;
  return async (takenAtMs) => {
    const atMs = Math.max(takenAtMs + offsetMs, lastAtMs + intervalMs);
    lastAtMs = atMs;
    const leftMs = atMs - clock();
    if (leftMs > 0) await sleep(leftMs);
    // Woken late, or late to begin with: the next one is counted from here.
    lastAtMs = Math.max(lastAtMs, clock());
  };
}
