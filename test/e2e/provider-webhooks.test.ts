/**
 * Whole runs whose predictions report their ends: a server takes the webhooks, a worker asked for them. Also where the
 * answer of a create is lost, is late, or finds its worker killed, and the provider's list tells nothing: then the
 * webhook alone says what was bought. What was bought, and how often, is asked of the provider's books.
 */

import { expect, test } from "vitest";
import { type BatchId, OBJECT_KEYS, REDIS_KEYS } from "../../src/core/naming.ts";
import { answer, startRawServer } from "../providers/raw-server.ts";
import { expectRightBytes, prompts, report, results, submit } from "../support/batch.ts";
import { type Fleet, type FleetProcess, startFleet } from "../support/fleet.ts";
import { ACCOUNT, objectsIn } from "../support/stages.ts";

/** Without the provider's list, which would find what was bought too. */
const NO_LIST = { route: "list", kind: "status", status: 500, count: null } as const;

/** A worker that asks for webhooks: its server has answered under the public URL. */
async function startTold(fleet: Fleet, publicUrl: string): Promise<FleetProcess> {
  const worker = fleet.startWorker([], { OUTLAST_PUBLIC_URL: publicUrl, OUTLAST_LOG_LEVEL: "info" });
  await expect.poll(worker.log, { timeout: 30_000 }).toContain(`providers are asked to call webhooks at ${publicUrl}`);
  return worker;
}

async function finished(fleet: Fleet, batch: BatchId, timeout = 60_000): Promise<void> {
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout, interval: 50 }).toBe("finished");
}

/** Every item is saved whole, was bought once, and nothing of it counts as surplus. */
async function expectBoughtOnce(fleet: Fleet, batch: BatchId, items: number): Promise<void> {
  expect(await report(fleet, batch)).toMatchObject({ items, saved: items, failed: 0, unclear: 0 });
  expect(fleet.emulator.books()).toMatchObject({
    creates: { total: items, surplus: 0 },
    predictions: { succeeded: items, canceled: 0 },
  });
  const { bucket, redis } = fleet.services;
  expect(await redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, batch))).toEqual([]);
  const kept = await Array.fromAsync(bucket.list(OBJECT_KEYS.batches), ({ key }) => key);
  expect(kept.filter((key) => key.includes("duplicate"))).toEqual([]);
  await expectRightBytes(fleet, batch);
}

const booked = (fleet: Fleet, route: string) => fleet.emulator.books().requests[`replicate ${route}`] ?? {};

test("ends are known when they come, long before the next poll would have asked", async () => {
  const runMs = { medianMs: 20_000, spread: 0.05 };
  await using fleet = await startFleet({ emulator: { runMs } });
  const server = await fleet.startServer();
  await startTold(fleet, server.url);
  const items = 40;
  const batch = await submit(fleet, prompts(items));
  await finished(fleet, batch);

  expect(fleet.emulator.books().webhooks).toMatchObject({ sent: items, delivered: items, tries: items });
  const { woken = 0, late = 0, ...others } = await fleet.services.ledger.webhookCounts(ACCOUNT);
  expect(woken + late).toBe(items);
  expect(others).toEqual({});
  expect(woken, "a poll was as quick for few").toBeGreaterThan(items / 2);
  // Polls alone come a third of an age apart: seven seconds, in the mean three after the end.
  const behindMs = await Promise.all(
    Array.from({ length: items }, async (_, index) => {
      const receipt = await fleet.services.bucket.get(OBJECT_KEYS.receipt(batch, index, 1), { maxBytes: 100_000 });
      const { completed_at: completed, recorded_at: recorded } = JSON.parse(String(receipt)) as Record<string, string>;
      return Date.parse(recorded ?? "") - Date.parse(completed ?? "");
    }),
  );
  expect(behindMs.toSorted((a, b) => a - b)[items / 2], "ms, median").toBeLessThan(1_500);
  await expectBoughtOnce(fleet, batch, items);
});

test("creates whose answer is lost are told by their webhooks alone", async () => {
  await using fleet = await startFleet();
  const server = await fleet.startServer();
  await startTold(fleet, server.url);
  fleet.emulator.arm(NO_LIST);
  const lost = 8;
  fleet.emulator.arm({ route: "create", kind: "drop-after-create", skip: 2, count: lost });
  const items = 30;
  const batch = await submit(fleet, prompts(items));
  await finished(fleet, batch);

  expect(booked(fleet, "create")).toEqual({ "201": items - lost, dropped: lost });
  expect(booked(fleet, "list")).not.toHaveProperty("200");
  expect((await fleet.services.ledger.webhookCounts(ACCOUNT))["bound"]).toBeGreaterThanOrEqual(lost);
  await expectBoughtOnce(fleet, batch, items);
});

