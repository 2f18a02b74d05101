/** Whole runs against a provider that allows less than we were told, or is down for a while. */

import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { limitAccount } from "../../src/batches/limit-account.ts";
import { reportAccount } from "../../src/batches/report-account.ts";
import { readWindow } from "../../src/bucket/window-notes.ts";
import { expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { startOutageProxy } from "../support/outage-proxy.ts";
import { ACCOUNT } from "../support/stages.ts";

const booked = (fleet: Fleet, route: string) => fleet.emulator.books().requests[`replicate ${route}`] ?? {};
const accountOf = ({ services }: Fleet) => reportAccount(ACCOUNT, { ...services, clock: Date.now });

test("a limit that is half of what we were told is found, and then kept by all workers", async () => {
  await using fleet = await startFleet({
    createsPerMinute: 1_200,
    emulator: { createsPerMinute: 600, burst: 10, runMs: { medianMs: 300, spread: 0.2 } },
  });
  const items = 420;
  const batch = await submit(fleet, prompts(items));
  fleet.startWorker();
  fleet.startWorker();
  const early = 120;
  await expect.poll(() => booked(fleet, "create")["201"] ?? 0, { timeout: 90_000 }).toBeGreaterThanOrEqual(early);
  const before = booked(fleet, "create");
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 240_000 }).toBe("finished");
  const after = booked(fleet, "create");

  expect(await report(fleet, batch)).toMatchObject({ saved: items, failed: 0, unclear: 0 });
  expect(fleet.emulator.books().creates).toMatchObject({ total: items, surplus: 0 });
  expect(after["429"], "it was met").toBeGreaterThan(0);
  const refused = (after["429"] ?? 0) - (before["429"] ?? 0);
  const created = (after["201"] ?? 0) - (before["201"] ?? 0);
  expect(refused / created).toBeLessThanOrEqual(0.01);
  const { creates, requests } = await accountOf(fleet);
  expect(creates?.last_refusal?.said).toMatch(/throttled/i);
  expect(requests["create"]).toEqual({ ok: items, 429: after["429"] });
});

test("a window of rows is five minutes of the rate that a person set", async () => {
  await using fleet = await startFleet({ createsPerMinute: 600 });
  const earlier = fleet.startWorker(["feed"]);
  await expect.poll(() => fleet.services.ledger.configuredRates(ACCOUNT), { timeout: 20_000 }).not.toBeNull();
  await earlier.stop();
  expect(await limitAccount(ACCOUNT, { creates: 60 }, { ...fleet.services, clock: Date.now })).not.toBeNull();
  const batch = await submit(fleet, prompts(400));
  fleet.startWorker(["feed"]);
  const window = () => readWindow(fleet.services.bucket, batch, 0);
  await expect.poll(window, { timeout: 20_000 }).toMatchObject({ first: 0, last: 299 });
});

test("a provider that is down for ten seconds costs time, and nothing else", async () => {
  await using fleet = await startFleet({
    createsPerMinute: 600,
    emulator: { runMs: { medianMs: 4_000, spread: 0.5 } },
  });
  const api = new URL(fleet.emulator.apiUrl);
  await using proxy = await startOutageProxy({ port: Number(api.port) });
  const env = { OUTLAST_REPLICATE_BASE_URL: proxy.origin + api.pathname };
  const items = 200;
  const batch = await submit(fleet, prompts(items));
  fleet.startWorker([], env);
  fleet.startWorker([], env);
  await expect.poll(() => fleet.emulator.books().creates.total, { timeout: 60_000 }).toBeGreaterThanOrEqual(60);

  await proxy.goDown();
  await expect.poll(() => breakers(fleet), { timeout: 10_000 }).toContain("open");
  const askedEarly = await unanswered(fleet);
  await sleep(10_000); // the outage itself
  const asked = (await unanswered(fleet)) - askedEarly;
  const bought = fleet.emulator.books().creates.total;
  expect(bought).toBeLessThan(items);
  await proxy.comeBack();
  await expect.poll(() => fleet.emulator.books().creates.total, { timeout: 40_000 }).toBeGreaterThan(bought);
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 120_000 }).toBe("finished");

  expect(asked, "a few probes").toBeLessThan(20);
  expect(await report(fleet, batch)).toMatchObject({ saved: items, failed: 0, unclear: 0 });
  expect(fleet.emulator.books().creates).toMatchObject({ total: items, surplus: 0 });
  await expectRightBytes(fleet, batch);
  expect(await breakers(fleet)).toEqual(["closed", "closed"]);
});

/** Of creates and of reads: which opens first depends on how much is polled singly. */
async function breakers(fleet: Fleet): Promise<readonly (string | undefined)[]> {
  const { creates, reads } = await accountOf(fleet);
  return [creates?.breaker.state, reads?.breaker.state];
}

/** Requests that found nobody, as the workers count them. */
async function unanswered(fleet: Fleet): Promise<number> {
  const { requests } = await accountOf(fleet);
  return Object.values(requests).reduce((sum, of) => sum + (of["not_sent"] ?? 0) + (of["unanswered"] ?? 0), 0);
}
