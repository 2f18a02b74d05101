/**
 * Holds a settled race against the provider's books: what was bought, by whom, and whether every item has what is its
 * own.
 */

import { expect } from "vitest";
import { readReceipt } from "../../src/bucket/records.ts";
import { isEnd } from "../../src/core/item.ts";
import { type AttemptRef, errandId, type ObjectKey, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { billedTimeMs, notSavedBy, type Receipt } from "../../src/core/receipt.ts";
import { ACCOUNT } from "../support/stages.ts";
import { OUTPUT_TEXT } from "./provider.ts";
import { type RaceWorld, watch } from "./race-world.ts";

export async function judge(world: RaceWorld): Promise<void> {
  const { line, batch, provider } = world;
  await watch(world, "the end");
  expect(world.troubles).toEqual([]);

  const items = await line.ledger.readStates(ACCOUNT, batch, 0, 2);
  expect(
    items.filter(({ state }) => !isEnd(state)),
    "nothing is lost: every item has ended",
  ).toEqual([]);

  const receipts = await receiptsOf(world);
  const holders = holdersOf(receipts);
  for (const { ref, receipt } of receipts) {
    const booked = provider.books.find(({ id }) => id === receipt.prediction_id);
    const of = `${errandId(ref)}, ${receipt.status}: ${receipt.error}`;
    if (receipt.prediction_id === null) expect(receipt.status, of).not.toBe("saved");
    else if (receipt.status === "saved") expect(booked?.ended, of).toBe("succeeded");
    else expect(booked?.ended, of).toBe(receipt.status);
    for (const [n, { key, bytes }] of receipt.outputs.entries()) {
      expect(n).toBe(0);
      const kept = await line.bucket.get(key as ObjectKey, { maxBytes: 1e6 });
      expect(kept?.toString("utf8"), of).toBe(`${OUTPUT_TEXT} ${receipt.prediction_id}`);
      expect(bytes).toBe(kept?.length);
    }
    if (receipt.status === "saved" && booked?.fate === "file") expect(receipt.outputs, of).toHaveLength(1);
  }
  for (const [index, item] of items.entries()) {
    const last = receipts.findLast(({ ref }) => ref.index === index && ref.attempt === item.attempt);
    // One that a batch's cancel found waiting ends without a receipt.
    if (last === undefined) expect(item.state).toBe("canceled");
    else expect(last.receipt.status).toBe(item.state);
  }

  // Which of two identical attempts a prediction was bought for, nobody can tell: there the group must add up, as below.
  if (!world.scenario.twins) {
    const bought = Map.groupBy(provider.books, (booked) => errandId(world.attemptOf(booked).ref));
    expect(
      [...bought].filter(([, predictions]) => predictions.length > 1),
      "no attempt is paid twice",
    ).toEqual([]);
  }
  expect(
    [...holders].filter(([, attempts]) => attempts.length > 1),
    "no prediction is two attempts'",
  ).toEqual([]);
  expect(
    provider.books.filter(({ id }) => !holders.has(id)).map(({ id }) => id),
    "every prediction is an attempt's",
  ).toEqual([]);
  expect(
    provider.books.filter(({ ended }) => ended === null),
    "no prediction runs on",
  ).toEqual([]);
  expect(await duplicatesOf(world), "nothing was bought for an attempt that holds another").toEqual([]);

  await expectSums(
    world,
    receipts.map(({ receipt }) => receipt),
  );
  await expectNothingLeft(world);
}

type KeptReceipt = { readonly ref: AttemptRef; readonly receipt: Receipt };

/** Of every attempt that there was, in order. */
export async function receiptsOf({ line, batch }: RaceWorld): Promise<readonly KeptReceipt[]> {
  const items = await line.ledger.readStates(ACCOUNT, batch, 0, 2);
  const refs = items.flatMap(({ attempt }, index) =>
    Array.from({ length: attempt }, (_, n): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: n + 1 })),
  );
  const kept = await Promise.all(refs.map(async (ref) => ({ ref, receipt: await readReceipt(line.bucket, ref) })));
  return kept.flatMap(({ ref, receipt }) => (receipt === null ? [] : { ref, receipt }));
}

function holdersOf(receipts: readonly KeptReceipt[]): ReadonlyMap<string, readonly string[]> {
  const held = receipts.filter(({ receipt }) => receipt.prediction_id !== null);
  const groups = Map.groupBy(held, ({ receipt }) => String(receipt.prediction_id));
  return new Map([...groups].map(([id, of]) => [id, of.map(({ ref }) => errandId(ref))]));
}

/** Predictions that were booked as bought for nothing. */
export async function duplicatesOf({ line, batch }: RaceWorld): Promise<readonly string[]> {
  return (await line.redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, batch))).toSorted();
}

async function expectSums({ line, batch }: RaceWorld, receipts: readonly Receipt[]): Promise<void> {
  const sum = (of: (receipt: Receipt) => bigint) => receipts.reduce((total, receipt) => total + of(receipt), 0n);
  expect((await line.ledger.standing(ACCOUNT, batch))?.sums).toEqual({
    predict_time_ms: sum(billedTimeMs),
    output_bytes: sum(({ outputs }) => outputs.reduce((total, { bytes }) => total + BigInt(bytes), 0n)),
    output_files: sum(({ outputs }) => BigInt(outputs.length)),
    not_saved: sum(notSavedBy),
  });
}

/** No errand, no mark, no place in a list is left of what has ended; and the batch's finish is on its way. */
async function expectNothingLeft({ line, batch }: RaceWorld): Promise<void> {
  const { redis } = line;
  expect({
    create: (await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id),
    follow: (await line.jobs(QUEUE_NAMES.follow(ACCOUNT))).map(({ id }) => id),
    copy: (await line.jobs(QUEUE_NAMES.copy)).map(({ id }) => id),
    record: (await line.jobs(QUEUE_NAMES.record)).map(({ id }) => id),
    open: await redis.zrange(REDIS_KEYS.open(ACCOUNT), 0, "-1"),
    unclear: await redis.zrange(REDIS_KEYS.unclear(ACCOUNT), 0, "-1"),
    claimed: await redis.zrange(REDIS_KEYS.claimed(ACCOUNT), 0, "-1"),
    returned: await redis.smembers(REDIS_KEYS.returned(ACCOUNT, batch)),
    unfed: await redis.zrange(REDIS_KEYS.unfed(ACCOUNT), 0, "-1"),
    hashes: await redis.exists(...[0, 1].map((index) => REDIS_KEYS.item(ACCOUNT, batch, index))),
    finish: (await line.jobs(QUEUE_NAMES.finish)).map(({ id }) => id),
  }).toEqual({
    create: [],
    follow: [],
    copy: [],
    record: [],
    open: [],
    unclear: [],
    claimed: [],
    returned: [],
    unfed: [],
    hashes: 0,
    finish: [batch],
  });
}
