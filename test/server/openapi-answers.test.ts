/** What the server answers is what the API's own description says: by status, type, form and headers. */

import type { InjectOptions } from "fastify";
import { expect } from "vitest";
import { ACCOUNT } from "../support/stages.ts";
import { describedBy, type Schema } from "./described.ts";
import { bringTo } from "./items.ts";
import { bearer, bucketWith, KEYS, NDJSON, post, rows, test, WITH_KEYS } from "./serving.ts";

const JSON_TYPE = { "content-type": "application/json" };
const GOOD = { version: "outlast/text", input: { prompt: "a" } };
const create = (payload: object, headers: Readonly<Record<string, string>> = {}): InjectOptions => ({
  method: "POST",
  url: "/v1/predictions",
  payload,
  headers,
});
const ABSENT = "0123456789abcdefghjk";

test("to creates, gets and lists of predictions", async ({ serve }) => {
  const { app } = await serve();
  const { expectDescribed } = await describedBy(app);
  const key = { "idempotency-key": "fog-1" };
  const made = await app.inject(
    create({ ...GOOD, webhook: "https://example.com/hook" }, { ...key, "cancel-after": "1h" }),
  );
  expectDescribed("predictions.create", made, 201);
  expect(made.headers).toHaveProperty("location");
  expectDescribed("predictions.create", await app.inject(create(GOOD, { prefer: "wait=1" })), 202);
  const { id } = made.json<{ id: string }>();
  for (const [kind, url] of [
    ["models", "/v1/models/outlast/text/predictions"],
    ["deployments", "/v1/deployments/outlast/text/predictions"],
  ] as const) {
    const answer = await app.inject({ method: "POST", url, payload: { input: { prompt: "a" } } });
    expectDescribed(`${kind}.predictions.create`, answer, 201);
  }
  expectDescribed("predictions.get", await app.inject(`/v1/predictions/${id}`), 200);
  expectDescribed("predictions.list", await app.inject("/v1/predictions"), 200);
  const canceled = await app.inject({ method: "POST", url: `/v1/predictions/${id}/cancel` });
  expectDescribed("predictions.cancel", canceled, 200);
  expectDescribed("account.get", await app.inject("/v1/account"), 200);
  expectDescribed("webhooks.default.secret.get", await app.inject("/v1/webhooks/default/secret"), 200);
});

test("to what can't be taken", async ({ serve }) => {
  const { app } = await serve();
  const { expectDescribed } = await describedBy(app);
  await app.inject(create(GOOD, { "idempotency-key": "fog-1" }));
  for (const [options, status] of [
    [create({ version: "outlast/text" }), 422],
    [create({ ...GOOD, seed: 1 }), 422],
    [create(GOOD, { prefer: "wait=61" }), 422],
    [create({ ...GOOD, input: {} }, { "idempotency-key": "fog-1" }), 422],
    [{ ...create({}, JSON_TYPE), payload: "{" }, 400],
    [{ ...create({}, JSON_TYPE), payload: `"${"a".repeat(2 * 1024 * 1024)}"` }, 413],
    [{ ...create({}, { "content-type": "text/plain" }), payload: "a" }, 415],
  ] as const) {
    expectDescribed("predictions.create", await app.inject(options), status);
  }
  expectDescribed("predictions.get", await app.inject(`/v1/predictions/${ABSENT}000000`), 404);
  expectDescribed("predictions.get", await app.inject("/v1/predictions/%zz"), 400);
  expectDescribed("predictions.get", await app.inject(`/v1/predictions/${"a".repeat(101)}`), 422);
  expectDescribed("predictions.list", await app.inject("/v1/predictions?cursor=nothing"), 422);
  expectDescribed("batches.get", await app.inject(`/v1/batches/${ABSENT}`), 404);
  const refused = await app.inject({ method: "POST", url: "/v1/batches", headers: NDJSON, payload: "{\n" });
  expectDescribed("batches.create", refused, 422);
  expectDescribed("batches.create", await app.inject({ method: "POST", url: "/v1/batches" }), 415);
});

