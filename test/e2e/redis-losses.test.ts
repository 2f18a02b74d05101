/**
 * Redis loses what it was told, in the middle of a run: all of it, or what a replica that takes over had not heard yet.
 * (From an older copy of its append-only file: `npm run chaos`.) By the provider's books nothing is bought twice.
 */

import { Redis } from "ioredis";
import { expect, test } from "vitest";
import { reportBatch } from "../../src/batches/report-batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import { endedItems, expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { startTestRedis } from "../support/redis-server.ts";

const ITEMS = 300;

const world = () =>
  startFleet({
    emulator: { runMs: { medianMs: 800, spread: 0.4 } },
    createsPerMinute: 1_200,
    env: { OUTLAST_SETTLING_SECONDS: "1" }, // the emulator lists a prediction at once
  });

async function expectPaidOnce(fleet: Fleet, batch: BatchId): Promise<void> {
  // For a while Redis may know no such batch.
  const state = async () => (await reportBatch(fleet.services.ledger, batch))?.state;
  await expect.poll(state, { timeout: 200_000, interval: 500 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ items: ITEMS, saved: ITEMS, metrics: { output_files: ITEMS } });
  expect(fleet.emulator.books().creates).toMatchObject({ total: ITEMS, surplus: 0 });
  await expectRightBytes(fleet, batch);
}

async function untilEnded(fleet: Fleet, batch: BatchId, items: number): Promise<void> {
  await expect.poll(() => endedItems(fleet, batch), { timeout: 60_000, interval: 50 }).toBeGreaterThan(items);
}

test.concurrent("an emptied Redis is noticed, and filled again from the bucket", { timeout: 300_000 }, async () => {
  await using fleet = await world();
  const batch = await submit(fleet, prompts(ITEMS));
  fleet.startWorker();
  fleet.startWorker();
  await untilEnded(fleet, batch, 60);
  await fleet.services.redis.flushall();
  await expectPaidOnce(fleet, batch);
});

test.concurrent("a replica that lags takes over, and what it never heard of is found out", {
  timeout: 300_000,
}, async () => {
  await using fleet = await world();
  const { host, port } = fleet.redis;
  await using replica = await startTestRedis({ durable: true, args: ["--replicaof", `${host} ${port}`] });
  const heir = new Redis(replica.url);
  const batch = await submit(fleet, prompts(ITEMS));
  fleet.startWorker();
  fleet.startWorker();
  await expect.poll(() => heir.info("replication"), { timeout: 20_000 }).toContain("master_link_status:up");
  await untilEnded(fleet, batch, 40);

  await heir.replicaof("NO", "ONE");
  // It hears nothing more; so many items it doesn't know to have ended.
  await untilEnded(fleet, batch, (await endedItems(fleet, batch)) + 30);
  await fleet.redis.kill();
  await heir.config("SET", "port", port);
  heir.disconnect();
  await expectPaidOnce(fleet, batch);
});
