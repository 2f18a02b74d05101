/** What one key may ask for in a minute: more is answered with 429 and when to come again, and nothing is submitted. */

import { Readable } from "node:stream";
import { describe, expect } from "vitest";
import { openLimits } from "../../src/server/limits.ts";
import { expectProblem } from "./expect-problem.ts";
import { bearer, KEYS, NDJSON, rows, type Served, test, WITH_KEYS } from "./serving.ts";

const GOOD = JSON.stringify({ version: "outlast/text", input: { prompt: "a" } });
const JSON_TYPE = { "content-type": "application/json" };

const limited = (limits: string) => ({ env: { ...WITH_KEYS, OUTLAST_API_LIMITS: limits } });

const create = (app: Served["app"], key: string) =>
  app.inject({ method: "POST", url: "/v1/predictions", payload: GOOD, headers: { ...JSON_TYPE, ...bearer(key) } });

const submit = (app: Served["app"], payload: string | Readable, key: string = KEYS.producer) =>
  app.inject({ method: "POST", url: "/v1/batches", payload, headers: { ...NDJSON, ...bearer(key) } });

const look = (app: Served["app"], key: string, url = "/v1/account") => app.inject({ url, headers: bearer(key) });

function expectRefusal(answer: Parameters<typeof expectProblem>[0], words: RegExp): void {
  expect(expectProblem(answer, 429).detail).toMatch(words);
  const seconds = Number(answer.headers["retry-after"]);
  expect(seconds).toBeGreaterThanOrEqual(1);
  expect(seconds).toBeLessThanOrEqual(60);
}

describe("requests", () => {
  test("more than a key's share are refused; other keys, its own tenant's too, have their own", async ({ serve }) => {
    const { app } = await serve(limited("requests=3"));
    for (let n = 0; n < 3; n++) expect((await look(app, KEYS.producer)).statusCode).toBe(200);
    expectRefusal(await look(app, KEYS.producer), /limit of 3 requests a minute/);
    expect((await look(app, KEYS.producer, "/batches")).statusCode).toBe(429);
    for (const key of [KEYS.viewer, KEYS.operator, KEYS.stranger]) {
      expect((await look(app, key)).statusCode).toBe(200);
    }
  });

  test("health is asked without counting, and whoever has no key uses up nobody's share", async ({ serve }) => {
    const { app } = await serve(limited("requests=3"));
    for (let n = 0; n < 10; n++) {
      expect((await app.inject("/ready")).statusCode).toBe(200);
      expect((await look(app, "a-key-that-nobody-has")).statusCode).toBe(401);
    }
    expect((await look(app, KEYS.producer)).statusCode).toBe(200);
  });
});

describe("bytes", () => {
  test("JSON counts with its length, said beforehand or not", async ({ serve }) => {
    const { app } = await serve(limited(`bytes=${GOOD.length * 2}`));
    expect((await create(app, KEYS.producer)).statusCode).toBe(201);
    const inPieces = await app.inject({
      method: "POST",
      url: "/v1/predictions",
      payload: Readable.from([GOOD]),
      headers: { ...JSON_TYPE, ...bearer(KEYS.producer) },
    });
    expect(inPieces.statusCode).toBe(201);
    expectRefusal(await create(app, KEYS.producer), /bytes a minute/);
    expect((await create(app, KEYS.operator)).statusCode).toBe(201);
  });

  test("an upload is refused in its middle, and nothing of it is submitted", async ({ serve }) => {
    const { app } = await serve(limited("bytes=10000"));
    expect((await submit(app, rows(100))).statusCode).toBe(201);
    expectRefusal(await submit(app, Readable.from(rows(150).match(/.*\n/g) ?? [])), /limit of 10000 bytes/);
    expect((await look(app, KEYS.operator, "/v1/batches")).json()).toMatchObject({ results: [{ items: 100 }] });
    expect((await submit(app, rows(100), KEYS.stranger)).statusCode).toBe(201);
  });
});

describe("rows", () => {
  test("as many as are allowed are taken, one more is not", async ({ serve }) => {
    const { app } = await serve(limited("rows=2500"));
    expect((await submit(app, rows(1_500))).statusCode).toBe(201);
    expectRefusal(await submit(app, rows(1_001)), /limit of 2500 rows/);
    expect((await submit(app, rows(2_500), KEYS.operator)).statusCode).toBe(201);
    expect((await look(app, KEYS.viewer, "/v1/batches")).json()).toMatchObject({
      results: [{ items: 2_500 }, { items: 1_500 }],
    });
  });

  test("a stream that is over the limit all alone is slowed down to it, however long it is", async () => {
    const limits = openLimits({ requests: 1, bytes: 1, rows: 10 }, 1);
    const client = { tenant: "acme", role: "producer", account: null, id: "a key" } as const;
    const take = limits.meter(client, "rows");
    const startedAt = performance.now();
    for (let taken = 0; taken < 30; taken += 5) await take(5);
    // Ten at once, ten in the next second, ten in the one after it.
    expect(performance.now() - startedAt).toBeGreaterThan(1_900);
    await expect(limits.meter(client, "rows")(5), "another one isn't").rejects.toThrow("used up");
    await expect(limits.meter(client, "bytes")(2), "nor one piece").rejects.toThrow("more than the 1 bytes");
  });
});
