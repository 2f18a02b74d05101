/** `pause`, `resume` and `cancel` in the middle of a run: by the provider's books nothing is bought that shouldn't be. */

import { expect, test } from "vitest";
import { OBJECT_KEYS, type ObjectKey, QUEUE_NAMES } from "../../src/core/naming.ts";
import { jsonLines, lines, outlast } from "../cli/outlast.ts";
import {
  endedItems,
  expectRightBytes,
  model,
  prompts,
  report,
  results,
  submit,
  untilSettled,
} from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";

const TEXT = model("text");
/** They run until somebody cancels them. */
const endless = (prompt: string) => ({ input: { seconds: 1_800, prompt }, target: model("slow") });

const run = ({ env }: Fleet, ...args: readonly string[]) => outlast(args, { env });

async function readJson({ services }: Fleet, key: ObjectKey): Promise<unknown> {
  const body = await services.bucket.get(key, { maxBytes: 1_000_000 });
  if (body === null) throw new Error(`${services.bucket.urlOf(key)} isn't there`);
  return JSON.parse(body.toString("utf8"));
}

test("a batch that is paused buys nothing more, and is saved whole once it is resumed", async () => {
  // Slow enough that a pause comes in time on a busy machine too.
  await using fleet = await startFleet({ createsPerMinute: 120 });
  const items = 150;
  const batch = await submit(fleet, prompts(items), "paused");
  fleet.startWorker();
  await expect.poll(() => endedItems(fleet, batch), { timeout: 30_000, interval: 20 }).toBeGreaterThan(5);
  expect(await run(fleet, "pause", batch)).toMatchObject({
    code: 0,
    stderr: `batch ${batch} is paused; to let it go on: npm run -s outlast -- resume ${batch}\n`,
  });
  const standing = await untilSettled(fleet, batch);
  expect(standing).toMatchObject({ state: "paused", paused_by: "batch", in_flight: 0, failed: 0, unclear: 0 });
  expect(standing.waiting).toBeGreaterThan(20);
  const bought = fleet.emulator.books().creates.total;
  expect(bought).toBe(standing.saved);

  // That the fleet works on, and only not for this batch, another one shows.
  const other = await submit(fleet, [{ input: { prompt: "of another batch" }, target: TEXT }], "another");
  await expect.poll(async () => (await report(fleet, other)).state, { timeout: 30_000 }).toBe("finished");
  expect(fleet.emulator.books().creates.total).toBe(bought + 1);
  expect(await report(fleet, batch)).toEqual(standing);

  const [watched, shown, again] = await Promise.all([
    run(fleet, "watch", batch),
    run(fleet, "status", batch),
    run(fleet, "pause", batch),
  ]);
  expect([watched.code, shown.code, again.code], "stopped, not done").toEqual([3, 3, 0]);
  expect(lines(watched.stderr).at(-1)).toBe(`to let it go on: npm run -s outlast -- resume ${batch}`);
  expect(shown.stdout).toMatch(
    new RegExp(`^paused +paused by a person at .*; to let it go on: .* resume ${batch}$`, "m"),
  );
  expect(again.stderr).toMatch(/was paused already: paused by a person at 20/);

  const resumed = await run(fleet, "resume", batch);
  expect(resumed.code).toBe(0);
  expect(resumed.stderr).toMatch(/^batch \w+ goes on; it was paused by a person at 20.*\n$/);
  const { queues } = fleet.services;
  await queues.setRate(QUEUE_NAMES.create(standing.account), { max: 1_000, durationMs: 100 });
  const end = await run(fleet, "watch", batch, "--json");
  expect(end.code).toBe(0);
  expect(jsonLines(end.stdout).at(-1)).toMatchObject({ state: "finished", saved: items, paused: null });
  expect(fleet.emulator.books().creates).toMatchObject({ total: items + 1, surplus: 0 });
  await expectRightBytes(fleet, batch);
  const acts = await Promise.all([1, 2].map((n) => readJson(fleet, OBJECT_KEYS.batchAct(batch, n))));
  expect(acts).toMatchObject([{ act: "pause" }, { act: "resume" }]);
});

