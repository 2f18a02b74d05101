/** The list when it lags and lies; a get by id never does. */

import { expect, test } from "vitest";
import type { Emulator } from "../../src/emulator/emulator.ts";
import { startEmulator } from "../../src/emulator/emulator.ts";
import type { ListRules } from "../../src/emulator/listed.ts";
import { ask, create, get, type ListShown, type Shown, STUCK, UNLIMITED } from "./asker.ts";

const INPUT = {
  prompt: "x",
  image: "https://example.com/a.png",
  more: [{ mask: "data:image/png;base64,AAAA", strength: 0.5 }, "https://example.com/b.png"],
};

const started = (list: Partial<ListRules>): Promise<Emulator> =>
  startEmulator({ seed: "listed", ...STUCK, ...UNLIMITED, list });

async function listed(emulator: Emulator): Promise<Shown[]> {
  return ((await (await ask(`${emulator.apiUrl}/predictions`)).json()) as ListShown).results;
}

async function createMany(emulator: Emulator, count: number): Promise<Shown[]> {
  const all: Shown[] = [];
  for (let number = 0; number < count; number++) all.push(await create(emulator, "text", { ...INPUT, seed: number }));
  return all;
}

test("unless told otherwise, the list shows what a get shows", async () => {
  await using emulator = await started({});
  const made = await createMany(emulator, 3);
  expect(await listed(emulator)).toEqual(made.toReversed());
});

test("a prediction is shown when its lag is over, and can be got before", async () => {
  await using emulator = await started({ lagMs: 1_500 });
  const startedMs = performance.now();
  const made = await create(emulator, "text", INPUT);
  expect(await listed(emulator)).toEqual([]);
  expect(await get(emulator, made.id)).toEqual(made);
  const ids = async () => (await listed(emulator)).map(({ id }) => id);
  await expect.poll(ids, { interval: 20 }).toEqual([made.id]);
  expect(performance.now() - startedMs).toBeGreaterThan(1_495);
});

test("a list in which only some lag has holes", async () => {
  await using emulator = await started({ lagMs: 3_600_000, lagging: 0.5 });
  const made = (await createMany(emulator, 40)).map(({ id }) => id).toReversed();
  const shown = (await listed(emulator)).map(({ id }) => id);
  expect(shown.length).toBeGreaterThan(8);
  expect(shown.length).toBeLessThan(32);
  expect(made.filter((id) => shown.includes(id))).toEqual(shown);
});

test("inputs may be emptied, for a share of predictions, and always for the same ones", async () => {
  await using emulator = await started({ emptiedInputs: 0.5 });
  const made = await createMany(emulator, 40);
  const first = await listed(emulator);
  const emptied = first.filter(({ input }) => Object.keys(input).length === 0);
  expect(emptied.length).toBeGreaterThan(8);
  expect(emptied.length).toBeLessThan(32);
  expect(await listed(emulator)).toEqual(first);
  for (const { id, input } of made) expect((await get(emulator, id)).input).toEqual(input);
});

test("URLs and data URLs in inputs may be the provider's own, at any depth, and nothing else changes", async () => {
  await using emulator = await started({ changedUrls: 1 });
  await create(emulator, "text", INPUT);
  const [shown] = await listed(emulator);
  const own: unknown = expect.stringMatching(/^https:\/\/replicate\.delivery\//);
  expect(shown?.input).toEqual({ prompt: "x", image: own, more: [{ mask: own, strength: 0.5 }, own] });
});

test("keys may come in another order, at any depth", async () => {
  await using emulator = await started({ reorderedKeys: 1 });
  const made = await create(emulator, "text", INPUT);
  const [shown] = await listed(emulator);
  expect(shown).toEqual(made);
  expect(JSON.stringify(shown?.input)).not.toBe(JSON.stringify(made.input));
  expect(JSON.stringify(shown?.input)).toContain('{"strength":0.5,"mask"');
});

test("a model may go by an alias and another version", async () => {
  await using emulator = await started({ modelAlias: 1 });
  const made = await create(emulator, "text", INPUT);
  const [shown] = await listed(emulator);
  expect(shown).toMatchObject({ id: made.id, model: "replicate-internal/outlast-text" });
  expect(shown?.version).toMatch(/^dp-[0-9a-f]{32}$/);
  expect(await get(emulator, made.id)).toEqual(made);
});

test("a page may come in no order, while the pages still do", async () => {
  await using emulator = await started({ shuffled: true });
  const made = (await createMany(emulator, 120)).map(({ id }) => id).toReversed();
  const first = (await listed(emulator)).map(({ id }) => id);
  expect(first).not.toEqual(made.slice(0, 100));
  expect(first.toSorted()).toEqual(made.slice(0, 100).toSorted());
});
