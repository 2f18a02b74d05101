/**
 * Sets an account's rates by hand, or back to those of the settings: recorded in the bucket, then live on every worker. A
 * rate that a person set stands until he sets another, or the settings change: the act names those that it replaced, so
 * that it holds on another Redis, too (`restore-limits.ts`). If this process dies after the act, nothing
 * has happened but for the note; it can be said again.
 */

import { writeAccountAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { AccountName } from "../core/naming.ts";
import { effectiveRate, freshPace, type Pace, type Rate, withRate } from "../core/pacing.ts";
import { queueWindows } from "../gates/account-gate.ts";
import type { Ledger, Limited } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";

export type LimitDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "readBudgets" | "changePace" | "configuredRates">;
  readonly queues: Pick<Queues, "setRate" | "wakeFeed">;
  readonly clock: () => number;
};

/** A minute; null: what the settings say. What isn't named stays. */
export type WantedLimits = { readonly creates?: number | null; readonly reads?: number | null };

export type LimitAnswer = Readonly<Record<Limited, Pace>>;

/** Null: no worker has worked for such an account yet. */
export async function limitAccount(
  account: AccountName,
  wanted: WantedLimits,
  deps: LimitDeps,
): Promise<LimitAnswer | null> {
  const { ledger, queues, bucket, clock } = deps;
  const configured = await ledger.configuredRates(account);
  if (configured === null) return null;

  const replaced = { creates: settingOf(configured.creates), reads: settingOf(configured.reads) };
  await writeAccountAct(bucket, account, { act: "limit", ...wanted, replaced }, clock());
  const change = async (limited: Limited): Promise<Pace> => {
    const perMinute = wanted[limited];
    const rate = configured[limited];
    return ledger.changePace(account, limited, freshPace(rate), (before) =>
      perMinute === undefined ? before : withRate(before, rateOf(perMinute, rate), perMinute !== null),
    );
  };
  const paces = { creates: await change("creates"), reads: await change("reads") };
  const nowMs = clock();
  const windows = queueWindows(account, effectiveRate(paces.creates, nowMs), effectiveRate(paces.reads, nowMs));
  for (const [queue, window] of windows) await queues.setRate(queue, window);
  await queues.wakeFeed(account);
  return paces;
}

function settingOf({ perMinute, toleratesBurst }: Rate) {
  return { per_minute: perMinute, tolerates_burst: toleratesBurst };
}

function rateOf(perMinute: number | null, configured: Rate): Rate {
  return perMinute === null ? configured : { ...configured, perMinute };
}
