/**
 * Finishes a batch whose items have all ended: writes `results.jsonl`, a line an item in input order, then the
 * manifest, which is the last object of a batch, then notes it in Redis.
 *
 * A batch of singles is finished when its day is over; until then more may come. An item that is opened again while the
 * results are written isn't in them: then the batch isn't finished, and its next end is another's to tell.
 *
 * If this process dies, the next run writes the same results again; a manifest that tells of them stands.
 */

import type { Manifest } from "../src/bucket/records.ts";
import { haveAllEnded, progressOf } from "../src/core/batch.ts";
import { type BatchId, OBJECT_KEYS } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { DAY, HOUR, SECOND } from "../src/core/time.ts";
import type { BatchStanding } from "../src/ledger/ledger.ts";
import type { BatchErrand } from "../src/queues/queues.ts";

export type FinishDeps = {
  readonly standing: (errand: BatchErrand) => Promise<BatchStanding | null>;
  /** Answers what it wrote. */
  readonly writeResults: (
    standing: BatchStanding,
    signal: AbortSignal,
  ) => Promise<{ readonly bytes: number; readonly sha256: string }>;
  readonly writeManifest: (batch: BatchId, manifest: Manifest) => Promise<void>;
  /** False: something of the batch was opened again since it stood so. */
  readonly noteFinished: (standing: BatchStanding, nowMs: number) => Promise<boolean>;
  readonly clock: () => number;
};

/** An input that was admitted at the end of a day may be published a little later. */
const LATE_MS = HOUR;

export async function finishBatch(errand: BatchErrand, deps: FinishDeps, signal: AbortSignal): Promise<StageOutcome> {
  // What is opened again from now on is younger than the end that the manifest tells.
  const nowMs = deps.clock();
  const standing = await deps.standing(errand);
  if (standing === null || standing.finishedAtMs !== null || !isOver(standing, nowMs)) return DONE;

  const results = await deps.writeResults(standing, signal);
  const { saved, failed, canceled, items } = progressOf(standing.counts);
  await deps.writeManifest(errand.batch, {
    batch: errand.batch,
    name: standing.batch.name,
    account: errand.account,
    items,
    saved,
    failed,
    canceled,
    metrics: {
      predict_time: Number(standing.sums.predict_time_ms) / 1_000,
      output_files: Number(standing.sums.output_files),
      output_bytes: Number(standing.sums.output_bytes),
    },
    results: { key: OBJECT_KEYS.results(errand.batch), ...results },
    opened_at: new Date(standing.batch.openedAtMs).toISOString(),
    finished_at: new Date(nowMs).toISOString(),
  });
  if (await deps.noteFinished(standing, nowMs)) return DONE;
  // It may have ended again meanwhile, and whoever saw that found this errand here.
  return { kind: "snooze", untilMs: deps.clock() + SECOND };
}

function isOver({ batch, counts }: BatchStanding, nowMs: number): boolean {
  if (!haveAllEnded(counts)) return false;
  const dayEndsAtMs = (Math.floor(batch.openedAtMs / DAY) + 1) * DAY;
  return batch.kind === "file" || nowMs >= dayEndsAtMs + LATE_MS;
}
