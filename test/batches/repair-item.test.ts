/** Saving what was paid for, without paying again - also where Redis forgets that it was to be saved. */

import { expect } from "vitest";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import { reopenAccount } from "../../src/batches/reopen-account.ts";
import { repairItem } from "../../src/batches/repair-item.ts";
import { readBatchActs } from "../../src/bucket/acts.ts";
import { type BatchId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { buyAndEnd, FAILED, feed, refOf, standingOf, statesOf } from "../support/life.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

const FOLLOWS = QUEUE_NAMES.follow(ACCOUNT);

/** A batch of two, whose first item has failed with its prediction paid for; the second waits. */
async function open(line: Line): Promise<BatchId> {
  await line.clear();
  const batch = await line.submit([{ prompt: "a" }, { prompt: "b" }]);
  await feed(line);
  await buyAndEnd(line, refOf(batch, 0), FAILED);
  return batch;
}

const repair = (line: Line, batch: BatchId, attempt = 1) =>
  repairItem(refOf(batch, 0, attempt), "paid", NOON, { ...line });

async function reopen({ bucket, ledger, queues, clock }: Line): Promise<void> {
  const nothing = { restoreLimits: async () => undefined, tell: () => undefined };
  await reopenAccount(ACCOUNT, { bucket, ledger, queues, restartLosesNothing: false, ...nothing, clock });
}

test("a repair runs a new attempt at once, on the prediction that was paid for", async ({ line }) => {
  const batch = await open(line);
  expect(await repair(line, batch)).toBe(true);
  expect(await statesOf(line, batch)).toEqual(["2 running", "1 waiting"]);
  expect((await line.ledger.readItem(refOf(batch, 0))).fields.prediction_id).toBe("paid");
  expect((await line.jobs(FOLLOWS)).map(({ id, data }) => [id, data])).toEqual([
    [`${batch}-0-2`, [ACCOUNT, "paid", NOON, null]],
  ]);
  expect(await line.ledger.failuresOf(ACCOUNT, batch)).toEqual([]);
});

test("a repair whose answer is lost is followed at once: its script is sent again, and opens nothing more", async ({
  line,
}) => {
  const batch = await open(line);
  const redrive: typeof line.ledger.redrive = async (...of) => {
    await line.ledger.redrive(...of);
    return line.ledger.redrive(...of);
  };
  expect(await repairItem(refOf(batch, 0), "paid", NOON, { ...line, ledger: { ...line.ledger, redrive } })).toBe(true);
  expect((await line.jobs(FOLLOWS)).map(({ id }) => id)).toEqual([`${batch}-0-2`]);
});

test("an attempt that isn't the item's last, or is saved or open, isn't repaired, and nobody's act says so", async ({
  line,
}) => {
  const batch = await open(line);
  const { batch: opened } = await standingOf(line, batch);
  await redriveItems(opened, { ends: new Set(["failed"] as const) }, { ...line });
  expect(await repair(line, batch)).toBe(false);
  expect(await repair(line, batch, 2)).toBe(false);
  expect((await readBatchActs(line.bucket, batch)).map(({ act }) => act)).toEqual(["redrive"]);
});

test("a repair that Redis has forgotten runs again on its prediction, and is never unclear", async ({ line }) => {
  const batch = await open(line);
  await repair(line, batch);
  await line.redis.flushall();
  await reopen(line);
  expect((await statesOf(line, batch))[0]).toBe("2 running");
  expect((await line.ledger.readItem(refOf(batch, 0))).fields.prediction_id).toBe("paid");
  expect(await line.jobs(FOLLOWS)).toHaveLength(1);
  await line.ledger.noteOpened(ACCOUNT, "another", null);
  await reopen(line);
  expect((await statesOf(line, batch))[0]).toBe("2 running");
});
