/** How fast a batch's items have been ending, over the last while. */

import { SECOND } from "../core/time.ts";

/** Long enough to be calm, short enough to show a stop. */
const WINDOW_MS = 15 * SECOND;
/** A rate from less would only be noise. */
const SHORTEST_MS = 2 * SECOND;

export type Sample = { readonly atMs: number; readonly ended: number };

/** Appends a sample, and drops what no window reaches any more. The one before the window's start stays: it is its base. */
export function withSample(samples: readonly Sample[], sample: Sample): readonly Sample[] {
  const all = [...samples, sample];
  const base = all.findLastIndex(({ atMs }) => atMs <= sample.atMs - WINDOW_MS);
  return all.slice(Math.max(base, 0));
}

/** Items a second up to `nowMs`; 0 while nobody can say. */
export function pacePerSecond(samples: readonly Sample[], nowMs: number): number {
  const [first] = samples;
  const last = samples.at(-1);
  if (first === undefined || last === undefined || nowMs - first.atMs < SHORTEST_MS) return 0;
  const startMs = Math.max(first.atMs, nowMs - WINDOW_MS);
  const base = samples.findLast(({ atMs }) => atMs <= startMs) ?? first;
  return ((last.ended - base.ended) * SECOND) / (nowMs - startMs);
}
