/**
 * A person's word on unclear items, where nobody and nothing else can tell: to buy them again, which pays twice if the
 * first request did arrive, or to give them up. Recorded in the bucket before it takes effect.
 *
 * If this process dies in between, the items that were told are told, and saying it again does the rest. A prediction
 * that comes to light later still finds its item, if that has none by then; else it is booked as a duplicate.
 */

import { has, type MultiIntegerRange } from "multi-integer-range";
import { writeBatchAct } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { keepEnding } from "../bucket/endings.ts";
import type { Batch } from "../core/batch.ts";
import type { AttemptRef } from "../core/naming.ts";
import type { Ending } from "../core/receipt.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { claimFields } from "./claim-fields.ts";
import { readItemRow } from "./place-items.ts";
import { CANCELED_BY_A_PERSON, type WithdrawDeps, withdrawItem } from "./withdraw-item.ts";

export type Resolve = "resend" | "fail";

export type ResolveDeps = WithdrawDeps & {
  readonly bucket: Bucket;
  readonly ledger: WithdrawDeps["ledger"] & Pick<Ledger, "readStates" | "readItem" | "nextAct" | "partOf">;
  readonly queues: WithdrawDeps["queues"] & Pick<Queues, "wakeFeed" | "record">;
};

const GIVEN_UP = "nobody knows whether the provider accepted its request; a person gave it up";
const STATES_AT_ONCE = 65_536;
/** Items of one act. */
const SLICE = 10_000;

/** `indexes`: only these. Answers how many items were told; those that were resolved meanwhile are not. */
export async function resolveUnclearItems(
  batch: Batch,
  as: Resolve,
  indexes: MultiIntegerRange | null,
  deps: ResolveDeps,
): Promise<number> {
  let told = 0;
  let slice: AttemptRef[] = [];
  for await (const ref of unclearItems(batch, indexes, deps)) {
    slice.push(ref);
    if (slice.length < SLICE) continue;
    told += await resolveSlice(batch, as, slice, deps);
    slice = [];
  }
  told += await resolveSlice(batch, as, slice, deps);
  if (as === "resend" && told > 0) await deps.queues.wakeFeed(batch.account);
  return told;
}

async function* unclearItems(
  { account, id, items }: Batch,
  indexes: MultiIntegerRange | null,
  { ledger }: ResolveDeps,
): AsyncGenerator<AttemptRef> {
  for (let start = 0; start < items; start += STATES_AT_ONCE) {
    const states = await ledger.readStates(account, id, start, Math.min(STATES_AT_ONCE, items - start));
    for (const [at, { state, attempt }] of states.entries()) {
      const index = start + at;
      if (state !== "unclear" || (indexes !== null && !has(indexes, [[index, index]]))) continue;
      yield { account, batch: id, index, attempt };
    }
  }
}

async function resolveSlice(
  batch: Batch,
  as: Resolve,
  refs: readonly AttemptRef[],
  deps: ResolveDeps,
): Promise<number> {
  if (refs.length === 0) return 0;
  const act = { act: "resolve" as const, as, items: refs.map(({ index }) => index) };
  await writeBatchAct(deps.bucket, batch.id, await deps.ledger.nextAct(batch), act, deps.clock());
  let told = 0;
  for (const ref of refs) {
    const { attempt, state, fields } = await deps.ledger.readItem(ref);
    if (attempt !== ref.attempt || state !== "unclear") continue;
    told += (await (as === "resend" ? resend : giveUp)(ref, fields.nonce ?? null, deps)) ? 1 : 0;
  }
  return told;
}

async function resend(ref: AttemptRef, nonce: string | null, deps: ResolveDeps): Promise<boolean> {
  const moved = await deps.ledger.move(ref, "giveBack", named(nonce, deps));
  if (moved.answer === "canceled") await withdrawItem(ref, await readItemRow(deps, ref), CANCELED_BY_A_PERSON, deps);
  return moved.answer === "moved" || moved.answer === "canceled";
}

async function giveUp(ref: AttemptRef, nonce: string | null, deps: ResolveDeps): Promise<boolean> {
  const ending: Ending = { end: "failed", error: GIVEN_UP, answer: null, copied: [] };
  // What the claim had written may be lost with it.
  const set = { ...claimFields(await readItemRow(deps, ref)), ending: await keepEnding(deps.bucket, ref, ending) };
  const moved = await deps.ledger.move(ref, "refuse", { ...named(nonce, deps), set });
  if (moved.answer !== "lost") await deps.queues.record(ref);
  return moved.answer === "moved";
}

/** Only if the intent that stands is the one that was looked at. */
function named(nonce: string | null, { clock }: ResolveDeps) {
  return { nowMs: clock(), ...(nonce !== null && { nonce }) };
}
