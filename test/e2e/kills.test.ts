/**
 * Workers are killed without a word in the middle of a run, again and again. Nothing may be lost, nothing bought twice,
 * and every byte must be right - by the provider's books, not by ours.
 */

import { expect, test } from "vitest";
import { endedItems, expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";

test("a batch whose only worker is killed five times is bought once and kept whole", async () => {
  await using fleet = await startFleet({
    emulator: { createsPerMinute: Number.POSITIVE_INFINITY, runMs: { medianMs: 1_500, spread: 0.4 } },
    // So that no kill leaves so many unclear items that nothing more is bought.
    createsPerMinute: 1_500,
    env: { OUTLAST_SETTLING_SECONDS: "5" }, // the emulator lists a prediction at once
  });
  const items = 300;
  const batch = await submit(fleet, prompts(items));

  let worker = fleet.startWorker();
  let resumedWithinMs = 0;
  for (let kill = 0; kill < 5; kill++) {
    const before = await endedItems(fleet, batch);
    // In the middle of work, each time a little deeper into it.
    const deeper = before + 1 + kill * 3;
    await expect.poll(() => endedItems(fleet, batch), { timeout: 30_000, interval: 20 }).toBeGreaterThanOrEqual(deeper);
    await worker.kill();
    const killedAt = performance.now();
    const standing = await endedItems(fleet, batch);
    worker = fleet.startWorker();
    await expect.poll(() => endedItems(fleet, batch), { timeout: 30_000, interval: 20 }).toBeGreaterThan(standing);
    resumedWithinMs = Math.max(resumedWithinMs, performance.now() - killedAt);
  }
  expect(resumedWithinMs, "work goes on within 15 s of a kill").toBeLessThan(15_000);

  // What was being claimed at the moment of a kill is unclear, until the provider's list tells: bought, or surely not.
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 150_000 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ items, saved: items, metrics: { output_files: items } });
  expect(fleet.emulator.books().creates, "no input is bought more than once").toMatchObject({
    total: items,
    surplus: 0,
  });
  await expectRightBytes(fleet, batch);
  expect(await worker.stop()).toBe(0);
});
