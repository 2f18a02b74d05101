/**
 * The provider's list of an account, as far as an audit needs and a bound allows: who was created between two moments, and
 * who of them Redis knows to be ours. Pages are read no faster than a part of the account's limit, since work goes on.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { type ListedRun, type ListSpan, listedRun } from "../core/list-book.ts";
import type { AccountName } from "../core/naming.ts";
import { MINUTE } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";

export type ListDeps = {
  readonly ledger: Pick<Ledger, "holdersAmong">;
  readonly list: NonNullable<Provider["list"]>;
  /** Between one page and the next. */
  readonly pauseMs: number;
  /** A hundred predictions each. */
  readonly maxPages: number;
  readonly clock: () => number;
};

export type ReadList = {
  readonly runs: readonly ListedRun[];
  readonly span: ListSpan;
  /** To be added to a moment on our clock to get the provider's. */
  readonly offsetMs: number;
  /** Why not all of it was read; null: it was. */
  readonly stoppedBy: string | null;
};

/** The provider's clock and ours may be so far apart. */
const CLOCKS_MS = 10 * MINUTE;

export async function readProviderList(
  account: AccountName,
  wanted: { readonly fromMs: number; readonly toMs: number },
  deps: ListDeps,
  signal: AbortSignal,
): Promise<ReadList> {
  const [afterMs, beforeMs] = [wanted.fromMs - CLOCKS_MS, wanted.toMs + CLOCKS_MS];
  const startedAtMs = deps.clock();
  const runs: ListedRun[] = [];
  let offsetMs = 0;
  let oldestMs = Number.POSITIVE_INFINITY;
  const read = (stoppedBy: string | null): ReadList => ({
    runs,
    offsetMs,
    stoppedBy,
    span: { afterMs, beforeMs, readAtMs: startedAtMs + offsetMs, complete: stoppedBy === null, oldestMs },
  });

  let next: string | undefined;
  for (let page = 0; page < deps.maxPages; page++) {
    if (page > 0) await sleep(deps.pauseMs, undefined, { signal });
    const query = { after: new Date(afterMs).toISOString(), before: new Date(beforeMs).toISOString() };
    try {
      const answer = await deps.list(next === undefined ? query : { next }, signal);
      // Without its word on the time, the provider's clock is believed to be ours.
      if (page === 0) offsetMs = (answer.serverDate?.getTime() ?? startedAtMs) - startedAtMs;
      const ids = answer.predictions.map(({ id }) => id);
      const holders = await deps.ledger.holdersAmong(account, ids, deps.clock());
      for (const prediction of answer.predictions) {
        const holder = holders.get(prediction.id) ?? null;
        // What is ours needn't be compared, and inputs may be large.
        const run = listedRun(prediction, holder === null ? answer.inputs.get(prediction.id) : undefined, holder);
        if (run.createdAtMs < oldestMs) oldestMs = run.createdAtMs;
        runs.push(run);
      }
      next = answer.next;
    } catch (error) {
      if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
      return read(error.message);
    }
    if (next === undefined) return read(null);
  }
  return read(`it is longer than the ${deps.maxPages * 100} predictions that are read of it`);
}
