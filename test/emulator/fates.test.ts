/** Whom chance strikes is a matter of the seed and the input, never of the order in which requests arrive. */

import { expect, test } from "vitest";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import type { FaultOrder } from "../../src/emulator/faults.ts";
import { ask, COMET_AUTH, create, ended, post, QUICK, UNLIMITED } from "./asker.ts";

const PROMPTS = Array.from({ length: 100 }, (_, number) => `prompt ${number}`);

const creating = (emulator: Emulator, prompt: string): Promise<Response> =>
  post(`${emulator.apiUrl}/predictions`, { version: "outlast/text", input: { prompt } });

/** The status that each prompt's create got, or `cut`. */
async function outcomes(emulator: Emulator, prompts: readonly string[]): Promise<Record<string, number | "cut">> {
  const pairs = await Promise.all(
    prompts.map(async (prompt) => {
      const response = await creating(emulator, prompt).catch(() => null);
      const whole = await response?.text().catch(() => null);
      return [prompt, response === null || whole === null ? "cut" : response.status] as const;
    }),
  );
  return Object.fromEntries(pairs);
}

/** One in twenty each. */
const MENU: readonly FaultOrder[] = [
  { route: "create", kind: "drop-before-read", rate: 0.05, count: null },
  { route: "create", kind: "drop-after-create", rate: 0.05, count: null },
  { route: "create", kind: "half-body", rate: 0.05, count: null },
  { route: "create", kind: "status", status: 503, rate: 0.05, count: null },
  { route: "create", kind: "status", status: 504, created: true, rate: 0.05, count: null },
];

test("a run strikes the same inputs in whatever order they arrive, and others under another seed", async () => {
  const runs = [];
  for (const [seed, prompts] of [
    [1, PROMPTS],
    [1, PROMPTS.toReversed()],
    [2, PROMPTS],
  ] as const) {
    await using emulator = await startEmulator({ seed, ...QUICK, ...UNLIMITED });
    for (const order of MENU) emulator.arm(order);
    runs.push({
      outcomes: await outcomes(emulator, prompts),
      struck: emulator.armed().map(({ struck }) => struck),
      made: [...emulator.predictionRows()].map(({ id }) => id).sort(),
    });
  }
  const [first, reversed, other] = runs;
  expect(reversed).toEqual(first);
  expect(other?.outcomes).not.toEqual(first?.outcomes);
  expect(first?.struck.every((struck) => struck > 0)).toBe(true);
});

test("the second create of an input has a fate of its own", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  emulator.arm({ route: "create", kind: "status", rate: 0.5, count: null });
  const first = await outcomes(emulator, PROMPTS);
  const second = await outcomes(emulator, PROMPTS);
  expect(second).not.toEqual(first);
  const both = PROMPTS.filter((prompt) => first[prompt] === 500 && second[prompt] === 500);
  expect(both.length).toBeGreaterThan(10);
  expect(both.length).toBeLessThan(40);
});

test("rates of one route are shares of one draw", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  emulator.arm({ route: "create", kind: "status", status: 500, rate: 0.5, count: null });
  emulator.arm({ route: "create", kind: "status", status: 502, rate: 0.5, count: null });
  const all = Object.values(await outcomes(emulator, PROMPTS));
  expect(new Set(all)).toEqual(new Set([500, 502]));
});

test("a create that the limit refuses uses up no fate", async () => {
  const fates = async (createsPerMinute: number): Promise<Record<string, unknown>> => {
    await using emulator = await startEmulator({ seed: 3, ...QUICK, createsPerMinute, burst: 3 });
    emulator.arm({ route: "create", kind: "status", created: true, rate: 0.5, count: null });
    let left = PROMPTS.slice(0, 20);
    const done: Record<string, unknown> = {};
    while (left.length > 0) {
      const round = await outcomes(emulator, left);
      left = left.filter((prompt) => round[prompt] === 429);
      for (const [prompt, outcome] of Object.entries(round)) if (outcome !== 429) done[prompt] = outcome;
    }
    expect(emulator.books().creates).toMatchObject({ total: 20, surplus: 0 });
    return done;
  };
  expect(await fates(3_000)).toEqual(await fates(Infinity));
});

