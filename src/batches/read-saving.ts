/**
 * What the feed goes by that must not buy what can't be saved: how much waits, how fast it is saved, whether the bucket
 * is there.
 */

import { holdsCreatesMs } from "../core/breaking.ts";
import { type SavingFacts, savesPerMinute } from "../core/feeding.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";

export type ReadSavingDeps = {
  readonly ledger: Pick<Ledger, "savingMinutes" | "bucketBreaker">;
  readonly queues: Pick<Queues, "savingBacklog">;
  readonly clock: () => number;
};

export async function readSaving({ ledger, queues, clock }: ReadSavingDeps, filesKeptMs: number): Promise<SavingFacts> {
  const nowMs = clock();
  const [backlog, minutes, breaker] = await Promise.all([
    queues.savingBacklog(),
    ledger.savingMinutes(nowMs),
    ledger.bucketBreaker(),
  ]);
  const holds = breaker.state !== "closed" && holdsCreatesMs(breaker, nowMs) > 0;
  return { ...backlog, perMinute: savesPerMinute(minutes), filesKeptMs, bucketDown: holds ? breaker.reason : null };
}
