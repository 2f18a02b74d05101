/** API keys: what each role may, on every route that the API's own description names; whose things a key shows. */

import type { FastifyInstance, InjectOptions } from "fastify";
import { type Logger, pino } from "pino";
import { describe, expect } from "vitest";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { expectProblem } from "./expect-problem.ts";
import { bearer, bucketWith, KEYS, NDJSON, post, rows, type Served, test, WITH_KEYS } from "./serving.ts";

const ABSENT_BATCH = "0123456789abcdefghjk";
const ABSENT_ITEM = `${ABSENT_BATCH}000000`;
const GOOD = { version: "outlast/text", input: { prompt: "a" } };

type Route = { readonly method: "GET" | "POST"; readonly path: string };

/** Every route of the API, as it describes itself. */
async function routesOf(app: FastifyInstance): Promise<readonly Route[]> {
  const { paths } = (await app.inject("/v1/openapi.json")).json<{ paths: Record<string, Record<string, unknown>> }>();
  return Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => ({ path, method: method.toUpperCase() as Route["method"] })),
  );
}

function ask({ method, path }: Route, headers: Readonly<Record<string, string>> = {}): InjectOptions {
  const url = path
    .replace("/batches/{id}", `/batches/${ABSENT_BATCH}`)
    .replace(/\{(?:id|item)\}/, ABSENT_ITEM)
    .replaceAll(/\{\w+\}/g, "nothing");
  return { method, url, headers };
}

/** GETs that hand out what a viewer may not have. */
const NOT_FOR_VIEWERS = ["/v1/webhooks/default/secret"];

test("a page of another site changes nothing, by a password that its browser sends or where nobody is asked", async ({
  serve,
}) => {
  for (const env of [WITH_KEYS, {}]) {
    const { app } = await serve({ env });
    for (const route of (await routesOf(app)).filter(({ method }) => method === "POST")) {
      for (const [from, isRefused] of [
        [{ "sec-fetch-site": "cross-site" }, true],
        [{ "sec-fetch-site": "same-site" }, true],
        [{ origin: "https://evil.example" }, true],
        [{ origin: "null" }, true],
        [{ "sec-fetch-site": "same-origin" }, false],
        [{}, false],
      ] as const) {
        const { statusCode } = await app.inject(ask(route, { ...bearer(KEYS.producer), ...from }));
        expect([route.path, from, statusCode === 403]).toEqual([route.path, from, isRefused]);
      }
    }
  }
});

describe("roles", () => {
  test("without a key, and with a wrong one, no route is reached", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const routes = await routesOf(app);
    expect(routes.length).toBeGreaterThan(15);
    for (const route of routes) {
      for (const headers of [{}, bearer("not-a-key-of-anybody")]) {
        const answer = await app.inject(ask(route, headers));
        expectProblem(answer, 401);
        if (!route.path.startsWith("/v1/files/")) expect(answer.headers["www-authenticate"]).toMatch(/^Bearer /);
      }
    }
  });

  test("a viewer looks and changes nothing; producers and operators may do both", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    for (const route of await routesOf(app)) {
      const looksOnly = route.method === "GET" && !NOT_FOR_VIEWERS.includes(route.path);
      for (const [role, mayPass] of [
        ["viewer", looksOnly],
        ["producer", true],
        ["operator", true],
      ] as const) {
        const answer = await app.inject(ask(route, bearer(KEYS[role])));
        const passed = answer.statusCode !== 401 && answer.statusCode !== 403;
        expect([role, route.method, route.path, passed]).toEqual([role, route.method, route.path, mayPass]);
        expect(answer.statusCode, answer.body).toBeLessThan(500);
      }
    }
  });

  test("pages and board ask a browser; the board is an operator's where there are several tenants", async ({
    serve,
  }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const status = async (url: string, headers = {}) => (await app.inject({ url, headers })).statusCode;
    for (const url of ["/batches", "/queues"]) {
      const answer = await app.inject(url);
      expect([answer.statusCode, answer.headers["www-authenticate"]]).toEqual([401, expect.stringMatching(/^Basic /)]);
    }
    for (const [role, batches, queues] of [
      ["viewer", 200, 403],
      ["producer", 200, 403],
      ["operator", 200, 200],
    ] as const) {
      expect(await status("/batches", basic("anyone", KEYS[role]))).toBe(batches);
      expect(await status("/queues", basic("anyone", KEYS[role]))).toBe(queues);
    }
    // What comes from no key is the tenant default's, and on the board, too.
    for (const [tenant, queues] of [
      ["default", 200],
      ["acme", 403],
    ] as const) {
      const alone = await serve({ env: { OUTLAST_API_KEYS: `${tenant}:${KEYS.viewer}:viewer` } });
      expect((await alone.app.inject({ url: "/queues", headers: basic("", KEYS.viewer) })).statusCode).toBe(queues);
    }
  });
});

