/**
 * What a copy of several files remembers from one run to the next, and when a file that its host refuses is believed to be
 * gone. A 404 or a 403 may be a host's bad moment, and what was paid for isn't given up for one: it has to come again and
 * again, over a while.
 */

import type { CopiedFile } from "./receipt.ts";
import { MINUTE } from "./time.ts";

// ── refusals ──────────────────────────────────────────────────────────────────

/** How often the file `n` of an output was refused, one time after the other, and since when. */
export type Refusal = { readonly n: number; readonly times: number; readonly sinceMs: number };

const TIMES_BELIEVED = 3;
const BELIEVED_AFTER_MS = 2 * MINUTE;
/** So long until it is asked for again. */
export const REFUSED_PAUSE_MS = MINUTE;

/** With those files that were refused this time; one that wasn't begins anew. */
export function noteRefusals(
  before: readonly Refusal[],
  refused: readonly number[],
  nowMs: number,
): readonly Refusal[] {
  const known = new Map(before.map((refusal) => [refusal.n, refusal]));
  return refused.map((n) => {
    const { times = 0, sinceMs = nowMs } = known.get(n) ?? {};
    return { n, times: times + 1, sinceMs };
  });
}

export function isBelieved({ times, sinceMs }: Refusal, nowMs: number): boolean {
  return times >= TIMES_BELIEVED && nowMs - sinceMs >= BELIEVED_AFTER_MS;
}

// ── progress ──────────────────────────────────────────────────────────────────

export type CopyProgress = { readonly copied: readonly CopiedFile[]; readonly refusals: readonly Refusal[] };

export const NO_PROGRESS: CopyProgress = { copied: [], refusals: [] };

/** It lies in Redis, in the item's hash; in characters. */
const LONGEST_PROGRESS = 32_768;

/** As text of bounded length: of very many files some are forgotten, and copied again. */
export function writeProgress({ copied, refusals }: CopyProgress): string {
  let left = LONGEST_PROGRESS;
  const fitting = <T>(things: readonly T[]): readonly T[] =>
    things.filter((thing) => {
      const { length } = JSON.stringify(thing);
      if (length > left) return false;
      left -= length + 1;
      return true;
    });
  return JSON.stringify({ refusals: fitting(refusals), copied: fitting(copied) } satisfies CopyProgress);
}

/** What `writeProgress` wrote. */
export function readProgress(text: string | undefined): CopyProgress {
  return text === undefined ? NO_PROGRESS : (JSON.parse(text) as CopyProgress);
}
