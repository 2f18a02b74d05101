/**
 * Cancels one item. One that waits ends at once, unbought. One that is bought is marked, and its next poll, which is
 * brought forward, cancels it at the provider; what succeeded anyway is kept. Recorded in the bucket first.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { writeBatchAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import { type ItemState, isEnd } from "../core/item.ts";
import { type AttemptRef, itemId } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { CANCELED_BY_A_PERSON, type WithdrawDeps, withdrawItem } from "./withdraw-item.ts";

export type CancelDeps = WithdrawDeps & {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "move" | "markItem" | "readItem" | "nextAct">;
  readonly queues: WithdrawDeps["queues"] & Pick<Queues, "wakeFollow">;
};

/** Between a claim and its give-back an item is hard to catch: the withdrawal is tried so often. */
const ROUNDS = 100;

/** Answers where the item stands now; an item that has ended stays as it is. */
export async function cancelItem(
  { state, ...found }: AttemptRef & { readonly state: ItemState },
  row: StoredRow,
  deps: CancelDeps,
): Promise<ItemState> {
  if (isEnd(state)) return state;
  const { account, batch, index } = found;
  const number = await deps.ledger.nextAct({ account, id: batch });
  await writeBatchAct(deps.bucket, batch, number, { act: "cancel", items: [index] }, deps.clock());

  let ref: AttemptRef = found;
  for (let round = 0; round < ROUNDS; round++) {
    const withdrawn = await withdrawItem(ref, row, CANCELED_BY_A_PERSON, deps);
    // Redis may have lost that it was bought: whoever looks into that finds the act, too.
    if (withdrawn.answer === "unopened") return withdrawn.state;
    if (withdrawn.answer !== "lost") return "canceled";
    const stands = await deps.ledger.markItem(ref, "cancel");
    if (stands === null) {
      // Its attempt ended meanwhile, and another was opened: that one is to end, too.
      const { attempt, state: now } = await deps.ledger.readItem(ref);
      if (isEnd(now)) return now;
      ref = { account, batch, index, attempt };
      continue;
    }
    // A mark needs somebody who works on the item. It waits again: nobody does.
    if (stands === "waiting") continue;
    // Refused while a poll runs: that one may have looked for marks a moment too early.
    if (stands === "running" && !(await deps.queues.wakeFollow(ref))) {
      await sleep(SECOND);
      await deps.queues.wakeFollow(ref);
    }
    return stands;
  }
  throw new Error(
    `item ${itemId(batch, index)} was claimed and given back ${ROUNDS} times while it was to be canceled`,
  );
}