const basic = (name: string, password: string) => ({
  authorization: `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`,
});

describe("how a key is given", () => {
  const cases: readonly (readonly [what: string, authorization: string | undefined, known: boolean])[] = [
    ["Bearer", `Bearer ${KEYS.producer}`, true],
    ["bearer", `bearer ${KEYS.producer}`, true],
    ["Token, as older clients say", `Token ${KEYS.producer}`, true],
    ["several spaces", `Bearer   ${KEYS.producer}`, true],
    ["Basic, as the password", basic("me", KEYS.producer).authorization, true],
    ["Basic, without a name", basic("", KEYS.producer).authorization, true],
    ["nothing", undefined, false],
    ["an empty header", "", false],
    ["the key alone", KEYS.producer, false],
    ["no key", "Bearer ", false],
    ["a piece of it", `Bearer ${KEYS.producer.slice(0, -1)}`, false],
    ["more than it", `Bearer ${KEYS.producer}1`, false],
    ["another case", `Bearer ${KEYS.producer.toUpperCase()}`, false],
    ["something behind it", `Bearer ${KEYS.producer} and more`, false],
    ["another scheme", `Digest ${KEYS.producer}`, false],
    ["Basic, as the name", basic(KEYS.producer, "").authorization, false],
    ["Basic that is no base64", "Basic ???", false],
    ["a very long one", `Bearer ${"a".repeat(10_000)}`, false],
  ];
  test("by Bearer, Token or Basic, whole and alone", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    for (const [what, authorization, known] of cases) {
      const headers = authorization === undefined ? {} : { authorization };
      const { statusCode } = await app.inject({ url: "/v1/account", headers });
      expect([what, statusCode]).toEqual([what, known ? 200 : 401]);
    }
  });

  test("whose it is, it may know", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const answer = await app.inject({ url: "/v1/account", headers: bearer(KEYS.stranger) });
    expect(answer.json()).toEqual({ type: "organization", username: "other", name: "other" });
  });
});

describe("tenants", () => {
  test("what one has isn't there for another, on any route that takes an id", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const batch = await post(app, rows(3), { headers: bearer(KEYS.producer) });
    const created = await app.inject({
      method: "POST",
      url: "/v1/predictions",
      payload: GOOD,
      headers: bearer(KEYS.producer),
    });
    const { id: item } = created.json<{ id: string }>();

    const routes = (await routesOf(app)).filter(({ path }) => /\{(?:id|item)\}/.test(path));
    expect(routes.length).toBeGreaterThan(8);
    for (const route of routes) {
      const absent = ask(route, bearer(KEYS.stranger));
      const theirs = { ...absent, url: (absent.url as string).replace(ABSENT_ITEM, item).replace(ABSENT_BATCH, batch) };
      const [nobodys, somebodys] = [await app.inject(absent), await app.inject(theirs)];
      expectProblem(nobodys, 404);
      // Nothing tells the two apart.
      expect(somebodys.body.replaceAll(item, ABSENT_ITEM).replaceAll(batch, ABSENT_BATCH)).toBe(nobodys.body);
      expect(somebodys.statusCode).toBe(404);
    }
    const report = await app.inject({ url: `/v1/batches/${batch}`, headers: bearer(KEYS.viewer) });
    expect(report.json()).toMatchObject({ paused: null, canceled_at: null });
  });

  test("each lists its own, and the same rows of two are two batches", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const seen = async (key: string) => {
      const batches = (await app.inject({ url: "/v1/batches", headers: bearer(key) })).json<Listed<"batch">>();
      const singles = (await app.inject({ url: "/v1/predictions", headers: bearer(key) })).json<Listed<"id">>();
      return { batches: batches.results.map(({ batch }) => batch), singles: singles.results.map(({ id }) => id) };
    };
    const ids: Record<string, readonly string[]> = {};
    for (const key of [KEYS.producer, KEYS.stranger]) {
      const batch = await post(app, rows(3), { headers: bearer(key) });
      const headers = { ...bearer(key), "idempotency-key": "the-same" };
      const created = await app.inject({ method: "POST", url: "/v1/predictions", payload: GOOD, headers });
      ids[key] = [batch, created.json<{ id: string }>().id];
    }
    expect(ids[KEYS.producer]).not.toEqual(ids[KEYS.stranger]);
    for (const key of [KEYS.producer, KEYS.stranger]) {
      const { batches, singles } = await seen(key);
      expect(batches).toContain(ids[key]?.[0]);
      expect(batches).toHaveLength(2); // the day's singles are the other
      expect(singles).toEqual([ids[key]?.[1]]);
    }
    expect(await seen(KEYS.viewer)).toEqual(await seen(KEYS.producer));
  });

  test("each signs its webhooks with a secret of its own", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const secretOf = async (key: string) =>
      (await app.inject({ url: "/v1/webhooks/default/secret", headers: bearer(key) })).json<{ key: string }>().key;
    const [ours, theirs] = [await secretOf(KEYS.producer), await secretOf(KEYS.stranger)];
    expect(ours).toMatch(/^whsec_/);
    expect(theirs).not.toBe(ours);
    expect(await secretOf(KEYS.operator)).toBe(ours);
  });
});

