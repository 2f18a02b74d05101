/** The emulator's answers have the shapes of the documented samples in test/fixtures. */

import { describe, expect, test } from "vitest";
import { startEmulator } from "../../src/emulator/emulator.ts";
import {
  ask,
  COMET_AUTH,
  create,
  ended,
  fixture,
  get,
  post,
  QUICK,
  run,
  STUCK,
  shapeOf,
  shown,
  UNLIMITED,
} from "./asker.ts";

describe("predictions", () => {
  test("a created prediction has the documented shape and names its own address", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK });
    const response = await post(`${emulator.apiUrl}/models/outlast/picture/predictions`, { input: { prompt: "fog" } });
    expect(response.status).toBe(201);
    const body = await shown(response);
    expect(shapeOf(body)).toEqual(shapeOf(await fixture("replicate/prediction-created")));
    expect(response.headers.get("location")).toBe(`${emulator.apiUrl}/predictions/${body.id}`);
    expect(response.headers.get("ratelimit-remaining")).toBe("9");
    expect(body.urls["get"]).toBe(response.headers.get("location"));
  });

  test("a succeeded, a failed and an emptied prediction have the documented shapes", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK, expiryMs: 2_000 });
    const succeeded = await run(emulator, "picture", { prompt: "fog" });
    expect(shapeOf(succeeded)).toEqual(shapeOf(await fixture("replicate/prediction-succeeded")));
    const failed = await run(emulator, "moderated", { prompt: "fog" });
    expect(shapeOf(failed)).toEqual(shapeOf(await fixture("replicate/prediction-failed")));
    await expect
      .poll(async () => (await get(emulator, succeeded.id)).data_removed, { interval: 50, timeout: 5_000 })
      .toBe(true);
    const emptied = await get(emulator, succeeded.id);
    expect(shapeOf(emptied)).toEqual(shapeOf(await fixture("replicate/prediction-data-removed")));
  });

  test("a held create answers processing with all outputs, as recorded, and the next get says succeeded", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    const held = await create(emulator, "picture", { prompt: "fog" }, {}, { prefer: "wait" });
    expect(shapeOf(held)).toEqual(shapeOf(await fixture("replicate/prediction-held")));
    expect(held.status).toBe("processing");
    expect((await get(emulator, held.id)).status).toBe("succeeded");
  });

  test("a list has the documented shape, and its cursor too", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    for (let number = 0; number < 101; number++) await create(emulator, "picture", { prompt: `fog ${number}` });
    const body = (await (await ask(`${emulator.apiUrl}/predictions`)).json()) as { next: string; results: unknown[] };
    const sample = (await fixture("replicate/list")) as { next: string };
    expect(shapeOf({ ...body, results: body.results.slice(0, 1) })).toEqual(shapeOf(sample));
    const cursorOf = (url: string): string =>
      Buffer.from(new URL(url).searchParams.get("cursor") ?? "", "base64")
        .toString()
        .replace(/\d/g, "0");
    expect(cursorOf(body.next)).toBe(cursorOf(sample.next));
  });

  test("an aborted prediction has the documented shape", async () => {
    await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
    const { id } = await create(emulator, "picture", { prompt: "fog" }, {}, { "cancel-after": "5" });
    const aborted = await ended(emulator, id);
    expect(shapeOf(aborted)).toEqual(shapeOf(await fixture("replicate/prediction-aborted")));
  });
});

