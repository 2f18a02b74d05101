/**
 * Turns what producers put into the inputs queue into items, and answers each with its item's id. When the item
 * ends, its results line goes to the queue that `reply_to` names (`record-metrics.ts`).
 *
 * A job that can't be an input fails in its queue with the reason, and the worker goes on. Any other trouble is waited
 * out, since a producer's job has only as many tries as the producer gave it. If this process dies, the job is run
 * again: its identity was noted before anything was fed, so it is the same item.
 */

import { InputRefused, type SingleInput } from "../src/batches/single-input.ts";
import type { ItemId } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import { SECOND } from "../src/core/time.ts";
import type { InputJob } from "../src/queues/queues.ts";

export type AdmitDeps = {
  /** Throws InputRefused. */
  readonly readInput: (job: InputJob) => SingleInput;
  /** Throws InputRefused where the identity is another input's. */
  readonly admit: (input: SingleInput) => Promise<{ readonly item: ItemId }>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly clock: () => number;
};

const PAUSE_MS = 5 * SECOND;

export async function admitInputs(job: InputJob, deps: AdmitDeps): Promise<StageOutcome & { readonly value?: string }> {
  try {
    return { kind: "done", value: (await deps.admit(deps.readInput(job))).item };
  } catch (error) {
    if (error instanceof InputRefused) return { kind: "unrecoverable", reason: error.message };
    deps.warn({ job: job.jobId, err: error }, "an input couldn't be admitted; it is tried again in a few seconds");
    return { kind: "snooze", untilMs: deps.clock() + PAUSE_MS };
  }
}