describe("accounts", () => {
  const env = {
    COMETAPI_KEY: "sk-not-a-key",
    OUTLAST_API_KEYS: `acme:${KEYS.producer}:producer:cometapi,other:${KEYS.stranger}`,
  };
  const submit = (app: FastifyInstance, key: string, query: string) =>
    app.inject({
      method: "POST",
      url: `/v1/batches${query}`,
      headers: { ...NDJSON, ...bearer(key) },
      payload: rows(1),
    });

  test("a key that is bound to one pays by no other", async ({ serve }) => {
    const { app } = await serve({ env });
    expect((await submit(app, KEYS.producer, "")).json()).toMatchObject({ account: "cometapi" });
    expect((await submit(app, KEYS.producer, "?account=cometapi")).statusCode).toBe(200);
    const problem = expectProblem(await submit(app, KEYS.producer, "?account=replicate"), 422);
    expect(problem.invalid_fields).toMatchObject([{ field: "querystring.account" }]);
  });

  test("one that is bound to none may choose", async ({ serve }) => {
    const { app } = await serve({ env });
    expect((await submit(app, KEYS.stranger, "")).json()).toMatchObject({ account: "replicate" });
    expect((await submit(app, KEYS.stranger, "?account=cometapi")).json()).toMatchObject({ account: "cometapi" });
  });
});

test("a page of another site can't act with a password that the browser knows", async ({ serve }) => {
  const { app } = await serve({ env: WITH_KEYS });
  const batch = await post(app, rows(1), { headers: bearer(KEYS.producer) });
  const pause = (site: Readonly<Record<string, string>>) =>
    app.inject({
      method: "POST",
      url: `/v1/batches/${batch}/pause`,
      headers: { ...basic("me", KEYS.producer), ...site },
    });
  for (const site of ["cross-site", "same-site"]) {
    expect(expectProblem(await pause({ "sec-fetch-site": site }), 403).detail).toMatch(/another site/);
  }
  for (const headers of [{}, { "sec-fetch-site": "same-origin" }, { "sec-fetch-site": "none" }]) {
    expect((await pause(headers)).statusCode).toBe(200);
  }
});

type Listed<Name extends string> = { readonly results: readonly Readonly<Record<Name, string>>[] };

test("no key, and nothing that was made of one, is in any line of the log, whatever happens", async ({ serve }) => {
  const lines: string[] = [];
  const log: Logger = pino({ level: "trace" }, { write: (line: string) => lines.push(line) });
  const { app } = await serve({ env: WITH_KEYS, log, over: ({ bucket }) => ({ bucket: broken(bucket) }) });
  const wrong = "a-key-that-nobody-has-0001";
  for (const key of [...Object.values(KEYS), wrong]) {
    for (const headers of [bearer(key), { authorization: `Token ${key}` }, basic("me", key)]) {
      await session(app, headers);
      await app.inject({ url: `/v1/account?key=${key}`, headers });
      await app.inject({ url: `/v1/nothing?key=${key}`, headers });
    }
  }
  expect(lines.filter((line) => line.includes("a request failed")).length).toBeGreaterThan(10);
  for (const key of [...Object.values(KEYS), wrong]) {
    for (const secret of [key, Buffer.from(`me:${key}`).toString("base64")]) {
      expect(lines.filter((line) => line.includes(secret))).toEqual([]);
    }
  }
});

async function session(app: Served["app"], headers: Readonly<Record<string, string>>): Promise<void> {
  for (const request of [
    { url: "/v1/predictions" },
    { url: "/v1/batches" },
    { url: `/v1/predictions/${ABSENT_ITEM}` },
    { url: "/batches" },
    { url: "/queues" },
    { method: "POST", url: "/v1/predictions", payload: GOOD },
    { method: "POST", url: "/v1/predictions", payload: { ...GOOD, more: 1 } },
    { method: "POST", url: "/v1/batches", payload: rows(2), headers: NDJSON },
  ] satisfies readonly InjectOptions[]) {
    await app.inject({ ...request, headers: { ...headers, ...("headers" in request ? request.headers : {}) } });
  }
}

/** A bucket of which much fails, with an error that nobody has foreseen. */
function broken(bucket: Bucket): Bucket {
  const fail = async () => Promise.reject(new TypeError("a wire is loose"));
  return bucketWith(bucket, { head: fail, get: fail, getRange: fail, put: fail, putOnce: fail, putStream: fail });
}
