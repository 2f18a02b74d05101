/** The provider deletes what it made. Our copies stay, and every address that was handed out goes on leading to them. */

import { expect, test } from "vitest";
import { get as askEmulator } from "../emulator/asker.ts";
import { digest, filesOf, type Input, startApiFleet } from "../support/api-fleet.ts";

const ASKED: readonly { readonly model: string; readonly input: Input }[] = [
  { model: "pictures", input: { prompt: "four of them" } },
  { model: "speech", input: { text: "say this" } },
  { model: "nested", input: { prompt: "one inside the other" } },
  { model: "large", input: { bytes: 3_000_001 } },
];

test("outputs are shown and files open after the provider has removed both, by a server that was just started", async () => {
  await using api = await startApiFleet({
    emulator: { expiryMs: 15_000, queueMs: { medianMs: 20, spread: 0 }, runMs: { medianMs: 50, spread: 0 } },
    tenants: { acme: "replicate" },
  });
  const worker = api.startWorker();
  const client = api.client("acme");
  const saved = await Promise.all(
    ASKED.map(({ model, input }) => client.predictions.create({ model: `outlast/${model}`, input, wait: true })),
  );
  expect(saved.map(({ status }) => status)).toEqual(ASKED.map(() => "succeeded"));

  const digests = ASKED.map(({ model, input }) => digest(model, input));
  const theirs = [...api.emulator.predictionRows()].filter((row) => digests.includes(row.digest));
  const removed = async () => {
    const shown = await Promise.all(theirs.map(({ id }) => askEmulator(api.emulator, id)));
    return shown.map(({ data_removed, output }) => data_removed && output === null);
  };
  await expect.poll(removed, { timeout: 60_000, interval: 200 }).toEqual(ASKED.map(() => true));
  await worker.stop();
  await api.server.stop();
  const again = await api.startServer({ OUTLAST_PUBLIC_URL: api.front.url });
  api.front.leadTo(again.url);

  for (const [at, { model, input }] of ASKED.entries()) {
    const shown = await client.predictions.get(saved[at]?.id ?? "");
    expect(shown).toEqual(saved[at]);
    const urls = JSON.stringify(saved[at]?.output).match(/https:[^"]+/g) ?? [];
    const kept = await Promise.all(
      urls.map(async (url) => Buffer.from(await (await api.front.fetch(url)).arrayBuffer())),
    );
    for (const file of filesOf(model, input)) expect(kept.some((bytes) => bytes.equals(file))).toBe(true);
  }
});
