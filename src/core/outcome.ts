/**
 * What a stage may say when it returns. `src/queues/consume.ts` alone turns this into queue operations.
 * A thrown error means: try again, with backoff, while tries last; then a person must look at it.
 */
export type StageOutcome =
  | { readonly kind: "done" }
  /** There was nothing to do, yet: no trace of this errand stays, since its id would swallow the next one. */
  | { readonly kind: "nothing" }
  /** Run this errand again at `untilMs` (epoch); uses up no try and holds no slot. */
  | { readonly kind: "snooze"; readonly untilMs: number }
  /** Nobody takes from this queue for so long, and this errand comes first afterwards. */
  | { readonly kind: "rate-limit"; readonly forMs: number }
  /** No try can help; the job goes to the failed set with the reason. */
  | { readonly kind: "unrecoverable"; readonly reason: string };

export const DONE: StageOutcome = { kind: "done" };
export const NOTHING: StageOutcome = { kind: "nothing" };