test("a fault that waits for its turn isn't used up by a refused create", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, createsPerMinute: 1, burst: 1 });
  expect((await creating(emulator, "x")).status).toBe(201);
  emulator.arm({ route: "create", kind: "drop-after-create" });
  expect((await creating(emulator, "y")).status).toBe(429);
  expect(emulator.armed()).toMatchObject([{ struck: 0 }]);
});

test.for([500, 502, 503, 504])("%d may come after the prediction was made, and nothing tells", async (status) => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "status", status, created: true });
  const response = await creating(emulator, "x");
  expect(response.status).toBe(status);
  expect(response.headers.has("location")).toBe(false);
  expect(emulator.books().predictions.total).toBe(1);
});

test("a create may be answered later than any deadline; who hangs up before is in the books", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "late", delayMs: 3_600_000 });
  const body = JSON.stringify({ version: "outlast/text", input: { prompt: "x" } });
  const headers = { authorization: "Bearer r8_emulator" };
  const hangingUp = new AbortController();
  const asking = fetch(`${emulator.apiUrl}/predictions`, { method: "POST", headers, body, signal: hangingUp.signal });
  await expect.poll(() => emulator.books().creates.total, { interval: 5 }).toBe(1);
  hangingUp.abort();
  await expect(asking).rejects.toThrow("aborted");
  await expect.poll(() => emulator.books().requests, { interval: 5 }).toEqual({ "replicate create": { unheard: 1 } });
});

test("ids, run times and luck belong to the input, too", async () => {
  const lives = async (prompts: readonly string[]): Promise<Map<string, unknown>> => {
    await using emulator = await startEmulator({
      seed: 1,
      ...UNLIMITED,
      queueMs: QUICK.queueMs,
      runMs: { medianMs: 20, spread: 1 },
    });
    const made = [];
    for (const prompt of prompts) made.push(await create(emulator, "flaky", { prompt }));
    const all = await Promise.all(made.map(({ id }) => ended(emulator, id)));
    return new Map(
      all.map(({ id, status, metrics, input }) => [String(input["prompt"]), [id, status, metrics?.["predict_time"]]]),
    );
  };
  const prompts = PROMPTS.slice(0, 10);
  const forwards = await lives(prompts);
  expect(await lives(prompts.toReversed())).toEqual(forwards);
  expect(new Set([...forwards.values()].map(String)).size).toBe(10);
});

test("gets are struck by prediction, whoever asks first", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  const ids = await Promise.all(
    PROMPTS.slice(0, 30).map(async (prompt) => (await create(emulator, "text", { prompt })).id),
  );
  const reads = async (order: readonly string[]): Promise<Record<string, number>> => {
    emulator.disarm();
    emulator.arm({ route: "get", kind: "status", rate: 0.3, count: null });
    const all: Record<string, number> = {};
    for (const id of order) all[id] = (await ask(`${emulator.apiUrl}/predictions/${id}`)).status;
    return all;
  };
  const first = await reads(ids);
  expect(await reads(ids.toReversed())).toEqual(first);
  expect(new Set(Object.values(first))).toEqual(new Set([200, 500]));
});

test("CometAPI's creates have fates, too, and a body that is no JSON harms nobody", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  emulator.arm({ route: "create", kind: "status", status: 503, rate: 0.5, count: null });
  const url = `${emulator.cometUrl}/models/outlast/text/predictions`;
  const statuses = await Promise.all(
    PROMPTS.slice(0, 20).map(async (prompt) => (await post(url, { input: { prompt } }, COMET_AUTH)).status),
  );
  expect(new Set(statuses)).toEqual(new Set([200, 503]));
  const response = await fetch(url, { method: "POST", headers: COMET_AUTH, body: "{" });
  expect([500, 503]).toContain(response.status);
});
