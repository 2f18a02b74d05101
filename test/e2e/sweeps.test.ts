/**
 * Whole runs whose ends are learned from the provider's list, a hundred a request: what that costs is asked of the
 * provider's books.
 */

import { expect, test } from "vitest";
import { expectRightBytes, prompts, report, submit } from "../support/batch.ts";
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
