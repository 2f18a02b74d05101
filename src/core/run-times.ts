/**
 * How long predictions of a model take, from their creation to their end, as learned from those that ended: what a
 * poller waits for. Kept as counts in buckets whose bounds grow by an eighth of an octave (9 %), so that a model's day
 * is a few dozen small numbers.
 */

import type { Prediction } from "./prediction.ts";
import { SECOND } from "./time.ts";

export type RunTimes = {
  /** One in twenty takes less. */
  readonly p5Ms: number;
  readonly medianMs: number;
  /** One in twenty takes more. */
  readonly p95Ms: number;
};

/** What a prediction's run time is learned under, as the provider shows it; null: it doesn't say. */
export function modelOf({ model, version }: Pick<Prediction, "model" | "version">): string | null {
  return model ?? version;
}

/** What a poller waited for, by the provider's clock alone; null: it doesn't say, or nothing ran to its own end. */
export function runMsOf({ status, createdAt, completedAt }: Prediction): number | null {
  if (status !== "succeeded" && status !== "failed") return null;
  const ms = Date.parse(completedAt ?? "") - Date.parse(createdAt ?? "");
  return ms >= 0 ? ms : null;
}

/** Bucket → how many. */
export type RunCounts = ReadonlyMap<number, number>;

/** What is expected of a model that nothing is known about. Nothing is too young to have ended. */
export const COLD_RUN_TIMES: RunTimes = { p5Ms: 0, medianMs: 2 * SECOND, p95Ms: 15 * SECOND };

const SHORTEST_MS = 100;
const PER_OCTAVE = 8;
/** Up to some 30 hours; whatever takes longer is counted with those. */
const LAST_BUCKET = 20 * PER_OCTAVE;
/** Fewer say nothing about one in twenty. */
const FEWEST_RUNS = 10;

/** A bucket ends at `upperBoundMs`, its end included. */
export function bucketOf(runMs: number): number {
  const bucket = Math.ceil(Math.log2(Math.max(runMs, SHORTEST_MS) / SHORTEST_MS) * PER_OCTAVE);
  return Math.min(bucket, LAST_BUCKET);
}

export function upperBoundMs(bucket: number): number {
  return Math.round(SHORTEST_MS * 2 ** (bucket / PER_OCTAVE));
}

export function isBucket(number: number): boolean {
  return Number.isInteger(number) && number >= 0 && number <= LAST_BUCKET;
}

/** Null: too few have ended. The median and `p95Ms` are rounded up to the bucket's end, `p5Ms` down to its beginning. */
export function runTimesOf(counts: RunCounts): RunTimes | null {
  const buckets = [...counts].toSorted(([a], [b]) => a - b);
  const total = buckets.reduce((sum, [, count]) => sum + count, 0);
  if (total < FEWEST_RUNS) return null;
  const bucketAt = (share: number): number => {
    let below = 0;
    for (const [bucket, count] of buckets) {
      below += count;
      if (below >= share * total) return bucket;
    }
    return LAST_BUCKET;
  };
  const first = bucketAt(0.05);
  return {
    p5Ms: first === 0 ? 0 : upperBoundMs(first - 1),
    medianMs: upperBoundMs(bucketAt(0.5)),
    p95Ms: upperBoundMs(bucketAt(0.95)),
  };
}

/** What an account's models take, together and one by one. */
export type LearnedRuns = {
  /** Of all that ended, whichever model they ran; null: nothing is known. */
  readonly all: RunTimes | null;
  readonly byModel: ReadonlyMap<string, RunTimes>;
};

export function learnedRuns(counts: ReadonlyMap<string, RunCounts>): LearnedRuns {
  const all = new Map<number, number>();
  const byModel = new Map<string, RunTimes>();
  for (const [model, ofModel] of counts) {
    for (const [bucket, count] of ofModel) all.set(bucket, (all.get(bucket) ?? 0) + count);
    const times = runTimesOf(ofModel);
    if (times !== null) byModel.set(model, times);
  }
  return { all: runTimesOf(all), byModel };
}
