/**
 * What became of a batch's items, a line an item, in input order; also while it runs.
 *
 * Ended items are read from their receipts, the others from where they stand. Reads go in slices, a few at once, so
 * memory stays bounded however large the batch is.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { readRow } from "../bucket/input-parts.ts";
import { readEarlierAttempts, readReceipt } from "../bucket/records.ts";
import { shownAs } from "../core/batch.ts";
import { type ItemByte, isEnd } from "../core/item.ts";
import { type AccountName, type BatchId, itemId } from "../core/naming.ts";
import { type ResultLine, resultLineOf } from "../core/receipt.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { placeItems } from "./place-items.ts";

export type ResultsSource = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "readStates" | "readItem" | "partOf">;
};

const STATES_AT_ONCE = 65_536;
const READS_AT_ONCE = 32;

export async function* readResults(
  source: ResultsSource,
  batch: { readonly account: AccountName; readonly id: BatchId; readonly items: number },
): AsyncGenerator<ResultLine> {
  for (let start = 0; start < batch.items; start += STATES_AT_ONCE) {
    const states = await source.ledger.readStates(
      batch.account,
      batch.id,
      start,
      Math.min(STATES_AT_ONCE, batch.items - start),
    );
    for (let at = 0; at < states.length; at += READS_AT_ONCE) {
      yield* await Promise.all(
        states
          .slice(at, at + READS_AT_ONCE)
          .map((state, offset) => readResult(source, batch, start + at + offset, state)),
      );
    }
  }
}

/** One item's line. */
export async function readItemResult(
  source: ResultsSource,
  batch: { readonly account: AccountName; readonly id: BatchId },
  index: number,
): Promise<ResultLine> {
  const [state] = await source.ledger.readStates(batch.account, batch.id, index, 1);
  if (state === undefined) throw new RangeError(`Redis answered no state for item ${index} of batch ${batch.id}`);
  return readResult(source, batch, index, state);
}

async function readResult(
  { bucket, ledger }: ResultsSource,
  { account, id: batch }: { readonly account: AccountName; readonly id: BatchId },
  index: number,
  { attempt, state }: ItemByte,
): Promise<ResultLine> {
  if (isEnd(state)) {
    const receipt = await readReceipt(bucket, { batch, index, attempt });
    if (receipt !== null) return resultLineOf(receipt);
  }
  const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
  const row = place === undefined ? undefined : await readRow(bucket, batch, place);
  const { fields } = await ledger.readItem({ account, batch, index });
  const shown = shownAs(state);
  return {
    index,
    item: itemId(batch, index),
    id: row?.id ?? null,
    status: shown === "inFlight" ? "in_flight" : shown,
    prediction_id: fields.prediction_id ?? null,
    output: null,
    outputs: [],
    error: null,
    metrics: {},
    attempts: await readEarlierAttempts(bucket, { batch, index, attempt }),
  };
}