test("to batches, their results, and their events", async ({ serve }) => {
  const { app, services } = await serve();
  const { document, expectDescribed, faultsOf } = await describedBy(app);
  const submit: InjectOptions = { method: "POST", url: "/v1/batches", headers: NDJSON, payload: rows(4) };
  const made = await app.inject(submit);
  expectDescribed("batches.create", made, 201);
  expectDescribed("batches.create", await app.inject(submit), 200);
  const { batch } = made.json<{ batch: Parameters<typeof bringTo>[1]["batch"] }>();
  const act = (word: string) => app.inject({ method: "POST", url: `/v1/batches/${batch}/${word}` });

  for (const [index, state] of (["saved", "failed", "running"] as const).entries()) {
    await bringTo(state, { batch, index }, services);
  }
  const results = await app.inject(`/v1/batches/${batch}/results`);
  expectDescribed("batches.results.list", results, 200);
  const line = document.components["schemas"]?.["ResultLine"] as Schema;
  for (const text of results.body.trim().split("\n")) expect(faultsOf(line, JSON.parse(text))).toEqual([]);

  expectDescribed("batches.get", await app.inject(`/v1/batches/${batch}`), 200);
  expectDescribed("batches.list", await app.inject("/v1/batches"), 200);
  expectDescribed("batches.pause", await act("pause"), 200);
  expectDescribed("batches.resume", await act("resume"), 200);
  expectDescribed("batches.cancel", await act("cancel"), 200);
  expectDescribed("batches.resume", await act("resume"), 409);

  const over = await post(app, rows(1));
  await services.ledger.finishBatch(ACCOUNT, over, Date.now(), 0);
  const events = await app.inject(`/v1/batches/${over}/events`);
  expectDescribed("batches.events.follow", events, 200);
  const [, id = "", data = ""] = /^event: batch\nid: (\S+)\ndata: (.*)$/m.exec(events.body) ?? [];
  expect(faultsOf(document.components["schemas"]?.["Batch"] as Schema, JSON.parse(data))).toEqual([]);
  const again = await app.inject({ url: `/v1/batches/${over}/events`, headers: { "last-event-id": id } });
  expectDescribed("batches.events.follow", again, 204);
});

test("to files, whole and in part", async ({ serve }) => {
  const { app, services } = await serve();
  const { expectDescribed } = await describedBy(app);
  const batch = await post(app, rows(1));
  await bringTo("saved", { batch, index: 0 }, services);
  const url = `/v1/files/${batch}000000/output-0.txt`;
  const whole = await app.inject(url);
  for (const [headers, status] of [
    [{}, 200],
    [{ range: "bytes=0-3" }, 206],
    [{ range: "bytes=9000-" }, 416],
    [{ "if-none-match": String(whole.headers["etag"]) }, 304],
  ] as const) {
    expectDescribed("files.get", await app.inject({ url, headers }), status);
  }
  expectDescribed("files.get", await app.inject(`${url}.gone`), 404);
});

test("to those who may not, ask too much, or come while the bucket is away", async ({ serve }) => {
  const { app } = await serve({ env: { ...WITH_KEYS, OUTLAST_API_LIMITS: "requests=1" } });
  const { operations, expectDescribed } = await describedBy(app);
  for (const { operationId, method, path } of operations) {
    const url = path.replace("{item}", `${ABSENT}000000`).replaceAll(/[{}]/g, "");
    expectDescribed(operationId, await app.inject({ method: method as "GET", url }), 401);
  }
  expectDescribed("predictions.create", await app.inject(create(GOOD, bearer(KEYS.viewer))), 403);
  expectDescribed("account.get", await app.inject({ url: "/v1/account", headers: bearer(KEYS.viewer) }), 429);

  const away = await serve({
    over: ({ bucket }) => ({
      bucket: bucketWith(bucket, {
        putOnce: () => Promise.reject(Object.assign(new Error("away"), { code: "ECONNREFUSED" })),
      }),
    }),
  });
  const submit: InjectOptions = { method: "POST", url: "/v1/batches", headers: NDJSON, payload: rows(1) };
  expectDescribed("batches.create", await away.app.inject(submit), 503);
});
