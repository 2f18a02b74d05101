/** The books against what was really asked. */

import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { Audit, FileRow, PredictionRow } from "../../src/emulator/books.ts";
import type { InputRow } from "../../src/emulator/books-by-input.ts";
import { canonicalJson, digestOf } from "../../src/emulator/canonical.ts";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { ask, COMET_AUTH, create, ended, post, QUICK, run, UNLIMITED } from "./asker.ts";

test("an input created twice shows as one input and one create too many, whatever the order of its keys", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  await create(emulator, "text", { prompt: "x", seed: 1 });
  await create(emulator, "text", { seed: 1, prompt: "x" });
  await create(emulator, "text", { prompt: "x", seed: 2 });
  const text = '{"input":{"prompt":"x","seed":1},"model":"outlast/text"}';
  const digest = createHash("sha256").update(text).digest("hex");
  expect(emulator.books().creates).toEqual({
    total: 3,
    distinct_inputs: 2,
    repeated_inputs: 1,
    surplus: 1,
    repeated: [{ digest, creates: 2 }],
  });
});

test("canonical JSON doesn't depend on the order of keys", () => {
  expect(canonicalJson({ b: [1, { d: null, c: "é" }], a: undefined })).toBe('{"b":[1,{"c":"é","d":null}]}');
});

test("bills are run times times the price, failed runs included", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, usdPerSecond: 0.001 });
  await run(emulator, "slow", { seconds: 0.123 });
  await run(emulator, "moderated", { prompt: "x" });
  expect(emulator.books().bills).toEqual({ predictions: 2, predict_seconds: "0.133", usd: "0.000133000" });
  expect([...emulator.predictionRows()].map(({ status, predict_time, usd }) => [status, predict_time, usd])).toEqual([
    ["succeeded", 0.123, "0.000123000"],
    ["failed", 0.01, "0.000010000"],
  ]);
});

test("requests are counted by route and answer", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, createsPerMinute: 1, burst: 2 });
  for (let time = 0; time < 5; time++) {
    await post(`${emulator.apiUrl}/predictions`, { version: "outlast/text", input: { prompt: "x" } });
  }
  await ask(`${emulator.apiUrl}/predictions`);
  expect(emulator.books().requests).toEqual({ "replicate create": { 201: 2, 429: 3 }, "replicate list": { 200: 1 } });
});

test("tokens out of place are seen, and never shown", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "picture", { prompt: "x" });
  await (await fetch(String(output), { headers: { authorization: "Bearer r8_emulator" } })).arrayBuffer();
  await post(`${emulator.cometUrl}/models/outlast/text/predictions`, { input: { prompt: "x" } });
  await ask(`${emulator.apiUrl}/account`, COMET_AUTH);
  await ask(`${emulator.apiUrl}/account?token=r8_emulator`);
  await create(emulator, "text", { prompt: "x", client: { auth: "r8_emulator" } });
  const { tokens_out_of_place } = emulator.books();
  expect(tokens_out_of_place.map(({ place, times }) => `${place} ${times}`).sort()).toEqual([
    "body 1",
    "file host 1",
    "other provider 1",
    "other provider 1",
    "url 1",
  ]);
  const audit = await (await ask(emulator.apiUrl.replace("/v1", "/__audit?predictions=1&files=1"))).text();
  expect(audit).not.toContain("r8_emulator");
  expect(audit).not.toContain("sk-emulator");
});

test("the audit over HTTP is the audit in the process, with rows on demand", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  const ids = await Promise.all(
    Array.from({ length: 1_200 }, async (_, number) => (await create(emulator, "text", { prompt: `p ${number}` })).id),
  );
  await Promise.all(ids.map((id) => ended(emulator, id)));
  const { output } = await run(emulator, "picture", { prompt: "x" });
  const sum = createHash("sha256")
    .update(Buffer.from(await (await fetch(String(output))).arrayBuffer()))
    .digest("hex");
  const origin = emulator.apiUrl.replace("/v1", "");
  const totals = (await (await fetch(`${origin}/__audit`)).json()) as Audit;
  expect(totals).toMatchObject({ ...emulator.books(), requests: {} });
  expect(totals).not.toHaveProperty("prediction_list");
  const full = (await (await fetch(`${origin}/__audit?predictions=1&files=1`)).json()) as {
    prediction_list: PredictionRow[];
    file_list: FileRow[];
  };
  expect(full.prediction_list).toEqual([...emulator.predictionRows()]);
  expect(full.prediction_list).toHaveLength(1_201);
  expect(full.file_list).toMatchObject([{ name: "out-0.png", sha256: sum, complete: 1, partial: 0 }]);
});

test("by input they say how often it was bought, what that cost, and which bytes were served", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, usdPerSecond: 0.001, expiryMs: 2_000 });
  const input = { bytes: 1_000, seed: 1 };
  emulator.buyForeign({ model: "outlast/large", input });
  const first = await run(emulator, "large", input);
  const second = await run(emulator, "large", input);
  const bytes = Buffer.from(await (await fetch(String(first.output))).arrayBuffer());
  await (await fetch(String(second.output), { headers: { range: "bytes=0-9" } })).arrayBuffer();
  await run(emulator, "moderated", { prompt: "x" });
  await expect.poll(() => emulator.books().predictions.data_removed).toBe(3); // the books outlive it
  const url = emulator.apiUrl.replace("/v1", "/__audit?inputs=1");
  const { input_list } = (await (await fetch(url)).json()) as { readonly input_list: readonly InputRow[] };
  expect(input_list).toEqual([...emulator.inputRows()]);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  expect(input_list).toEqual([
    {
      digest: digestOf({ model: "outlast/large", input }),
      model: "outlast/large",
      creates: 2,
      succeeded: 2,
      billed: 2,
      usd: "0.000020000",
      foreign: 1,
      files: [{ name: "out.bin", bytes: 1_000, sha256, complete: 1, partial: 1 }],
    },
    {
      digest: digestOf({ model: "outlast/moderated", input: { prompt: "x" } }),
      model: "outlast/moderated",
      creates: 1,
      succeeded: 0,
      billed: 1,
      usd: "0.000010000",
      foreign: 0,
      files: [],
    },
  ]);
});

test("the page for people names the addresses and the models", async () => {
  await using emulator = await startEmulator({ seed: 1 });
  const page = await (await fetch(emulator.apiUrl.replace("/v1", "/"))).text();
  for (const word of [emulator.apiUrl, emulator.cometUrl, emulator.filesUrl, "outlast/picture"])
    expect(page).toContain(word);
});