test("a batch that is canceled ends: what waits unbought, what runs at the provider, and what was done is kept", async () => {
  await using fleet = await startFleet({ createsPerMinute: 1_200 });
  const items = 2_100;
  const slow = Array.from({ length: items - 10 }, (_, n) => endless(`slow ${n}`));
  const batch = await submit(fleet, [...prompts(10), ...slow]);
  fleet.startWorker();
  fleet.startWorker();
  const saved = async () => (await report(fleet, batch)).saved;
  const inFlight = async () => (await report(fleet, batch)).in_flight;
  await expect.poll(saved, { timeout: 30_000, interval: 20 }).toBe(10);
  await expect.poll(inFlight, { timeout: 30_000, interval: 20 }).toBeGreaterThan(30);

  const canceled = await run(fleet, "cancel", batch);
  expect(canceled.code).toBe(0);
  expect(canceled.stderr).toMatch(
    /^batch \w+ is canceled: [\d,]+ waiting items end unbought, what is in flight is canceled at the provider; to watch it:/,
  );
  const watched = await run(fleet, "watch", batch, "--json");
  expect(watched.code).toBe(2);
  const end = await report(fleet, batch);
  expect(jsonLines(watched.stdout).at(-1)).toEqual(end);
  expect(end).toMatchObject({ state: "canceled", items, waiting: 0, in_flight: 0, failed: 0, unclear: 0, saved: 10 });
  expect(end).toMatchObject({ canceled: items - 10, finished_at: expect.any(String) });

  // By the provider's books nothing runs on, and nothing was bought but what was claimed.
  const books = fleet.emulator.books();
  expect(books.creates.surplus).toBe(0);
  expect(books.predictions).toMatchObject({ starting: 0, processing: 0, succeeded: 10 });
  const bought = (await results(fleet, batch)).filter(({ prediction_id: id }) => id !== null);
  expect(books.creates.total).toBe(bought.length);
  expect(books.predictions.canceled).toBe(bought.length - 10);
  expect(bought.length, "most of them were never bought").toBeLessThan(items / 2);

  expect(await readJson(fleet, OBJECT_KEYS.manifest(batch))).toMatchObject({
    items,
    saved: 10,
    failed: 0,
    canceled: items - 10,
  });
  expect(await readJson(fleet, OBJECT_KEYS.batchAct(batch, 1))).toMatchObject({ act: "cancel" });
  const [shown, ...refused] = await Promise.all([
    run(fleet, "status", batch),
    ...["pause", "resume", "cancel"].map((act) => run(fleet, act, batch)),
  ]);
  expect(shown.code).toBe(2);
  for (const ran of refused) expect(ran).toMatchObject({ code: 1, stderr: `batch ${batch} has finished\n` });
  await expectRightBytes(fleet, batch);
});

test("an item that is canceled ends alone, bought or not, and its batch goes on without it", async () => {
  await using fleet = await startFleet();
  const waits = { input: { prompt: "canceled while it waits" }, target: TEXT };
  const batch = await submit(fleet, [...prompts(2), endless("canceled while it runs"), waits]);
  const item = (index: number) => `${batch}00000${index}`;
  expect(await run(fleet, "cancel", item(3))).toMatchObject({
    code: 0,
    stderr: `item ${item(3)} is canceled; it was never bought\n`,
  });
  fleet.startWorker();
  const prediction = async () => (await results(fleet, batch))[2]?.prediction_id ?? null;
  await expect.poll(prediction, { timeout: 30_000 }).not.toBeNull();
  const running = await run(fleet, "cancel", item(2));
  expect(running.code).toBe(0);
  expect(running.stderr).toMatch(/^item \w+ is being canceled at the provider; to look: /);
  expect((await run(fleet, "watch", batch)).code).toBe(2);
  expect(await report(fleet, batch)).toMatchObject({ state: "finished", saved: 2, canceled: 2, failed: 0 });
  expect((await results(fleet, batch)).map((line) => [line.status, line.prediction_id !== null])).toEqual([
    ["saved", true],
    ["saved", true],
    ["canceled", true],
    ["canceled", false],
  ]);
  expect(fleet.emulator.books()).toMatchObject({
    creates: { total: 3, surplus: 0 },
    predictions: { succeeded: 2, canceled: 1, processing: 0, starting: 0 },
  });
  expect((await run(fleet, "cancel", item(0))).stderr).toBe(`item ${item(0)} has ended already: saved\n`);
});
