/**
 * How often an item was to be bought: once, and again for each attempt that somebody decided: a person, by an act, or its
 * batch, which says so beforehand of failures of the provider's own. Whether an attempt failed so is asked of the
 * provider's books.
 */

import { readBatchActs } from "../../src/bucket/acts.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { type BatchId, itemId, parseItemId } from "../../src/core/naming.ts";
import type { PredictionRow } from "../../src/emulator/books.ts";
import type { ResultLine } from "../../src/index.ts";

/** So many times more the batch that came as a file buys what the provider failed. */
export const RETRY_FAILED = 1;
/** The one model that fails by itself, and gives no reason. */
const FAILS_BY_ITSELF = "outlast/flaky";

export type Decisions = {
  /** By item, 26 characters: the attempts that a person had followed by another. */
  readonly redriven: ReadonlyMap<string, ReadonlySet<number>>;
  /** Whether the item's batch buys again by itself. */
  readonly retries: (item: string) => boolean;
};

/** `file`: the batch that came as one. */
export async function readDecisions(bucket: Bucket, batches: ReadonlySet<BatchId>, file: BatchId): Promise<Decisions> {
  const redriven = new Map<string, Set<number>>();
  for (const batch of batches) {
    for (const act of await readBatchActs(bucket, batch)) {
      if (act.act !== "redrive") continue;
      for (const [index, ended] of act.items) {
        const item = itemId(batch, index);
        redriven.set(item, (redriven.get(item) ?? new Set()).add(ended));
      }
    }
  }
  return { redriven, retries: (item) => parseItemId(item)?.batch === file };
}

/** `rows`: of the provider's books, by prediction. */
export function purchasesOf(
  line: ResultLine,
  { redriven, retries }: Decisions,
  rows: ReadonlyMap<string, PredictionRow>,
): number {
  const followed = new Set(redriven.get(line.item));
  for (const { attempt, prediction_id: prediction } of line.attempts) {
    const row = rows.get(prediction ?? "");
    const failedByItself = row?.status === "failed" && row.model === FAILS_BY_ITSELF;
    if (failedByItself && retries(line.item) && attempt <= RETRY_FAILED) followed.add(attempt);
  }
  return 1 + followed.size;
}

/** Those of its attempts, and the one that it shows. */
export function predictionsOf({ prediction_id: last, attempts }: ResultLine): ReadonlySet<string> {
  return new Set([...attempts.map(({ prediction_id: id }) => id), last].filter((id) => id !== null));
}