test("webhooks that come before the create's answer, and ends before it too, are one and the same prediction", async () => {
  await using fleet = await startFleet();
  const server = await fleet.startServer();
  const worker = await startTold(fleet, server.url);
  fleet.emulator.arm(NO_LIST);
  fleet.emulator.arm({ route: "create", kind: "late", delayMs: 5_000, count: null });
  const items = 30;
  const batch = await submit(fleet, prompts(items));
  await finished(fleet, batch);
  await expect.poll(() => booked(fleet, "create"), { timeout: 30_000 }).toEqual({ "201": items });
  expect(await worker.stop(), "with what the answers led to").toBe(0);

  expect(await fleet.services.ledger.webhookCounts(ACCOUNT)).toEqual({ bound: items });
  expect(await results(fleet, batch)).toSatisfy((lines: { prediction_id: string | null }[]) =>
    lines.every(({ prediction_id: id }) => id !== null),
  );
  await expectBoughtOnce(fleet, batch, items);
});

test("what a killed worker had bought is followed by the next one, though it never heard the answer", async () => {
  await using fleet = await startFleet({ emulator: { runMs: { medianMs: 3_000, spread: 0.2 } } });
  const server = await fleet.startServer();
  const killed = await startTold(fleet, server.url);
  fleet.emulator.arm(NO_LIST);
  fleet.emulator.arm({ route: "create", kind: "silence", created: true, count: null });
  const items = 15;
  const batch = await submit(fleet, prompts(items));
  await expect.poll(() => fleet.emulator.books().creates.total, { timeout: 30_000, interval: 10 }).toBe(items);
  await killed.kill();
  await startTold(fleet, server.url);
  await finished(fleet, batch);

  expect(await fleet.services.ledger.webhookCounts(ACCOUNT)).toMatchObject({ bound: items });
  await expectBoughtOnce(fleet, batch, items);
});

test("where nobody answers under the public URL, no webhook is asked for, and that is said", async () => {
  await using fleet = await startFleet();
  await fleet.startServer();
  const nowhere = "http://127.0.0.1:9";
  const worker = fleet.startWorker([], { OUTLAST_PUBLIC_URL: nowhere });
  const items = 10;
  const batch = await submit(fleet, prompts(items));
  await finished(fleet, batch);
  await expect
    .poll(worker.log, { timeout: 30_000 })
    .toMatch(
      /no webhooks are asked for, polls do without: POST http:\/\/127\.0\.0\.1:9\S+ got no answer \(ECONNREFUSED\)/,
    );
  expect(fleet.emulator.books().webhooks.sent).toBe(0);
  await expectBoughtOnce(fleet, batch, items);
});

test("the nonce in a webhook's address is nowhere to be read, though the provider quotes what it refuses", async () => {
  const nonces: string[] = [];
  // Of the third create the account is paused.
  const statuses = [500, 422, 401];
  await using provider = await startRawServer({
    onRequest: (socket, head, body) => {
      if (head.startsWith("GET /v1/webhooks/default/secret"))
        return socket.write(answer(200, '{"key":"whsec_c2VjcmV0"}'));
      if (!head.startsWith("POST ")) return socket.write(answer(200, '{"results":[],"next":null}'));
      const { webhook = "" } = JSON.parse(body) as { readonly webhook?: string };
      nonces.push(webhook.slice(webhook.lastIndexOf("/") + 1));
      const status = statuses[Math.min(nonces.length, statuses.length) - 1] ?? 401;
      return socket.write(answer(status, JSON.stringify({ detail: `can't call ${webhook}; asked for ${body}` })));
    },
  });
  const env = { OUTLAST_REPLICATE_BASE_URL: provider.baseUrl, OUTLAST_LOG_LEVEL: "trace" };
  await using fleet = await startFleet({ env, createsPerMinute: 60 });
  const server = await fleet.startServer();
  const worker = await startTold(fleet, server.url);
  const items = 3;
  const batch = await submit(fleet, prompts(items));
  const { bucket, ledger, redis } = fleet.services;
  await expect.poll(() => ledger.pausedReason(ACCOUNT), { timeout: 60_000 }).toMatch(/^401: can't call \*\*\*; asked/);
  await expect.poll(async () => (await report(fleet, batch)).failed, { timeout: 30_000 }).toBe(1);

  expect(nonces).toHaveLength(items);
  expect(await report(fleet, batch)).toMatchObject({ failed: 1, unclear: 1, waiting: 1 });
  expect((await results(fleet, batch)).map(({ error }) => error)).toContainEqual(expect.stringContaining("call ***"));
  expect(await worker.stop()).toBe(0);
  const paused = JSON.stringify(await redis.hgetall(REDIS_KEYS.account(ACCOUNT)));
  const kept = JSON.stringify(await objectsIn(bucket)) + paused + worker.log() + server.log();
  for (const nonce of nonces) {
    expect(nonce.length).toBeGreaterThan(10);
    expect(kept).not.toContain(nonce);
  }
});
