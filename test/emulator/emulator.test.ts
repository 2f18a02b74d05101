/** Opening and closing. */

import { expect, test } from "vitest";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { create, STUCK } from "./asker.ts";

test("a port that is taken is told, and nothing stays open", async () => {
  await using first = await startEmulator();
  const port = Number(new URL(first.apiUrl).port);
  await expect(startEmulator({ port })).rejects.toThrow("EADDRINUSE");
  const filesPort = Number(new URL(first.filesUrl).port);
  await expect(startEmulator({ filesPort })).rejects.toThrow("EADDRINUSE");
});

test("it closes while predictions run and requests are held, and may be closed twice", async () => {
  const emulator = await startEmulator({ ...STUCK });
  const held = create(emulator, "text", { prompt: "x" }, {}, { prefer: "wait" }).catch(() => "cut");
  await expect.poll(() => emulator.books().creates.total, { interval: 5 }).toBe(1);
  await emulator.close();
  await emulator.close();
  expect(await held).toBe("cut");
  await expect(fetch(emulator.apiUrl)).rejects.toThrow("fetch failed");
});

test("two emulators without a seed make different ids", async () => {
  await using first = await startEmulator();
  await using second = await startEmulator();
  const ids = await Promise.all([first, second].map(async (one) => (await create(one, "text", { prompt: "x" })).id));
  expect(new Set(ids).size).toBe(2);
});

test("another name can stand in its addresses", async () => {
  await using emulator = await startEmulator({ publicHost: "localhost" });
  expect([emulator.apiUrl, emulator.filesUrl].map((url) => new URL(url).hostname)).toEqual(["localhost", "localhost"]);
});
