/** What the provider's books say was asked of it, and how late ends were known. */

import type { Audit } from "../../src/emulator/books.ts";

type Requests = Audit["requests"];

/** Requests of a route, or of all; with one outcome, or any: refused ones count. */
export function asked(requests: Requests, route: string | null = null, outcome: string | null = null): number {
  return Object.entries(requests)
    .filter(([name]) => name.startsWith("replicate ") && (route === null || name === `replicate ${route}`))
    .flatMap(([, outcomes]) => Object.entries(outcomes))
    .reduce((sum, [name, count]) => sum + (outcome === null || name === outcome ? count : 0), 0);
}

/** All that counts against the limit of other requests. */
export function readsIn(requests: Requests): number {
  return asked(requests) - asked(requests, "create");
}

export function percentile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)] ?? Number.NaN;
}

/** The most that was counted within any minute of these readings of a counter. */
export function mostAMinute(readings: readonly { readonly atMs: number; readonly count: number }[]): number {
  return readings.reduce((most, last, at) => {
    const first = readings.slice(0, at + 1).find(({ atMs }) => last.atMs - atMs <= MINUTE_MS) ?? last;
    return Math.max(most, last.count - first.count);
  }, 0);
}

const MINUTE_MS = 60_000;
