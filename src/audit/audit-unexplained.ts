/** What is nobody's on the provider's list: whose could it be? */

import { placeItems } from "../batches/place-items.ts";
import { BucketError } from "../bucket/bucket.ts";
import { parseRow, readRow } from "../bucket/input-parts.ts";
import { couldBe } from "../core/matching.ts";
import { type AttemptRef, errandId, itemId, OBJECT_KEYS } from "../core/naming.ts";
import type { PredictionId } from "../core/prediction.ts";
import { latestAfterIntentMs } from "../core/sweeping.ts";
import type { BatchStanding } from "../ledger/ledger.ts";
import { type Audit, type AuditDeps, disagreement } from "./audit.ts";
import { type AuditFinding, iso } from "./findings.ts";

const ROWS_AT_ONCE = 64;
const IDS_AT_ONCE = 500;
/** An account has twenty unclear items before nothing more is bought; more can come from claims that Redis lost. */
const MAX_UNCLEAR_LOOKED_FOR = 1_000;
const MAX_INTENTS = 10_000;

/** What was on its way when the list was read may have been bound since; and Redis knows other batches' predictions. */
export async function lookAgain({ account, deps, book }: Audit): Promise<void> {
  const ids = book.loose().map(({ id }) => id);
  for (let at = 0; at < ids.length; at += IDS_AT_ONCE) {
    const some: readonly PredictionId[] = ids.slice(at, at + IDS_AT_ONCE);
    for (const [id, holder] of await deps.ledger.holdersAmong(account, some, deps.clock())) book.bind(id, holder);
  }
}

export async function* findUnclear(audit: Audit): AsyncGenerator<AuditFinding> {
  const { deps, book, read } = audit;
  const { skewMs } = deps.policy;
  const loose = book.loose();
  const offsetMs = read?.offsetMs ?? 0;
  const looked = audit.unclear.length === 0 ? [] : await deps.ledger.intents(audit.account, "unclear", MAX_INTENTS);
  const lookedFor = new Set(looked.map(({ ref }) => errandId(ref)));
  for (const [at, { ref, fromMs, toMs }] of audit.unclear.entries()) {
    const { account, batch, index, attempt } = ref;
    if (looked.length < MAX_INTENTS && !lookedFor.has(errandId(ref)) && (await isUnclear(deps, ref))) {
      yield disagreement(
        audit,
        batch,
        index,
        "Redis says unclear, and doesn't list it among those that are looked for",
      );
    }
    const inTime = loose.filter(
      ({ createdAtMs }) =>
        !(createdAtMs < (fromMs ?? Number.NaN) + offsetMs - skewMs) &&
        !(createdAtMs > toMs + offsetMs + latestAfterIntentMs(deps.policy)),
    );
    const input = inTime.length === 0 || at >= MAX_UNCLEAR_LOOKED_FOR ? null : await inputOf(deps, ref);
    yield {
      finding: "unclear",
      account,
      batch,
      item: itemId(batch, index),
      index,
      attempt,
      since: iso(fromMs),
      candidates: input === null ? [] : inTime.filter((run) => couldBe(input, run.input)).map(({ id }) => id),
    };
  }
}

/** It may have been resolved meanwhile. */
async function isUnclear({ ledger }: AuditDeps, ref: AttemptRef): Promise<boolean> {
  const { attempt, state } = await ledger.readItem(ref);
  return attempt === ref.attempt && state === "unclear";
}

async function inputOf({ bucket, ledger }: AuditDeps, { account, batch, index }: AttemptRef) {
  const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
  return place === undefined ? null : (await readRow(bucket, batch, place)).input;
}

/** Whose could it be? Every row of a batch is asked, also those that say they were never sent. */
export async function* compareRows(
  audit: Audit,
  batch: BatchStanding["batch"],
  signal: AbortSignal,
): AsyncGenerator<AuditFinding> {
  const { deps, book, read } = audit;
  if (read === null) return;
  const fromMs = batch.openedAtMs + read.offsetMs - deps.policy.skewMs;
  if (!book.open(batch.id, fromMs)) return;
  try {
    for (let index = 0; index < batch.items; ) {
      signal.throwIfAborted();
      const inputs = await readInputs(deps, batch, index);
      for (const [at, input] of inputs.entries()) book.compare(itemId(batch.id, index + at), input, fromMs);
      index += inputs.length;
    }
  } catch (error) {
    if (error instanceof BucketError || signal.aborted) throw error;
    // What can't be compared could be ours.
    book.suspect(batch.id, fromMs);
    yield disagreement(audit, batch.id, null, `its input can't be read: ${(error as Error).message}`);
  }
}

/** Of some rows from an index on, at least one. */
async function readInputs(
  { bucket, ledger }: AuditDeps,
  { account, id, items }: BatchStanding["batch"],
  index: number,
) {
  const places = await placeItems({ bucket, ledger }, account, id, index, Math.min(ROWS_AT_ONCE, items - index));
  const [first] = places;
  const last = places.at(-1);
  if (first === undefined || last === undefined) throw new Error(`item ${index} stands in no part of it`);
  const bytes = await bucket.getRange(
    OBJECT_KEYS.input(id, first.part),
    first.offset,
    last.offset + last.length - first.offset,
  );
  if (bytes === null || bytes.length !== last.offset + last.length - first.offset)
    throw new Error(`part ${first.part} is short`);
  return places.map(({ offset, length }) => {
    const start = offset - first.offset;
    return parseRow(bytes.toString("utf8", start, start + length)).input;
  });
}
