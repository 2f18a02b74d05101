/** Webhooks that are dropped, late, repeated or forged, for a share of predictions. */

import { expect, test } from "vitest";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import { create, ended, post, QUICK, STUCK, UNLIMITED } from "./asker.ts";
import { receiver, SECRET } from "./receiver.ts";

const started = (seed = 1): Promise<Emulator> => startEmulator({ seed, ...QUICK, ...UNLIMITED, webhookSecret: SECRET });

const completed = (url: string) => ({ webhook: url, webhook_events_filter: ["completed"] });

test("dropped ones never come", async () => {
  await using hook = await receiver(200);
  await using emulator = await started();
  emulator.arm({ route: "webhook", kind: "drop" });
  const { id } = await create(emulator, "text", { prompt: "x" }, { webhook: hook.url });
  await ended(emulator, id);
  await create(emulator, "text", { prompt: "y" }, completed(hook.url));
  await expect.poll(() => hook.received.length).toBe(1);
  expect(hook.received[0]?.prediction).not.toBe(id);
  expect(emulator.books().webhooks).toMatchObject({ sent: 1, dropped: 2 });
  expect(emulator.armed()).toMatchObject([{ kind: "drop", struck: 1 }]);
});

test("late ones come late, as they were, with a signature of when they are sent", async () => {
  await using hook = await receiver(200);
  await using emulator = await started();
  emulator.arm({ route: "webhook", kind: "late", delayMs: 300 });
  const { id } = await create(emulator, "text", { prompt: "x" }, completed(hook.url));
  const { completed_at } = await ended(emulator, id);
  await expect.poll(() => hook.received, { interval: 5 }).toMatchObject([{ status: "succeeded", signed: true }]);
  expect((hook.received[0]?.atMs ?? 0) - Date.parse(completed_at ?? "")).toBeGreaterThan(295);
  expect(emulator.books().webhooks).toMatchObject({ sent: 1, late: 1 });
});

test("repeated ones come as often as told, under one id", async () => {
  await using hook = await receiver(200);
  await using emulator = await started();
  emulator.arm({ route: "webhook", kind: "repeat", times: 5 });
  await create(emulator, "text", { prompt: "x" }, completed(hook.url));
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ sent: 5, delivered: 5, repeated: 4 });
  expect(new Set(hook.received.map(({ id, signed }) => `${id} ${signed}`)).size).toBe(1);
});

test("forged ones come while the prediction runs, claim an end, and bear no signature of the provider's", async () => {
  await using hook = await receiver(200);
  await using emulator = await started();
  emulator.arm({ route: "webhook", kind: "forge", count: null });
  const ids = [];
  for (let seed = 0; seed < 12; seed++) {
    ids.push((await create(emulator, "slow", { seconds: 0.5, seed }, completed(hook.url))).id);
  }
  await expect.poll(() => hook.received.length).toBe(24);
  for (const id of ids) {
    const signed = hook.received.filter(({ prediction }) => prediction === id).map((message) => message.signed);
    expect(signed).toEqual([false, true]);
  }
  const claims = hook.received.filter(({ signed }) => !signed).map(({ status }) => status);
  expect(new Set(claims)).toEqual(new Set(["succeeded", "failed"]));
  await expect
    .poll(() => emulator.books().webhooks)
    .toMatchObject({ sent: 12, delivered: 12, tries: 12, forged: 12, forged_taken: 12 });
});

test("a forgery that is refused is seen, and not repeated", async () => {
  await using hook = await receiver(401);
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookSecret: SECRET, webhookRetriesMs: [] });
  emulator.arm({ route: "webhook", kind: "forge" });
  await create(emulator, "text", { prompt: "x" }, completed(hook.url));
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ lost: 1, forged: 1, forged_taken: 0 });
  expect(hook.received).toHaveLength(2);
});

test("a prediction that never ran is told as armed, too", async () => {
  await using hook = await receiver(200);
  await using emulator = await startEmulator({ seed: 1, ...STUCK, webhookSecret: SECRET });
  emulator.arm({ route: "webhook", kind: "repeat", times: 2 });
  const { id } = await create(emulator, "text", { prompt: "x" }, { webhook: hook.url });
  await post(`${emulator.apiUrl}/predictions/${id}/cancel`, {});
  await expect.poll(() => hook.received.map(({ status }) => status)).toEqual(["canceled", "canceled"]);
});

test("shares are drawn for each prediction, the same in any order", async () => {
  const fates = async (numbers: readonly number[]): Promise<readonly unknown[]> => {
    await using hook = await receiver(200);
    await using emulator = await started(7);
    emulator.arm({ route: "webhook", kind: "drop", rate: 0.2, count: null });
    emulator.arm({ route: "webhook", kind: "late", delayMs: 50, rate: 0.1, count: null });
    emulator.arm({ route: "webhook", kind: "repeat", rate: 0.05, count: null });
    emulator.arm({ route: "webhook", kind: "forge", rate: 0.02, count: null });
    const ids = await Promise.all(
      numbers.map(async (seed) => (await create(emulator, "text", { prompt: "x", seed }, completed(hook.url))).id),
    );
    await Promise.all(ids.map((id) => ended(emulator, id)));
    const { webhooks } = emulator.books();
    await expect.poll(() => hook.received.length).toBe(webhooks.sent + webhooks.forged);
    const { dropped, late, repeated, forged } = webhooks;
    expect(webhooks.sent).toBe(numbers.length - dropped + repeated);
    return [dropped, late, repeated, forged, hook.received.map(({ prediction }) => prediction).toSorted()];
  };
  const numbers = Array.from({ length: 200 }, (_, number) => number);
  const forwards = await fates(numbers);
  expect(await fates(numbers.toReversed())).toEqual(forwards);
  const [dropped, late, repeated, forged] = forwards.map(Number);
  expect(dropped).toBeGreaterThan(20);
  expect(dropped).toBeLessThan(60);
  expect(late).toBeGreaterThan(6);
  expect(repeated).toBeGreaterThan(1);
  expect(forged).toBeGreaterThan(0);
});

test("a kind that its route doesn't have is refused", async () => {
  await using emulator = await started();
  const url = emulator.apiUrl.replace("/v1", "/__faults");
  expect((await post(url, { route: "webhook", kind: "half-body" })).status).toBe(422);
  expect((await post(url, { route: "create", kind: "forge" })).status).toBe(422);
  expect((await post(url, { route: "webhook", kind: "forge", status: 500 })).status).toBe(422);
});
