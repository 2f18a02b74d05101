/**
 * Whole runs whose ends are learned from the provider's list, a hundred a request: what that costs is asked of the
 * provider's books.
 */

import { expect, test } from "vitest";
import { endedItems, expectRightBytes, prompts, report, submit, untilSettled } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";

const booked = (fleet: Fleet, route: string) =>
  Object.values(fleet.emulator.books().requests[`replicate ${route}`] ?? {}).reduce((sum, one) => sum + one, 0);

test("without webhooks, ends cost less than half a request beyond the create and the poll that sees them", async () => {
  await using fleet = await startFleet({ emulator: { runMs: { medianMs: 3_000, spread: 0.4 } } });
  fleet.startWorker();
  const items = 150;
  const batch = await submit(fleet, prompts(items));
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 90_000, interval: 50 }).toBe("finished");

  expect(await report(fleet, batch)).toMatchObject({ items, saved: items, failed: 0, unclear: 0 });
  expect(fleet.emulator.books().creates).toMatchObject({ total: items, surplus: 0 });
  expect(fleet.emulator.books().webhooks.sent).toBe(0);
  const perItem = ["create", "get", "list"].map((route) => [route, booked(fleet, route) / items] as const);
  expect(
    perItem.reduce((sum, [, requests]) => sum + requests, 0),
    JSON.stringify(perItem),
  ).toBeLessThan(2.4);
  await expectRightBytes(fleet, batch);
});

test("every worker away while the predictions end loses nothing, and is caught up with inside the budget", async () => {
  const readsPerMinute = 3_000;
  await using fleet = await startFleet({
    emulator: { readsPerMinute, runMs: { medianMs: 6_000, spread: 0.4 } },
    env: { OUTLAST_READS_PER_MINUTE: String(readsPerMinute) },
  });
  const workers = [fleet.startWorker(), fleet.startWorker()];
  const items = 400;
  const batch = await submit(fleet, prompts(items));
  await expect.poll(() => fleet.emulator.books().creates.total, { timeout: 60_000, interval: 20 }).toBe(items);
  await Promise.all([workers[0]?.kill(), workers[1]?.stop()]);
  const endedBefore = await endedItems(fleet, batch);
  expect(endedBefore, "most of them end while nobody looks").toBeLessThan(items / 2);
  const running = () =>
    [...fleet.emulator.predictionRows()].filter(({ status }) => /^(starting|processing)$/.test(status));
  await expect.poll(() => running().length, { timeout: 60_000 }).toBe(0);

  fleet.startWorker();
  expect(await untilSettled(fleet, batch)).toMatchObject({ items, saved: items, failed: 0, unclear: 0 });
  expect(fleet.emulator.books().creates).toMatchObject({ total: items, surplus: 0 });
  for (const route of ["get", "list"]) {
    expect(fleet.emulator.books().requests[`replicate ${route}`]?.["429"], `a ${route} was refused`).toBeUndefined();
  }
  expect(booked(fleet, "get") / items, "hardly more than the poll that sees the end").toBeLessThan(1.5);
  await expectRightBytes(fleet, batch);
});
