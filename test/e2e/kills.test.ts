/**
 * Workers are killed without a word in the middle of a run, again and again. Nothing may be lost, nothing bought
 * twice, and every byte must be right - by the provider's books, not by ours.
 */

import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { reportBatch } from "../../src/batches/report-batch.ts";
import { readResults } from "../../src/batches/read-results.ts";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import { isSettled } from "../../src/core/batch.ts";
import { progressIn } from "../../src/batches/report-batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";

test("a batch whose only worker is killed eight times is bought once and kept whole", async () => {
  await using fleet = await startFleet({
    emulator: { createsPerMinute: Number.POSITIVE_INFINITY, runMs: { medianMs: 1_500, spread: 0.4 } },
    createsPerMinute: 3_000,
  });
  const items = 500;
  const batch = await submitPrompts(fleet, items);

  let worker = fleet.startWorker();
  let resumedWithinMs = 0;
  for (let kill = 0; kill < 8; kill++) {
    const before = await ended(fleet, batch);
    // Killed in the middle of work: as soon as something has ended since the last kill.
    await expect.poll(() => ended(fleet, batch), { timeout: 30_000, interval: 20 }).toBeGreaterThan(before + kill * 3);
    await worker.kill();
    const killedAt = performance.now();
    const standing = await ended(fleet, batch);
    worker = fleet.startWorker();
    await expect.poll(() => ended(fleet, batch), { timeout: 30_000, interval: 20 }).toBeGreaterThan(standing);
    resumedWithinMs = Math.max(resumedWithinMs, performance.now() - killedAt);
  }
  await expect.poll(() => settled(fleet, batch), { timeout: 120_000, interval: 250 }).toBe(true);
  expect(resumedWithinMs, "work goes on within 15 s of a kill").toBeLessThan(15_000);

  const report = await reportBatch(fleet.services.ledger, batch);
  const books = fleet.emulator.books();
  expect(books.creates.surplus, "inputs bought more than once").toBe(0);
  expect(report).toMatchObject({ items, waiting: 0, in_flight: 0, failed: 0, canceled: 0 });
  expect((report?.saved ?? 0) + (report?.unclear ?? 0)).toBe(items);
  // At most what was being claimed at the moment of a kill can be unclear; the rest is saved.
  expect(books.creates.total).toBeGreaterThanOrEqual(report?.saved ?? items);
  expect(report?.metrics.output_files).toBe(report?.saved);
  await expectRightBytes(fleet, batch, items);
  await worker.stop();
});

test("two workers share a batch, and one of them is frozen past its locks", async () => {
  await using fleet = await startFleet({
    emulator: { createsPerMinute: Number.POSITIVE_INFINITY, runMs: { medianMs: 800, spread: 0.4 } },
    createsPerMinute: 1_500,
  });
  const items = 400;
  const batch = await submitPrompts(fleet, items);
  const frozen = fleet.startWorker();
  const other = fleet.startWorker();
  await expect.poll(() => ended(fleet, batch), { timeout: 30_000, interval: 50 }).toBeGreaterThan(20);
  process.kill(frozen.pid, "SIGSTOP");
  // Locks last ten seconds: everything that the frozen one held is the other's by the time all else has ended.
  await expect.poll(() => settled(fleet, batch), { timeout: 60_000, interval: 250 }).toBe(true);
  const before = await reportBatch(fleet.services.ledger, batch);
  process.kill(frozen.pid, "SIGCONT");
  await expect.poll(() => other.log(), { timeout: 1 }).toBeDefined();
  expect(await frozen.stop()).toBe(0);
  expect(await other.stop()).toBe(0);

  const after = await reportBatch(fleet.services.ledger, batch);
  const books = fleet.emulator.books();
  expect(books.creates.surplus, "inputs bought more than once").toBe(0);
  expect((after?.saved ?? 0) + (after?.unclear ?? 0)).toBe(items);
  expect(after?.saved).toBeGreaterThanOrEqual(before?.saved ?? 0);
  await expectRightBytes(fleet, batch, items);
});

async function submitPrompts(fleet: Fleet, items: number): Promise<BatchId> {
  const [account] = fleet.services.accounts;
  if (account === undefined) throw new Error("the fleet has no account");
  async function* rows() {
    for (let at = 0; at < items; at++) {
      const target = { kind: "model", owner: "outlast", name: "picture" } as const;
      yield { line: at + 1, row: { id: `row-${at}`, input: { prompt: `prompt number ${at}` }, target } };
    }
  }
  const options = { name: "kills", tenant: "default", account };
  return (await submitBatch(rows(), options, { ...fleet.services, clock: Date.now })).batch;
}

async function ended(fleet: Fleet, batch: BatchId): Promise<number> {
  const report = await reportBatch(fleet.services.ledger, batch);
  return (report?.saved ?? 0) + (report?.failed ?? 0);
}

async function settled(fleet: Fleet, batch: BatchId): Promise<boolean> {
  const report = await reportBatch(fleet.services.ledger, batch);
  return report !== null && isSettled(progressIn(report), report.paused);
}

/** Every kept file is what the file host served, no two are the same, and the results stand in input order. */
async function expectRightBytes(fleet: Fleet, batch: BatchId, items: number): Promise<void> {
  const { bucket, accounts } = fleet.services;
  const served = new Set([...fleet.emulator.fileRows()].map((file) => file.sha256));
  const kept = new Set<string>();
  let index = 0;
  for await (const line of readResults(fleet.services, { account: accounts[0]?.name ?? ("" as never), id: batch, items })) {
    expect(line.index).toBe(index++);
    expect(line.id).toBe(`row-${line.index}`);
    if (line.status !== "saved") {
      expect(line.status).toBe("unclear");
      continue;
    }
    const [output] = line.outputs;
    const bytes = await bucket.get(output?.key ?? "", { maxBytes: 10_000_000 });
    const sha256 = createHash("sha256").update(bytes ?? "").digest("hex");
    expect(sha256).toBe(output?.sha256);
    expect(served).toContain(sha256);
    kept.add(sha256);
  }
  expect(index).toBe(items);
  expect(kept.size).toBe((await reportBatch(fleet.services.ledger, batch))?.saved);
}
