/** The ledger's scripts against their model, and against what must hold of any history. */

import fc from "fast-check";
import type { Redis } from "ioredis";
import { expect } from "vitest";
import { ITEM_STATES, type ItemState, writeItemByte } from "../../src/core/item.ts";
import { errandId, REDIS_KEYS } from "../../src/core/naming.ts";
import { NOON, newBatch, openedAccount, test } from "../support/stages.ts";
import { anyCommand, carryOut, type Pair } from "./commands.ts";
import { Model, type ModelItem, RETRY_FAILED } from "./model.ts";
import { Witness } from "./witness.ts";

test("the scripts do exactly what the model does, whatever comes in whatever order and however often", {
  timeout: 240_000,
}, async ({ line }) => {
  const { ledger, redis } = line;
  let run = 0;
  const world = fc.tuple(
    fc.array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 4 }),
    fc.array(anyCommand, { minLength: 1, maxLength: 50, size: "max" }),
  );

  await fc.assert(
    fc.asyncProperty(world, async ([attempts, commands]) => {
      const account = await openedAccount(ledger, `property-${run++}`);
      const batch = newBatch({ account, kind: "singles", items: 0, retryFailed: RETRY_FAILED });
      await ledger.openBatch(batch);
      for (const index of attempts.keys()) {
        await ledger.publishPart(batch, { part: index, first: index, rows: 1, voidIndexes: [] });
      }
      const bytes = Buffer.from(attempts.map((attempt) => writeItemByte({ attempt, state: "waiting" })));
      await redis.setrange(REDIS_KEYS.bytes(account, batch.id), 0, bytes);
      await ledger.advance(account, batch.id, { before: 0, after: attempts.length }, [], NOON);

      const pair = { ledger, batch, model: new Model(attempts), witness: new Witness(ledger, batch) };
      for (const command of commands) {
        await carryOut(pair, command);
        await pair.witness.look();
        expect(await seenOf(redis, pair), JSON.stringify(command, plain)).toEqual(expectedOf(pair));
      }
    }),
    { numRuns: 400 },
  );
});

/** All that the ledger has of the batch and its account. */
async function seenOf(redis: Redis, { ledger, batch, model }: Pair) {
  const { account, id } = batch;
  const indexes = [...model.items.keys()];
  const sorted = async (key: string) => (await redis.zrange(key, 0, "-1")).toSorted();
  const [standing, states, open, unclear, claimed, returned, unfed, canceling, intents, items] = await Promise.all([
    ledger.standing(account, id),
    ledger.readStates(account, id, 0, indexes.length),
    sorted(REDIS_KEYS.open(account)),
    sorted(REDIS_KEYS.unclear(account)),
    sorted(REDIS_KEYS.claimed(account)),
    redis.smembers(REDIS_KEYS.returned(account, id)),
    ledger.unfedBatches(account, 10),
    ledger.cancelingBatches(account, 10),
    ledger.intents(account, "unclear", 100),
    Promise.all(indexes.map((index) => ledger.readItem({ account, batch: id, index }))),
  ]);
  return {
    rows: standing?.batch.items,
    counts: standing?.counts,
    sums: standing?.sums,
    paused: standing?.paused,
    canceledAtMs: standing?.canceledAtMs,
    states,
    open,
    unclear,
    claimed,
    returned: returned.toSorted(),
    unfed,
    canceling,
    intents: intents.map(({ ref, fromMs, toMs }) => [ref.index, fromMs, toMs]).toSorted(byIndex),
    items: items.map(({ fields }) => ({
      nonce: fields.nonce ?? null,
      prediction: fields.prediction_id ?? null,
      marks: MARKS.filter((mark) => mark in fields),
    })),
  };
}

/** The same, as the model has it. */
function expectedOf({ batch: { id }, model }: Pair): Awaited<ReturnType<typeof seenOf>> {
  const members = (of: (item: ModelItem) => boolean) =>
    model.items
      .flatMap((item, index) => (of(item) ? [errandId({ batch: id, index, attempt: item.byte.attempt })] : []))
      .toSorted();
  return {
    rows: model.items.length,
    counts: Object.fromEntries(ITEM_STATES.map((state) => [state, model.count(state)])) as Record<ItemState, number>,
    sums: {
      predict_time_ms: model.sum,
      output_bytes: 2n * model.sum,
      output_files: BigInt(model.files),
      not_saved: BigInt(model.files),
    },
    paused: model.batchPaused ? "why" : null,
    canceledAtMs: model.canceled ? NOON : null,
    states: model.items.map((item) => item.byte),
    open: members((item) => item.place === "open"),
    unclear: members((item) => item.place === "unclear"),
    claimed: members((item) => item.byte.state === "claimed"),
    returned: model.items.flatMap((item, index) => (item.returned ? [String(index)] : [])).toSorted(),
    unfed: model.unfed ? [id] : [],
    canceling: model.canceled && !model.walkOver ? [id] : [],
    intents: model.items.flatMap(({ place, intent }, index) =>
      place === "unclear" && intent !== null ? [[index, intent.fromMs, intent.toMs]] : [],
    ),
    items: model.items.map(({ nonce, prediction, marks }) => ({
      nonce,
      prediction,
      marks: MARKS.filter((mark) => marks.has(mark)),
    })),
  };
}

const MARKS = ["wake", "cancel", "redriven"] as const;

const byIndex = ([a = 0]: readonly number[], [b = 0]: readonly number[]) => a - b;

/** JSON knows no bigints. */
const plain = (_key: string, value: unknown) => (typeof value === "bigint" ? String(value) : value);