describe("refusals", () => {
  test.for([
    { name: "problem-401", path: "/predictions/x", headers: { authorization: "Bearer wrong" } },
    { name: "problem-404", path: "/predictions/x" },
    { name: "problem-404", path: "/models/outlast/nothing/predictions", body: { input: {} } },
    { name: "problem-404", path: "/deployments/outlast/nothing/predictions", body: { input: {} } },
    { name: "problem-422-body", path: "/predictions", body: { model: "outlast/text", input: { prompt: "x" } } },
    {
      name: "problem-422-input",
      path: "/predictions",
      body: { version: "outlast/picture", input: { height: 5_000, seed: null } },
    },
    { name: "problem-422-version", path: "/predictions", body: { version: "a".repeat(64), input: {} } },
    { name: "problem-422-version", path: "/predictions", body: { version: "someone/else", input: {} } },
  ])("$path is refused with $name", async ({ name, path, body, headers = {} }) => {
    await using emulator = await startEmulator({ seed: 1 });
    const url = emulator.apiUrl + path;
    const response = body === undefined ? await ask(url, headers) : await post(url, body, headers);
    const sample = (await fixture(`replicate/${name}`)) as { status: number; invalid_fields?: unknown };
    const answer = (await response.json()) as { status: number; invalid_fields?: unknown };
    expect(response.status).toBe(sample.status);
    expect(response.headers.get("content-type")).toContain("application/problem+json");
    expect(shapeOf(answer)).toEqual(shapeOf(sample));
    expect(answer.invalid_fields).toEqual(sample.invalid_fields);
  });

  test("a request without a token is refused with a detail only", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const response = await fetch(`${emulator.apiUrl}/predictions`);
    expect(response.status).toBe(401);
    expect(Object.keys((await response.json()) as object)).toEqual(["detail"]);
  });

  test("a body beyond the limit is refused by a page, and the connection is good for more", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const body = { version: "outlast/text", input: { prompt: "x".repeat(65 * 1_024 * 1_024) } };
    const response = await post(`${emulator.apiUrl}/predictions`, body);
    expect([response.status, response.headers.get("content-type")]).toEqual([413, "text/html"]);
    expect((await create(emulator, "text", { prompt: "x" })).status).toBe("starting");
  });

  test("the older prefix of tokens is still accepted", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    expect((await ask(`${emulator.apiUrl}/account`, { authorization: "Token r8_emulator" })).status).toBe(200);
  });

  test("a throttled create says in its body, not in a header, when to come back", async () => {
    await using emulator = await startEmulator({ seed: 1, createsPerMinute: 6, burst: 1 });
    await create(emulator, "text", { prompt: "x" });
    const response = await post(`${emulator.apiUrl}/predictions`, { version: "outlast/text", input: { prompt: "x" } });
    const body = (await response.json()) as { detail: string; retry_after: number };
    expect(response.status).toBe(429);
    expect(response.headers.has("retry-after")).toBe(false);
    expect(shapeOf(body)).toEqual(shapeOf(await fixture("replicate/problem-429")));
    expect(body.retry_after).toBe(10);
    expect(body.detail).toMatch(/resets in ~10s\.$/);
    expect(emulator.books().creates.total).toBe(1);
  });

  test("the header can be asked for", async () => {
    await using emulator = await startEmulator({ seed: 1, createsPerMinute: 6, burst: 1, retryAfterHeader: true });
    await create(emulator, "text", { prompt: "x" });
    const response = await post(`${emulator.apiUrl}/predictions`, { version: "outlast/text", input: { prompt: "x" } });
    expect(response.headers.get("retry-after")).toBe("10");
  });

  test("all mistakes of a body are told at once", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const body = { input: [], webhook: "ftp://x", webhook_events_filter: ["never"], stream: true, tag: 1 };
    const response = await post(`${emulator.apiUrl}/predictions`, body);
    const { invalid_fields } = (await response.json()) as { invalid_fields: { field: string; type: string }[] };
    expect(invalid_fields.map(({ field, type }) => `${field} ${type}`)).toEqual([
      " required",
      " additional_property_not_allowed",
      "input invalid_type",
      "webhook invalid_type",
      "webhook_events_filter invalid_type",
    ]);
  });
});

describe("CometAPI's route", () => {
  test("a prediction has the documented shape, with addresses at Replicate's own hosts", async () => {
    await using emulator = await startEmulator({ seed: 1, ...QUICK });
    const url = `${emulator.cometUrl}/models/outlast/picture/predictions`;
    const created = await shown(await post(url, { input: { prompt: "a kite" } }, COMET_AUTH));
    expect(shapeOf(created)).toEqual(shapeOf(await fixture("comet/prediction-created")));
    expect(created.urls["get"]).toBe(`https://api.replicate.com/v1/predictions/${created.id}`);
    const poll = async () => shown(await ask(`${emulator.cometUrl}/predictions/${created.id}`, COMET_AUTH));
    await expect.poll(async () => (await poll()).status, { interval: 5 }).toBe("succeeded");
    expect(shapeOf(await poll())).toEqual(shapeOf(await fixture("comet/prediction-succeeded")));
  });

  test("errors come in an envelope, and a bad input is a 500 of the code invalid_request", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const url = `${emulator.cometUrl}/models/outlast/picture/predictions`;
    const refused = await post(url, { input: { prompt: "a kite" } });
    expect(refused.status).toBe(401);
    expect(shapeOf(await refused.json())).toEqual(shapeOf(await fixture("comet/error")));
    const bad = await post(url, { input: {} }, COMET_AUTH);
    expect(bad.status).toBe(500);
    expect(await bad.json()).toMatchObject({ error: { code: "invalid_request" } });
  });

  test("list, cancel and create by version aren't there: a redirect or a page", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const list = await ask(`${emulator.cometUrl}/predictions`, COMET_AUTH);
    expect([list.status, list.headers.get("content-type")]).toEqual([301, "text/html"]);
    const cancel = await post(`${emulator.cometUrl}/predictions/x/cancel`, {}, COMET_AUTH);
    expect([cancel.status, cancel.headers.get("content-type")]).toEqual([404, "text/html"]);
    const byVersion = await post(`${emulator.cometUrl}/predictions`, { version: "outlast/text" }, COMET_AUTH);
    expect(byVersion.status).toBe(404);
  });

  test("predictions of one provider aren't seen at the other", async () => {
    await using emulator = await startEmulator({ seed: 1 });
    const { id } = await create(emulator, "text", { prompt: "x" });
    expect((await ask(`${emulator.cometUrl}/predictions/${id}`, COMET_AUTH)).status).toBe(404);
  });
});
