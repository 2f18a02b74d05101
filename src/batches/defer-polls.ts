/**
 * Puts off the polls of predictions that the provider's list shows running. A wake that comes at the same time wins: it
 * marks the item, then brings its poll forward, and a poll that is on its way isn't put off.
 */

import type { AccountName, AttemptRef } from "../core/naming.ts";
import { DEFAULT_POLL_POLICY } from "../core/polling.ts";
import { deferredPollMs } from "../core/waking.ts";
import type { Queues } from "../queues/enqueue.ts";

export type Deferral = {
  /** Polls that are due in less are put off, */
  readonly dueWithinMs: number;
  /** at least so long, */
  readonly quietMs: number;
  /** and never past this age of the prediction. */
  readonly reachMs: number;
};

export async function deferPolls(
  account: AccountName,
  refs: readonly AttemptRef[],
  { dueWithinMs, quietMs, reachMs }: Deferral,
  { queues, clock }: { readonly queues: Pick<Queues, "pollsDueBefore" | "deferFollow">; readonly clock: () => number },
): Promise<void> {
  const nowMs = clock();
  const due = await queues.pollsDueBefore(account, refs, nowMs + dueWithinMs);
  await Promise.all(
    due.map((ref) =>
      queues.deferFollow(ref, nowMs, (errand) => deferredPollMs(errand, nowMs, quietMs, reachMs, DEFAULT_POLL_POLICY)),
    ),
  );
}
