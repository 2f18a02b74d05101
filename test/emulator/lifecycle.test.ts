/** The lives of predictions: how they begin and end, how they are held, canceled, listed and emptied. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { parseCancelAfter, parsePrefer } from "../../src/emulator/headers.ts";
import { MODELS } from "../../src/emulator/models.ts";
import {
  ask,
  create,
  ended,
  get,
  type ListShown,
  post,
  QUICK,
  run,
  type Shown,
  STUCK,
  shown,
  UNLIMITED,
} from "./asker.ts";

test("every form of a version runs the model, and the same id stands for it in every emulator", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { latest_version } = (await (await ask(`${emulator.apiUrl}/models/outlast/text`)).json()) as {
    latest_version: { id: string; openapi_schema: { components: { schemas: { Input: { required: string[] } } } } };
  };
  expect(latest_version.id).toMatch(/^[0-9a-f]{64}$/);
  expect(latest_version.id).toBe(MODELS.get("outlast/text")?.versionId);
  expect(latest_version.openapi_schema.components.schemas.Input.required).toEqual(["prompt"]);
  for (const version of [latest_version.id, `outlast/text:${latest_version.id}`, "outlast/text"]) {
    const response = await post(`${emulator.apiUrl}/predictions`, { version, input: { prompt: "x" } });
    expect(response.status).toBe(201);
    expect((await shown(response)).version).toBe(version === "outlast/text" ? "hidden" : latest_version.id);
  }
  const path = `/models/outlast/text/versions/${latest_version.id}`;
  expect(await (await ask(emulator.apiUrl + path)).json()).toEqual(latest_version);
});

test("a deployment runs the model of its name and says which deployment it was", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const response = await post(`${emulator.apiUrl}/deployments/outlast/text/predictions`, { input: { prompt: "x" } });
  expect(await response.json()).toMatchObject({ model: "outlast/text", deployment: "outlast/text" });
});

test("the same seed gives the same ids and run times", async () => {
  const runs: unknown[] = [];
  for (let time = 0; time < 2; time++) {
    await using emulator = await startEmulator({
      seed: "s",
      queueMs: { medianMs: 5, spread: 1 },
      runMs: { medianMs: 9, spread: 1 },
    });
    const all = [];
    for (let number = 0; number < 5; number++) {
      const { id, metrics } = await run(emulator, "text", { prompt: `p ${number}` });
      all.push([id, metrics]);
    }
    runs.push(all);
  }
  expect(runs[0]).toEqual(runs[1]);
});

test("a flaky run fails without a reason, and the next of the same input may succeed", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  const all = await Promise.all(Array.from({ length: 20 }, () => run(emulator, "flaky", { prompt: "x" })));
  expect(new Set(all.map(({ status, error }) => `${status} ${error}`))).toEqual(
    new Set(["failed null", "succeeded null"]),
  );
});

test("a slow run takes the seconds it was told", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  expect((await run(emulator, "slow", { seconds: 0.123 })).metrics?.["predict_time"]).toBe(0.123);
});

describe("holding", () => {
  test("a hold that expires answers 202 and where the prediction stands", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    const body = { version: "outlast/slow", input: { seconds: 60 } };
    const response = await post(`${emulator.apiUrl}/predictions`, body, { prefer: "wait=1" });
    expect(response.status).toBe(202);
    expect(response.headers.get("preference-applied")).toBe("wait=1");
    expect(await response.json()).toMatchObject({ status: "processing", output: null });
  });

  test("a held text comes back succeeded", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    expect(await create(emulator, "text", { prompt: "x" }, {}, { prefer: "wait" })).toMatchObject({
      status: "succeeded",
    });
  });

  test.for([
    ["wait", { holdMs: 60_000, applied: "wait" }],
    ["wait=10", { holdMs: 10_000, applied: "wait=10" }],
    ["wait=600", { holdMs: 60_000, applied: "wait=60" }],
    ["respond-async", null],
    ["wait=soon", null],
  ] as const)("Prefer: %s", ([header, expected]) => {
    expect(parsePrefer(header)).toEqual(expected);
  });
});

describe("deadlines", () => {
  test.for([
    ["5", 5_000],
    ["90.5", 90_500],
    ["10s", 10_000],
    ["1h30m45s", 5_445_000],
    ["24h", 86_400_000],
    ["4.9", null],
    ["24h1s", null],
    ["soon", null],
    ["", null],
    ["5s1h", null],
  ] as const)("Cancel-After: %s", ([header, ms]) => {
    const parsed = parseCancelAfter(header);
    expect(parsed && "ms" in parsed ? parsed.ms : null).toBe(ms);
  });

  test("before the start it aborts and bills nothing, after the start it cancels and bills the run", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    await using busy = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
    const [waiting, running] = await Promise.all([
      create(emulator, "text", { prompt: "x" }, {}, { "cancel-after": "5s" }),
      create(busy, "slow", { seconds: 60 }, {}, { "cancel-after": "5s" }),
    ]);
    const [aborted, canceled] = await Promise.all([ended(emulator, waiting.id), ended(busy, running.id)]);
    expect([aborted.status, aborted.started_at, aborted.metrics?.["predict_time"]]).toEqual([
      "aborted",
      undefined,
      undefined,
    ]);
    expect(aborted.completed_at).toBe(aborted.deadline);
    expect(canceled.status).toBe("canceled");
    expect(canceled.metrics?.["predict_time"]).toBeCloseTo(4.995, 3);
    expect(emulator.books().bills).toEqual({ predictions: 0, predict_seconds: "0.000", usd: "0.000000000" });
    expect(busy.books().bills).toEqual({ predictions: 1, predict_seconds: "4.995", usd: "0.001123875" });
  });

  test("a deadline that makes no sense is refused", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const body = { version: "outlast/text", input: { prompt: "x" } };
    expect((await post(`${emulator.apiUrl}/predictions`, body, { "cancel-after": "1s" })).status).toBe(422);
    expect(emulator.books().creates.total).toBe(0);
  });
});

describe("canceling", () => {
  test("a running prediction is canceled at once, and stays so", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    const { id, urls } = await create(emulator, "slow", { seconds: 600 });
    await expect.poll(async () => (await get(emulator, id)).status, { interval: 5 }).toBe("processing");
    const response = await post(urls["cancel"] ?? "", undefined);
    expect(response.status).toBe(200);
    const canceled = await shown(response);
    expect(canceled.status).toBe("canceled");
    expect(canceled.metrics).toHaveProperty("predict_time");
    expect(await get(emulator, id)).toEqual(canceled);
  });

  test("an ended prediction keeps its end", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    const before = await run(emulator, "picture", { prompt: "x" });
    expect(await shown(await post(`${emulator.apiUrl}/predictions/${before.id}/cancel`, undefined))).toEqual(before);
  });
});

describe("listing", () => {
  test("the cursors show every prediction once, newest first, while others are created", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    const first = await Promise.all(
      Array.from({ length: 350 }, async (_, number) => (await create(emulator, "text", { prompt: `p ${number}` })).id),
    );
    const seen: { id: string; created_at: string }[] = [];
    let pages = 0;
    for (let url: string | null = `${emulator.apiUrl}/predictions`; url !== null; pages++) {
      const list: ListShown = (await (await ask(url)).json()) as ListShown;
      seen.push(...list.results);
      url = list.next;
      await Promise.all(Array.from({ length: 30 }, () => create(emulator, "text", { prompt: "late" })));
    }
    expect(pages).toBe(4);
    expect(seen.map(({ id }) => id).sort()).toEqual(first.sort());
    expect(seen.map((one) => one.created_at)).toEqual(
      seen
        .map((one) => one.created_at)
        .sort()
        .reverse(),
    );
    expect(new Set(seen.map((one) => one.created_at)).size).toBe(350);
  });

  test("previous leads back to the first page", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    for (let number = 0; number < 250; number++) await create(emulator, "text", { prompt: `p ${number}` });
    const list = async (url: string): Promise<ListShown> => (await (await ask(url)).json()) as ListShown;
    const one = await list(`${emulator.apiUrl}/predictions`);
    const two = await list(one.next ?? "");
    const three = await list(two.next ?? "");
    expect([one.previous, three.next, three.results.length]).toEqual([null, null, 50]);
    expect((await list(three.previous ?? "")).results).toEqual(two.results);
    expect((await list(two.previous ?? "")).results).toEqual(one.results);
  });

  test("created_after includes its moment, created_before doesn't, and both hold on every page", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    const all: Shown[] = [];
    for (let number = 0; number < 230; number++) all.push(await create(emulator, "text", { prompt: `p ${number}` }));
    await fc.assert(
      fc.asyncProperty(fc.nat(229), fc.nat(229), async (a, b) => {
        const [from, to] = [Math.min(a, b), Math.max(a, b)];
        const span = new URLSearchParams({
          created_after: all[from]?.created_at ?? "",
          created_before: all[to]?.created_at ?? "",
        });
        const ids: string[] = [];
        for (let url: string | null = `${emulator.apiUrl}/predictions?${span.toString()}`; url !== null; ) {
          const list: ListShown = (await (await ask(url)).json()) as ListShown;
          ids.push(...list.results.map(({ id }) => id));
          url = list.next;
        }
        expect(ids).toEqual(
          all
            .slice(from, to)
            .map(({ id }) => id)
            .reverse(),
        );
      }),
      { numRuns: 20 },
    );
  });

  test("each token lists its own predictions only; none are from the web", async () => {
    await using emulator = await startEmulator({ seed: 1, tokens: ["r8_emulator", "r8_other"] });
    await create(emulator, "text", { prompt: "x" });
    const other = await ask(`${emulator.apiUrl}/predictions`, { authorization: "Bearer r8_other" });
    expect(await other.json()).toMatchObject({ results: [] });
    expect(await (await ask(`${emulator.apiUrl}/predictions?source=web`)).json()).toMatchObject({ results: [] });
    expect((await ask(`${emulator.apiUrl}/predictions?source=api`)).status).toBe(422);
    expect((await ask(`${emulator.apiUrl}/predictions?cursor=nonsense`)).status).toBe(404);
  });
});

test("at expiry, counted from creation, data and files go and the record stays", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, expiryMs: 1_500 });
  const before = await run(emulator, "picture", { prompt: "x" });
  const url = String(before.output);
  expect((await fetch(url)).status).toBe(200);
  await expect.poll(async () => (await fetch(url)).status, { interval: 20, timeout: 5_000 }).toBe(404);
  expect(Date.now() - Date.parse(before.created_at)).toBeGreaterThanOrEqual(1_499);
  const after = await get(emulator, before.id);
  expect(after).toMatchObject({
    status: "succeeded",
    data_removed: true,
    input: {},
    output: null,
    metrics: before.metrics,
  });
});
