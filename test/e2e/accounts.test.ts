/** What an account's provider can say no to, and what is left of a batch then. */

import { expect, test } from "vitest";
import { expectRightBytes, model, prompts, report, results, submit, untilSettled } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";

test("a wrong token pauses the account with one clear line, and the right one carries on where it stood", async () => {
  await using fleet = await startFleet({ emulator: { tokens: ["r8_right"] } });
  const batch = await submit(fleet, prompts(30));
  const wrong = fleet.startWorker();
  await expect.poll(async () => (await report(fleet, batch)).paused, { timeout: 30_000 }).toMatch(/^401/);
  const paused = await untilSettled(fleet, batch);
  expect(paused).toMatchObject({ state: "paused", waiting: 30, in_flight: 0, failed: 0, unclear: 0 });
  const lines = wrong
    .log()
    .split("\n")
    .filter((line) => line.includes("is paused"));
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/account replicate is paused: 401.*outlast resume --account replicate/);
  expect(wrong.log()).not.toContain("r8_emulator");
  await wrong.stop();

  fleet.startWorker([], { REPLICATE_API_TOKEN: "r8_right" });
  const { ledger, queues, accounts } = fleet.services;
  const name = accounts[0]?.name;
  if (name === undefined) throw new Error("no account");
  await ledger.resumeAccount(name);
  await queues.wakeFeed(name);
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 30_000 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ saved: 30, failed: 0, unclear: 0 });
  expect(fleet.emulator.books().creates).toMatchObject({ total: 30, surplus: 0 });
});

test("an unknown model and a refused input fail alone, in the provider's words", async () => {
  await using fleet = await startFleet();
  const rows = [...prompts(10)].map((row, at) => {
    if (at === 3) return { ...row, target: model("no-such-model") };
    if (at === 5) return { ...row, input: { prompt: "too wide", width: 1_000_000 } };
    if (at === 7) return { ...row, target: model("moderated") };
    return row;
  });
  const batch = await submit(fleet, rows);
  fleet.startWorker();
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 30_000 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ saved: 7, failed: 3 });
  const lines = await results(fleet, batch);
  expect(lines[3]).toMatchObject({
    status: "failed",
    prediction_id: null,
    error: expect.stringMatching(/not.*found|does not exist|no.*model/i),
  });
  expect(lines[5]).toMatchObject({ status: "failed", prediction_id: null, error: expect.stringMatching(/width/) });
  expect(lines[7]).toMatchObject({
    status: "failed",
    prediction_id: expect.any(String),
    error: expect.stringMatching(/E005/),
  });
});

test("every kind of output is kept: text, sets, sound, nested JSON with data URLs", async () => {
  await using fleet = await startFleet();
  const batch = await submit(fleet, [
    { input: { prompt: "words" }, target: model("text") },
    { input: { prompt: "four of them" }, target: model("pictures") },
    { input: { text: "say this" }, target: model("speech") },
    { input: { prompt: "nested" }, target: model("nested") },
    { input: { bytes: 3_000_001 }, target: model("large") },
  ]);
  fleet.startWorker();
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 30_000 }).toBe("finished");
  const lines = await results(fleet, batch);
  expect(lines.map(({ status, outputs }) => [status, outputs.length > 0])).toEqual([
    ["saved", false],
    ["saved", true],
    ["saved", true],
    ["saved", true],
    ["saved", true],
  ]);
  expect(lines[1]?.outputs).toHaveLength(4);
  expect(lines[2]?.outputs[0]?.key).toMatch(/output-0\.wav$/);
  expect(lines[4]?.outputs[0]?.bytes).toBe(3_000_001);
  // Where a file stood, its key stands now; the rest is as the provider wrote it.
  const nested = JSON.stringify(lines[3]?.output);
  for (const { key } of lines[3]?.outputs ?? []) expect(nested).toContain(key);
  expect(nested).not.toMatch(/https?:|data:/);
});

test("CometAPI's route, which has neither list nor cancel, carries a batch to its end", async () => {
  await using fleet = await startFleet({ provider: "cometapi" });
  const batch = await submit(fleet, prompts(20));
  fleet.startWorker();
  await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 30_000 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ saved: 20, account: "cometapi" });
  await expectRightBytes(fleet, batch);
  expect(fleet.emulator.books().tokens_out_of_place).toEqual([]);
});
