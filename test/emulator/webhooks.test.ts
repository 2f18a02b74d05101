/** Webhooks, received by a real server and checked by what the docs say about signatures. */

import { expect, test } from "vitest";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { ask, create, ended, QUICK } from "./asker.ts";
import { receiver, SECRET } from "./receiver.ts";

test("output and completion are told, signed with the secret that the API shows", async () => {
  await using hook = await receiver(200);
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookSecret: SECRET });
  const secret = (await (await ask(`${emulator.apiUrl}/webhooks/default/secret`)).json()) as { key: string };
  expect(secret.key).toBe(SECRET);
  await create(emulator, "picture", { prompt: "x" }, { webhook: hook.url });
  await expect
    .poll(() => hook.received.map(({ status, signed }) => `${status} ${signed}`).sort())
    .toEqual(["processing true", "succeeded true"]);
  expect(new Set(hook.received.map(({ id }) => id)).size).toBe(2);
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ sent: 2, delivered: 2, lost: 0, tries: 2 });
});

test("a filter chooses the events", async () => {
  await using hook = await receiver(200);
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookSecret: SECRET });
  const filter = { webhook: hook.url, webhook_events_filter: ["start", "completed"] };
  expect(await create(emulator, "slow", { seconds: 0.2 }, filter)).toMatchObject(filter);
  await expect.poll(() => hook.received.map(({ status }) => status)).toEqual(["processing", "succeeded"]);
});

test("the terminal one is repeated under its id until it is taken", async () => {
  await using hook = await receiver(500, 404, 200);
  await using emulator = await startEmulator({
    seed: 1,
    ...QUICK,
    webhookSecret: SECRET,
    webhookRetriesMs: [5, 5, 5, 5],
  });
  await create(emulator, "text", { prompt: "x" }, { webhook: hook.url, webhook_events_filter: ["completed"] });
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ sent: 1, delivered: 1, lost: 0, tries: 3 });
  expect(new Set(hook.received.map(({ id, signed }) => `${id} ${signed}`)).size).toBe(1);
});

test("a redirect loses it", async () => {
  await using hook = await receiver(301);
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookSecret: SECRET, webhookRetriesMs: [1] });
  await create(emulator, "text", { prompt: "x" }, { webhook: hook.url, webhook_events_filter: ["completed"] });
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ sent: 1, delivered: 0, lost: 1, tries: 1 });
});

test("nobody there loses it after the last repetition", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookRetriesMs: [1, 1] });
  const { id } = await create(
    emulator,
    "text",
    { prompt: "x" },
    { webhook: "http://127.0.0.1:1/hook", webhook_events_filter: ["completed"] },
  );
  await ended(emulator, id);
  await expect.poll(() => emulator.books().webhooks).toMatchObject({ sent: 1, delivered: 0, lost: 1, tries: 3 });
});

test("a failed prediction is told; start and logs only to who asked", async () => {
  await using hook = await receiver(200);
  await using emulator = await startEmulator({ seed: 1, ...QUICK, webhookSecret: SECRET });
  await create(emulator, "moderated", { prompt: "x" }, { webhook: hook.url });
  await expect.poll(() => hook.received.map(({ status }) => status)).toEqual(["failed"]);
});
