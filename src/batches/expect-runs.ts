/**
 * What is known of an account's predictions when their next poll is decided: read from Redis every other second, since
 * every poll asks.
 */

import type { AccountName } from "../core/naming.ts";
import type { Expectation } from "../core/polling.ts";
import { COLD_RUN_TIMES, type LearnedRuns, learnedRuns } from "../core/run-times.ts";
import { SECOND } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";

export type RunsKnown = {
  readonly learned: LearnedRuns;
  /** Up to which age sweeps tell of ends now. */
  readonly sweptToMs: number;
  /** When a webhook was last asked for. */
  readonly toldAtMs: number;
};

export type Expectations = {
  readonly known: () => Promise<RunsKnown>;
  /** `told`: the provider was asked to call a webhook at its end. */
  readonly expect: (model: string | null, told: boolean) => Promise<Expectation>;
};

const FRESH_MS = 2 * SECOND;

export function openExpectations(
  account: AccountName,
  deps: { readonly ledger: Pick<Ledger, "runCounts" | "readFollowing">; readonly clock: () => number },
): Expectations {
  let last: { readonly atMs: number; readonly known: Promise<RunsKnown> } | null = null;

  async function read(nowMs: number): Promise<RunsKnown> {
    const [counts, following] = await Promise.all([
      deps.ledger.runCounts(account, nowMs),
      deps.ledger.readFollowing(account),
    ]);
    return {
      learned: learnedRuns(counts),
      sweptToMs: following.untilMs > nowMs ? following.toAgeMs : 0,
      toldAtMs: following.toldAtMs,
    };
  }

  function known(): Promise<RunsKnown> {
    const nowMs = deps.clock();
    if (last === null || Math.abs(nowMs - last.atMs) >= FRESH_MS) {
      const reading = read(nowMs);
      const mine = { atMs: nowMs, known: reading };
      last = mine;
      // What failed isn't kept: whoever asks next reads again.
      reading.catch(() => {
        if (last === mine) last = null;
      });
    }
    return last.known;
  }

  return {
    known,
    async expect(model, told) {
      const { learned, sweptToMs } = await known();
      const times = (model === null ? undefined : learned.byModel.get(model)) ?? COLD_RUN_TIMES;
      return { times, coveredToMs: told ? Number.POSITIVE_INFINITY : sweptToMs };
    },
  };
}
