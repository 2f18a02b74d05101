/**
 * Turns what producers put into the inputs queue into items, and answers each with its item's id. When the item
 * ends, its results line goes to the queue that `reply_to` names (`record-metrics.ts`).
 *
 * A job that can't be an input fails in its queue with the reason, and the worker goes on. If this process dies,
 * the job is run again: its identity was noted before anything was fed, so it is the same item.
 */

import { InputRefused, type SingleInput } from "../src/batches/admit-single.ts";
import type { ItemId } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import type { InputJob } from "../src/queues/queues.ts";

export type AdmitDeps = {
  /** Throws InputRefused. */
  readonly readInput: (job: InputJob) => SingleInput;
  /** Throws InputRefused where the identity is another input's. */
  readonly admit: (input: SingleInput) => Promise<ItemId>;
};

export async function admitInputs(job: InputJob, deps: AdmitDeps): Promise<StageOutcome & { readonly value?: string }> {
  try {
    return { kind: "done", value: await deps.admit(deps.readInput(job)) };
  } catch (error) {
    if (!(error instanceof InputRefused)) throw error;
    return { kind: "unrecoverable", reason: error.message };
  }
}
