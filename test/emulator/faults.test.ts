/** Each fault does what it says, to the requests it was armed for and to no other. */

import { expect, test } from "vitest";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import { ask, COMET_AUTH, create, fixture, post, QUICK, run, shapeOf, UNLIMITED } from "./asker.ts";

const creating = (emulator: Emulator): Promise<Response> =>
  post(`${emulator.apiUrl}/predictions`, { version: "outlast/text", input: { prompt: "x" } });

test("drop-before-read loses the request", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "drop-before-read" });
  await expect(creating(emulator)).rejects.toThrow("fetch failed");
  expect((await creating(emulator)).status).toBe(201);
  expect(emulator.books().creates.total).toBe(1);
});

test("drop-after-create loses the answer only", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "drop-after-create" });
  await expect(creating(emulator)).rejects.toThrow("fetch failed");
  expect(emulator.books().creates.total).toBe(1);
  expect(await (await ask(`${emulator.apiUrl}/predictions`)).json()).toMatchObject({
    results: [{ input: { prompt: "x" } }],
  });
});

test("a status is answered with or without the work done", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "status", status: 500 });
  const refused = await creating(emulator);
  expect([refused.status, (await refused.text()).length, refused.headers.has("ratelimit-remaining")]).toEqual([
    500,
    41,
    false,
  ]);
  expect(emulator.books().creates.total).toBe(0);
  emulator.arm({ route: "create", kind: "status", status: 502, created: true });
  expect((await creating(emulator)).headers.get("content-type")).toBe("text/html");
  expect(emulator.books().creates.total).toBe(1);
});

test("no credit is answered in the captured shape", async () => {
  await using emulator = await startEmulator({ seed: 1 });
  emulator.arm({ route: "create", kind: "status", status: 402 });
  const response = await creating(emulator);
  expect(response.status).toBe(402);
  expect(shapeOf(await response.json())).toEqual(shapeOf(await fixture("replicate/problem-402")));
});

test("at CometAPI's route a status comes in its envelope", async () => {
  await using emulator = await startEmulator({ seed: 1 });
  emulator.arm({ route: "create", kind: "status", status: 503 });
  const url = `${emulator.cometUrl}/models/outlast/text/predictions`;
  const response = await post(url, { input: { prompt: "x" } }, COMET_AUTH);
  expect(response.status).toBe(503);
  expect(shapeOf(await response.json())).toEqual(shapeOf(await fixture("comet/error")));
});

test("half a body breaks off after the headers promised all of it", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "large", { bytes: 1_000_000 });
  for (const [route, url] of [
    ["get", `${emulator.apiUrl}/predictions/${(await create(emulator, "text", { prompt: "x" })).id}`],
    ["file", String(output)],
  ] as const) {
    emulator.arm({ route, kind: "half-body" });
    const response = await (route === "file" ? fetch(url) : ask(url));
    expect(response.status).toBe(200);
    let received = 0;
    const reading = (async () => {
      for await (const chunk of response.body ?? []) received += chunk.length;
    })();
    await expect(reading).rejects.toThrow("terminated");
    expect(received).toBeLessThanOrEqual(Number(response.headers.get("content-length")) / 2);
    expect(received).toBeGreaterThan(0);
  }
  expect([...emulator.fileRows()]).toMatchObject([{ complete: 0, partial: 1, sha256: null }]);
});

test("a page, or nothing, comes in place of a file as if all were well", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "picture", { prompt: "x" });
  emulator.arm({ route: "file", kind: "page" });
  emulator.arm({ route: "file", kind: "empty" });
  const page = await fetch(String(output));
  expect([page.status, page.headers.get("content-type")]).toEqual([200, "image/png"]);
  expect(await page.text()).toMatch(/^<!DOCTYPE html>/);
  const nothing = await fetch(String(output));
  expect([nothing.status, nothing.headers.get("content-length"), await nothing.text()]).toEqual([200, "0", ""]);
  expect((await (await fetch(String(output))).bytes()).length).toBeGreaterThan(100);
});

test("silence keeps the socket open until the asker gives up", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "silence", created: true });
  const body = JSON.stringify({ version: "outlast/text", input: { prompt: "x" } });
  const headers = { authorization: "Bearer r8_emulator" };
  const asking = fetch(`${emulator.apiUrl}/predictions`, {
    method: "POST",
    headers,
    body,
    signal: AbortSignal.timeout(300),
  });
  await expect(asking).rejects.toThrow("aborted due to timeout");
  expect(emulator.books().creates.total).toBe(1);
  expect(emulator.books().requests["replicate create"]).toEqual({ silent: 1 });
});

test("a late answer has its effect at once", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  emulator.arm({ route: "create", kind: "late", delayMs: 400 });
  const startedMs = performance.now();
  const asking = creating(emulator);
  await expect.poll(() => emulator.books().creates.total, { interval: 5 }).toBe(1);
  expect((await asking).status).toBe(201);
  expect(performance.now() - startedMs).toBeGreaterThan(395);
});

test("skip, count and rate choose who is struck", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  const statuses = async (times: number): Promise<number[]> => {
    const all: number[] = [];
    for (let time = 0; time < times; time++) all.push((await creating(emulator)).status);
    return all;
  };
  emulator.arm({ route: "create", kind: "status", status: 429, skip: 1, count: 2 });
  expect(await statuses(5)).toEqual([201, 429, 429, 201, 201]);
  emulator.disarm();
  emulator.arm({ route: "create", kind: "status", status: 429, rate: 0.5, count: null });
  const struck = (await statuses(200)).filter((status) => status === 429).length;
  expect(struck).toBeGreaterThan(70);
  expect(struck).toBeLessThan(130);
});

test("faults are armed, shown and disarmed over HTTP; one that makes no sense is refused", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const url = emulator.apiUrl.replace("/v1", "/__faults");
  expect((await post(url, { route: "create", kind: "status", status: 418 })).status).toBe(201);
  expect((await creating(emulator)).status).toBe(418);
  expect(await (await fetch(url)).json()).toMatchObject([{ route: "create", status: 418, count: 1, struck: 1 }]);
  expect((await post(url, { route: "create", kind: "explode" })).status).toBe(422);
  expect((await fetch(url, { method: "DELETE" })).status).toBe(200);
  expect(await (await fetch(url)).json()).toEqual([]);
});

test("a caller that hangs up in the middle of its body harms nobody", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const breaking = new AbortController();
  let pulls = 0;
  const body = new ReadableStream({
    pull(controller) {
      if (pulls++ === 0) controller.enqueue(new TextEncoder().encode('{"version":'));
      else breaking.abort();
    },
  });
  const headers = { authorization: "Bearer r8_emulator" };
  const asking = fetch(`${emulator.apiUrl}/predictions`, {
    method: "POST",
    headers,
    body,
    duplex: "half",
    signal: breaking.signal,
  });
  await expect(asking).rejects.toThrow("aborted");
  expect((await creating(emulator)).status).toBe(201);
  expect(emulator.books().creates.total).toBe(1);
});
