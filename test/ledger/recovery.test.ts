/** A batch that Redis has lost comes back whole, however much of it there is. */

import { expect } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import { type ItemState, writeItemByte } from "../../src/core/item.ts";
import { predictionId } from "../../src/core/prediction.ts";
import type { Ledger, OpenIntent } from "../../src/ledger/ledger.ts";
import type { RestoredBatch } from "../../src/ledger/recovery.ts";
import { ACCOUNT, NOON, newBatch, refOf, test } from "../support/stages.ts";

const ITEMS = 4_500;

/** Half of its items are recorded, with the predictions that they hold; the others may have been bought. */
function halfRecorded(): RestoredBatch {
  const batch = newBatch({ items: ITEMS });
  const half = ITEMS / 2;
  const indexes = Array.from({ length: ITEMS }, (_, index) => index);
  const counts: ReadonlyMap<ItemState, number> = new Map([
    ["saved", half],
    ["unclear", half],
  ]);
  return {
    batch,
    fed: ITEMS,
    cursor: ITEMS,
    parts: [0],
    bytes: Uint8Array.from(indexes, (index) =>
      writeItemByte({ attempt: 1, state: index < half ? "saved" : "unclear" }),
    ),
    counts,
    sums: { predict_time_ms: 0n, output_bytes: 0n, output_files: 0n, not_saved: 0n },
    failures: new Map(),
    latest: [],
    unclear: indexes
      .slice(half)
      .map((index) => ({ index, attempt: 1, fromMs: NOON - 1_000, toMs: NOON, cancel: index % 2 === 1 })),
    duplicates: [],
    bound: new Map(indexes.slice(0, half).map((index) => [`p${index}`, `${batch.id}-${index}-1`])),
    lostByMs: NOON,
    acts: 0,
    paused: null,
    canceledAtMs: null,
    finishedAtMs: null,
  };
}

async function unclearOf({ id }: Batch, ledger: Pick<Ledger, "intents">): Promise<readonly OpenIntent[]> {
  const intents = await ledger.intents(ACCOUNT, "unclear", 10 * ITEMS);
  return intents.filter(({ ref }) => ref.batch === id);
}

test("every unclear item and every prediction that is held", async ({ line: { ledger } }) => {
  const restored = halfRecorded();
  const { batch } = restored;
  expect(await ledger.restoreBatch(restored)).toBe(true);

  expect((await ledger.standing(ACCOUNT, batch.id))?.counts).toMatchObject({ saved: ITEMS / 2, unclear: ITEMS / 2 });
  const intents = await unclearOf(batch, ledger);
  expect(new Set(intents.map(({ ref }) => ref.index))).toEqual(new Set(restored.unclear.map(({ index }) => index)));
  expect(new Set(intents.map(({ fromMs, toMs }) => toMs - fromMs))).toEqual(new Set([1_000]));
  const held = [...restored.bound.keys()].map(predictionId);
  expect((await ledger.holdersAmong(ACCOUNT, held, NOON)).size).toBe(held.length);
});

test("one that Redis knows is left as it is, item by item", async ({ line: { ledger } }) => {
  const restored = halfRecorded();
  await ledger.restoreBatch(restored);
  const ref = refOf(restored.batch, ITEMS - 1);
  await ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("found") });

  expect(await ledger.restoreBatch(restored)).toBe(false);
  expect(await unclearOf(restored.batch, ledger)).toHaveLength(restored.unclear.length - 1);
});
