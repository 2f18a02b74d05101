/**
 * Workers that are killed, or frozen past their locks, at each of their durable writes, just before and just after it, and
 * between check and send. By the provider's books nothing is bought twice, nothing is lost, and every byte is right.
 */

import { expect, test } from "vitest";
import type { BatchId } from "../../src/core/naming.ts";
import { expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { AT_THE_POINT, type PointName } from "../support/doomed-worker.ts";
import { type Fleet, type FleetProcess, startFleet } from "../support/fleet.ts";

/** Of the feed, whose one errand the next worker gets when its lock is over. */
const FEED_POINTS: readonly PointName[] = [
  "bucket.putOnce window before",
  "ledger.noteWindow before",
  "queues.create before",
  "ledger.advance before",
  "ledger.advance after",
];
const ITEM_POINTS: readonly PointName[] = [
  "ledger.move claim before",
  "ledger.move claim after",
  "provider.create before",
  "provider.create after",
  "ledger.move bind before",
  "ledger.move bind after",
  "queues.follow after",
  "ledger.move succeed before",
  "ledger.move succeed after",
  "queues.copy after",
  "bucket.putStream output before",
  "bucket.putStream output after",
  "ledger.move finishCopy before",
  "ledger.move finishCopy after",
  "queues.record after",
  "bucket.putOnce receipt before",
  "bucket.putOnce receipt after",
  "ledger.move save before",
  "ledger.move save after",
];

const ITEMS = 250;

const world = (settlingSeconds: number) =>
  startFleet({
    emulator: { runMs: { medianMs: 300, spread: 0.3 }, queueMs: { medianMs: 20, spread: 0.2 } },
    createsPerMinute: 600,
    env: { OUTLAST_SETTLING_SECONDS: String(settlingSeconds) },
  });

const startDoomed = (fleet: Fleet, point: PointName, signal: "SIGKILL" | "SIGSTOP") =>
  fleet.start("test/support/doomed-worker.ts", { OUTLAST_TEST_POINT: point, OUTLAST_TEST_SIGNAL: signal });

async function untilAt(point: PointName, worker: FleetProcess): Promise<void> {
  await expect.poll(() => worker.log(), { timeout: 40_000, message: point }).toContain(AT_THE_POINT);
}

async function expectPaidOnce(fleet: Fleet, batch: BatchId): Promise<void> {
  // What was being claimed is unclear, until the provider's list tells: bought, or surely not.
  await expect
    .poll(async () => (await report(fleet, batch)).state, { timeout: 180_000, interval: 500 })
    .toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ items: ITEMS, saved: ITEMS, metrics: { output_files: ITEMS } });
  expect(fleet.emulator.books().creates).toMatchObject({ total: ITEMS, surplus: 0 });
  await expectRightBytes(fleet, batch);
}

test.concurrent("killed at each durable write, one after another, workers buy a batch once and keep it whole", {
  timeout: 300_000,
}, async () => {
  await using fleet = await world(1); // the emulator lists a prediction at once
  const batch = await submit(fleet, prompts(ITEMS));
  for (const point of [...FEED_POINTS, ...ITEM_POINTS]) {
    const worker = startDoomed(fleet, point, "SIGKILL");
    await untilAt(point, worker);
    expect(await worker.ended(), point).toBe("SIGKILL");
  }
  fleet.startWorker();
  await expectPaidOnce(fleet, batch);
});

test.concurrent("frozen at each of them past their locks, and thawed, they find their work done and leave it", {
  timeout: 300_000,
}, async () => {
  // Past their locks, but not past what is settled: who sends only then, having checked long before, pays twice.
  await using fleet = await world(30);
  const batch = await submit(fleet, prompts(ITEMS));
  const frozen: FleetProcess[] = [];
  for (const point of [...FEED_POINTS, ...ITEM_POINTS.toReversed()]) {
    const worker = startDoomed(fleet, point, "SIGSTOP");
    await untilAt(point, worker);
    frozen.push(worker);
  }
  // Locks last ten seconds: whatever they held is this one's then.
  fleet.startWorker();
  await expect.poll(async () => (await report(fleet, batch)).in_flight, { timeout: 90_000, interval: 500 }).toBe(0);
  for (const worker of frozen) process.kill(worker.pid, "SIGCONT");
  await expectPaidOnce(fleet, batch);
});
