/**
 * A stage that writes to the bucket, behind its gate: while the bucket is down each job waits for its turn to find out, in
 * the queue's own order, holds no slot and uses up no try. What a bucket refused inside the errand's deadline is tried again
 * after a moment, never at the same moment as the others; after it, the failure is a job's like any other. So it is where
 * one errand is refused again and again while the bucket takes others: nobody else would tell of it.
 */

import { LRUCache } from "lru-cache";
import { NoLargeSlot } from "../src/bucket/large-files.ts";
import { type AttemptRef, errandId } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import { SECOND } from "../src/core/time.ts";
import { type BucketGate, isBucketTrouble } from "../src/gates/bucket-gate.ts";

type Stage<Errand> = (errand: Errand, signal: AbortSignal) => Promise<StageOutcome>;

export type ThroughBucketDeps<Errand> = {
  readonly gate: Pick<BucketGate, "enter" | "isClosed">;
  /** Until when the errand is tried again without a word. */
  readonly deadlineMs: (errand: Errand) => number;
  readonly clock: () => number;
  readonly random: () => number;
};

const RETRY_MS = 2 * SECOND;
const LARGE_WAIT_MS = 2 * SECOND;
/** As many as open the breaker where nothing else is written. */
const REFUSALS_OF_ONE = 5;
const MAX_REMEMBERED = 10_000;

export function throughBucket<Errand extends AttemptRef>(
  stage: Stage<Errand>,
  deps: ThroughBucketDeps<Errand>,
): Stage<Errand> {
  const { gate, clock, random } = deps;
  /** One to two times as long, so that not all come at once. */
  const snooze = (ms: number): StageOutcome => ({ kind: "snooze", untilMs: clock() + Math.ceil(ms * (1 + random())) });
  const refusals = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  async function isAlone(errand: Errand): Promise<boolean> {
    const times = (refusals.get(errandId(errand)) ?? 0) + 1;
    refusals.set(errandId(errand), times);
    return times >= REFUSALS_OF_ONE && (await gate.isClosed());
  }
  return async (errand, signal) => {
    const pass = await gate.enter();
    if (pass.waitMs > 0) return snooze(Math.max(pass.waitMs, SECOND));
    try {
      const outcome = await stage(errand, signal);
      refusals.delete(errandId(errand));
      return outcome;
    } catch (error) {
      if (error instanceof NoLargeSlot) return snooze(LARGE_WAIT_MS);
      if (isBucketTrouble(error) && clock() < deps.deadlineMs(errand) && !(await isAlone(errand))) {
        return snooze(RETRY_MS);
      }
      throw error;
    } finally {
      await pass.leave();
    }
  };
}
