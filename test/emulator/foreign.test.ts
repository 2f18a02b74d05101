/** Predictions that somebody else buys on the account: the API shows them as any other, the books don't. */

import { expect, test } from "vitest";
import type { Audit } from "../../src/emulator/books.ts";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { ask, create, ended, type ListShown, post, QUICK, run, STUCK, UNLIMITED } from "./asker.ts";

const INPUT = { prompt: "x", seed: 1 };

test("a stranger's prediction is listed, run and billed as any other, and kept apart in the books", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, usdPerSecond: 0.001 });
  const origin = emulator.apiUrl.replace("/v1", "");
  const answer = await post(`${origin}/__foreign`, { model: "outlast/text", input: INPUT, count: 2 });
  expect(answer.status).toBe(201);
  const { ids } = (await answer.json()) as { readonly ids: readonly string[] };
  expect(new Set(ids).size).toBe(2);
  const ours = await run(emulator, "text", INPUT);
  const [theirs] = await Promise.all(ids.map((id) => ended(emulator, id)));
  expect(theirs).toMatchObject({ status: "succeeded", input: INPUT, output: ours.output });
  const list = (await (await ask(`${emulator.apiUrl}/predictions`)).json()) as ListShown;
  expect(list.results.map(({ id }) => id)).toEqual([ours.id, ...ids.toReversed()]);

  const books = (await (await fetch(`${origin}/__audit`)).json()) as Audit;
  expect(books).toMatchObject({
    creates: { total: 1, distinct_inputs: 1, surplus: 0 },
    predictions: { total: 1, succeeded: 1 },
    bills: { predictions: 1, usd: "0.000010000" },
    foreign: { predictions: { total: 2, succeeded: 2 }, bills: { predictions: 2, usd: "0.000020000" } },
  });
  expect([...emulator.predictionRows()].map(({ id, foreign }) => [id, foreign])).toEqual([
    [ids[0], true],
    [ids[1], true],
    [ours.id, false],
  ]);
});

test("who cancels a stranger's prediction is found out", async () => {
  await using emulator = await startEmulator({ seed: 1, ...STUCK });
  const [id] = emulator.buyForeign({ model: "outlast/text", input: INPUT });
  await post(`${emulator.apiUrl}/predictions/${id}/cancel`, {});
  expect(emulator.books()).toMatchObject({ predictions: { canceled: 0 }, foreign: { predictions: { canceled: 1 } } });
});

test("a stranger may use any account of the emulator's", async () => {
  await using emulator = await startEmulator({ seed: 1, ...STUCK, tokens: ["r8_a", "r8_b"] });
  emulator.buyForeign({ model: "outlast/text", input: INPUT });
  const [first] = [...emulator.predictionRows()];
  const headers = { authorization: "Bearer r8_b" };
  await create(emulator, "text", INPUT, {}, headers);
  const other = [...emulator.predictionRows()][1]?.account;
  expect(other).not.toBe(first?.account);
  emulator.buyForeign({ model: "outlast/text", input: INPUT, account: String(other) });
  const list = (await (await ask(`${emulator.apiUrl}/predictions`, headers)).json()) as ListShown;
  expect(list.results).toHaveLength(2);
});

test("an order that makes no sense is refused", async () => {
  await using emulator = await startEmulator({ seed: 1, ...STUCK });
  const url = emulator.apiUrl.replace("/v1", "/__foreign");
  for (const [order, word] of [
    [{ model: "outlast/none", input: INPUT }, "no such model"],
    [{ model: "outlast/text", input: {} }, "prompt is required"],
    [{ model: "outlast/text", input: INPUT, account: "nobody" }, "no such account"],
    [{ model: "outlast/text", input: INPUT, count: 0 }, "count"],
  ] as const) {
    const refused = await post(url, order);
    expect(refused.status).toBe(422);
    expect(await refused.text()).toContain(word);
  }
  expect(emulator.books().foreign.predictions.total).toBe(0);
});

test("a share of creates has a twin of a stranger's, before it or after it, for the same inputs in every run", async () => {
  const twins = async (numbers: readonly number[]) => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED, foreignTwins: 0.5 });
    for (const seed of numbers) await create(emulator, "text", { prompt: "x", seed });
    const rows = [...emulator.predictionRows()];
    expect(emulator.books().creates).toMatchObject({ total: numbers.length, surplus: 0 });
    const places = rows.flatMap((row, at) =>
      row.foreign ? [rows.slice(0, at).some((other) => other.digest === row.digest) ? "after" : "before"] : [],
    );
    return { places, digests: rows.flatMap((row) => (row.foreign ? [row.digest] : [])).sort() };
  };
  const numbers = Array.from({ length: 40 }, (_, number) => number);
  const forwards = await twins(numbers);
  expect(new Set(forwards.places)).toEqual(new Set(["before", "after"]));
  expect(forwards.digests.length).toBeGreaterThan(8);
  expect(forwards.digests.length).toBeLessThan(32);
  expect((await twins(numbers.toReversed())).digests).toEqual(forwards.digests);
});

test("a stranger's prediction takes nothing from ours: not its id, its run time or its luck", async () => {
  const runs = [];
  for (const foreign of [0, 3]) {
    await using emulator = await startEmulator({ seed: 1, runMs: { medianMs: 20, spread: 1 }, queueMs: QUICK.queueMs });
    if (foreign > 0) emulator.buyForeign({ model: "outlast/flaky", input: INPUT, count: foreign });
    const { id, status, metrics } = await run(emulator, "flaky", INPUT);
    runs.push({ id, status, predictTime: metrics?.["predict_time"] });
  }
  expect(runs[1]).toEqual(runs[0]);
});
