/** What can be wrong with a request for a prediction, in its body, headers, path and query: an answer that says what. */

import { readFile } from "node:fs/promises";
import type { InjectOptions } from "fastify";
import { describe, expect } from "vitest";
import { expectProblem } from "./expect-problem.ts";
import { bearer, KEYS, test, WITH_KEYS } from "./serving.ts";

const GOOD = { version: "outlast/text", input: { prompt: "a" } };
const JSON_TYPE = { "content-type": "application/json" };

const create = (payload: string | Buffer | object, headers: Readonly<Record<string, string>> = {}): InjectOptions => ({
  method: "POST",
  url: "/v1/predictions",
  payload,
  headers: { ...JSON_TYPE, ...headers },
});

test("a body is refused in the words of Replicate's own example", async ({ serve }) => {
  const { app } = await serve();
  const sample = await readFile(new URL("../fixtures/replicate/problem-422-body.json", import.meta.url), "utf8");
  const answer = await app.inject(create({ model: "outlast/text", input: {} }));
  expect(expectProblem(answer, 422)).toEqual(JSON.parse(sample));
});

describe("fields", () => {
  const cases: readonly (readonly [what: string, body: unknown, ...fields: readonly (readonly [string, string])[]])[] =
    [
      ["no version", { input: {} }, ["", "version is required"]],
      ["no input", { version: "outlast/text" }, ["", "input is required"]],
      ["neither", {}, ["", "version is required"], ["", "input is required"]],
      ["a number for the version", { ...GOOD, version: 5 }, ["version", "string"]],
      ["nothing for the version", { ...GOOD, version: null }, ["version", "string"]],
      ["an empty version", { ...GOOD, version: "" }, ["", '"version"']],
      ["a version that is none", { ...GOOD, version: "abc" }, ["", '"version"']],
      ["a path of three", { ...GOOD, version: "a/b/c" }, ["", "owner/name"]],
      ["a path upwards", { ...GOOD, version: "../b" }, ["", "owner/name"]],
      ["a very long version", { ...GOOD, version: "a".repeat(301) }, ["version", "300"]],
      ["a list for the input", { ...GOOD, input: [] }, ["input", "must be an object"]],
      ["text for the input", { ...GOOD, input: "a fox" }, ["input", "must be an object"]],
      ["nothing for the input", { ...GOOD, input: null }, ["input", "must be an object"]],
      ["an input over a MiB", { ...GOOD, input: { prompt: "a".repeat(1024 * 1024) } }, ["", "1048576 bytes"]],
      ["a webhook that is no URL", { ...GOOD, webhook: "nowhere" }, ["webhook", "URL"]],
      ["a webhook by FTP", { ...GOOD, webhook: "ftp://example.com/a" }, ["webhook", "URL"]],
      ["a webhook to this machine", { ...GOOD, webhook: "https://127.0.0.1/a" }, ["webhook", "loopback"]],
      ["a webhook to this machine's name", { ...GOOD, webhook: "http://localhost:7939/a" }, ["webhook", "nearby"]],
      ["a webhook into a network of ours", { ...GOOD, webhook: "https://db.internal/a" }, ["webhook", "nearby"]],
      [
        "a webhook to a private address, without https",
        { ...GOOD, webhook: "http://10.1.2.3/a" },
        ["webhook", "10.1.2.3 is a private address: webhooks are called over https, on public hosts"],
      ],
      [
        "a webhook that is too long",
        { ...GOOD, webhook: `https://example.com/${"a".repeat(2_000)}` },
        ["webhook", "2000"],
      ],
      ["an event that is none", { ...GOOD, webhook_events_filter: ["end"] }, ["webhook_events_filter.0", "completed"]],
      ["an event without a list", { ...GOOD, webhook_events_filter: "start" }, ["webhook_events_filter", "array"]],
      [
        "an event several times",
        { ...GOOD, webhook_events_filter: Array.from({ length: 150_000 }, () => "start") },
        ["webhook_events_filter", "at most 4 kinds of events"],
      ],
      [
        "an input that is very deep",
        `{"version":"a/b","input":{"a":${"[".repeat(5_000)}${"]".repeat(5_000)}}}`,
        ["", "nested too deeply"],
      ],
      ["a word for yes", { ...GOOD, stream: "yes" }, ["stream", "boolean"]],
      ["an unknown field", { ...GOOD, seed: 1 }, ["", "Additional property seed is not allowed"]],
      ["a field of every object", { ...GOOD, constructor: {} }, ["", "Additional property constructor is not allowed"]],
      ["a list", [], ["", "object"]],
      ["text", '"text"', ["", "object"]],
      ["a number", "5", ["", "object"]],
      ["null", "null", ["", "object"]],
      ["nothing", "", ["", "body is required"]],
      [
        "a prototype",
        '{"__proto__":{"version":"a/b"},"version":"a/b","input":{}}',
        ["", "Additional property __proto__"],
      ],
    ];
  test.for(cases)("%s", async ([, body, ...fields], { serve }) => {
    const { app } = await serve();
    const answer = await app.inject(create(typeof body === "string" ? body : (body as object)));
    const problem = expectProblem(answer, 422);
    expect(problem.title).toBe("Input validation failed");
    expect(problem.invalid_fields).toEqual(
      fields.map(([field, words]) => ({
        type: expect.stringMatching(/^[a-z_]+$/),
        field,
        description: expect.stringContaining(words),
      })),
    );
    for (const [field, words] of fields) {
      expect(problem.detail).toContain(words);
      expect(problem.detail).toContain(field);
    }
    expect((await app.inject("/v1/predictions")).json()).toMatchObject({ results: [] });
  });
});

test("of very many wrong fields a hundred are told, and how many more there are", async ({ serve }) => {
  const { app } = await serve();
  const unknown = Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`field_${n}`, 1]));
  const answer = await app.inject(create({ ...GOOD, ...unknown }));
  const problem = expectProblem(answer, 422);
  expect(problem.invalid_fields).toHaveLength(100);
  expect(problem).toMatchObject({ more_invalid_fields: 99_900 });
  expect(problem.detail).toMatch(/^- Additional property field_99 is not allowed\n- and 99900 more\n$/m);
  const long = await app.inject(create({ ...GOOD, ["a".repeat(1_000_000)]: 1 }));
  expect(expectProblem(long, 422).detail).toMatch(/^- Additional property a{97}\.\.\. is not allowed\n$/);
});

test("an event that is asked for twice is told once", async ({ serve }) => {
  const { app } = await serve();
  const webhook = { webhook: "https://client.example/a", webhook_events_filter: ["start", "completed", "start"] };
  const answer = await app.inject(create({ ...GOOD, ...webhook }));
  expect([answer.statusCode, answer.json()]).toMatchObject([201, { webhook_events_filter: ["start", "completed"] }]);
});

test("hosts that the settings name take webhooks, whatever they are called", async ({ serve }) => {
  const { app } = await serve({ env: { OUTLAST_WEBHOOK_HOSTS: "localhost:7939,*.internal" } });
  for (const webhook of ["http://localhost:7939/a", "https://hooks.internal/a"]) {
    expect((await app.inject(create({ ...GOOD, webhook }))).statusCode).toBe(201);
  }
});

describe("bodies", () => {
  const cases: readonly (readonly [what: string, request: InjectOptions, status: number, detail: RegExp])[] = [
    ["that break off", create('{"version":'), 400, /isn't JSON/],
    ["with single quotes", create("{'version':1}"), 400, /isn't JSON/],
    ["that aren't UTF-8", create(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])), 400, /UTF-8/],
    [
      "with a number too long to be kept",
      create('{"version":"a/b","input":{"seed":12345678901234567890}}'),
      400,
      /12345678901234567890 can't be kept/,
    ],
    [
      "with a number too large to be kept",
      create('{"version":"a/b","input":{"seed":1e400}}'),
      400,
      /1e400 can't be kept/,
    ],
    [
      "nested a hundred thousand deep",
      create(`{"version":"a/b","input":{"a":${"[".repeat(1e5)}${"]".repeat(1e5)}}}`),
      422,
      /nested too deeply/,
    ],
    ["of more than 2 MiB", create({ ...GOOD, input: { prompt: "a".repeat(2 * 1024 * 1024) } }), 413, /2097152 bytes/],
    [
      "of another type",
      create(JSON.stringify(GOOD), { "content-type": "text/plain" }),
      415,
      /^"text\/plain" isn't taken here: this takes JSON, as application\/json$/,
    ],
    ["of rows", create(JSON.stringify(GOOD), { "content-type": "application/x-ndjson" }), 415, /application\/x-ndjson/],
    ["of a form", create("version=a", { "content-type": "application/x-www-form-urlencoded" }), 415, /urlencoded/],
    ["of a type that is none", create(JSON.stringify(GOOD), { "content-type": "json" }), 415, /application\/json/],
    ["that are compressed", create(JSON.stringify(GOOD), { "content-encoding": "gzip" }), 415, /gzip/],
  ];
  test.for(cases)("%s", async ([, request, status, detail], { serve }) => {
    const { app } = await serve();
    expect(expectProblem(await app.inject(request), status).detail).toMatch(detail);
  });
});

describe("headers", () => {
  const cases: readonly (readonly [header: string, value: string, status: number, words?: RegExp])[] = [
    ["Prefer", "respond-async", 201],
    ["Prefer", "", 201],
    ["Prefer", "wait=1", 202],
    ["Prefer", "Wait=1", 202],
    ["Prefer", "respond-async, wait=1", 202],
    ["Prefer", "wait=0", 422, /1 to 60/],
    ["Prefer", "wait=61", 422, /1 to 60/],
    ["Prefer", "wait=1.5", 422, /1 to 60/],
    ["Prefer", "wait=-1", 422, /1 to 60/],
    ["Prefer", "wait=1e1", 422, /1 to 60/],
    ["Prefer", "wait=", 422, /1 to 60/],
    ["Prefer", "wait=soon", 422, /1 to 60/],
    ["Prefer", `wait=${"9".repeat(400)}`, 422, /1 to 60/],
    ["Cancel-After", "5", 201],
    ["Cancel-After", "5s", 201],
    ["Cancel-After", "90.5s", 201],
    ["Cancel-After", "1h30m45s", 201],
    ["Cancel-After", "24h", 201],
    ["Cancel-After", "1440m", 201],
    ["Cancel-After", "4.999", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "24h1s", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "-5", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "30s1h", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "1d", 422, /5 seconds to 24 hours/],
    ["Cancel-After", "Infinity", 422, /5 seconds to 24 hours/],
    ["Idempotency-Key", "a", 201],
    ["Idempotency-Key", '"8e03978e-40d5-43e8-bc93-6894a57f9324"', 201],
    ["Idempotency-Key", "~".repeat(255), 201],
    ["Idempotency-Key", "~".repeat(256), 422, /1 to 255/],
    ["Idempotency-Key", "", 422, /1 to 255/],
    ["Idempotency-Key", '""', 422, /1 to 255/],
    ["Idempotency-Key", "two words", 422, /1 to 255/],
    ["Idempotency-Key", "é", 422, /1 to 255/],
  ];
  test.for(cases)("%s: %s is answered with %i", async ([header, value, status, words], { serve }) => {
    const { app } = await serve();
    const answer = await app.inject(create(GOOD, { [header]: value }));
    if (words === undefined) {
      expect(answer.statusCode).toBe(status);
      return;
    }
    const problem = expectProblem(answer, status);
    expect(problem.invalid_fields).toEqual([
      { type: "invalid_header", field: `headers.${header}`, description: expect.stringMatching(words) },
    ]);
    expect(problem.detail).toContain(header);
  });

  test("a preference that was applied is named, and one that ran out is `starting`", async ({ serve }) => {
    const { app } = await serve();
    const answer = await app.inject(create(GOOD, { prefer: "wait=1" }));
    expect([answer.statusCode, answer.headers["preference-applied"]]).toEqual([202, "wait=1"]);
    expect(answer.json()).toMatchObject({ status: "starting", output: null });
  });

  test("the same key twice at once is the same prediction, told to both", async ({ serve }) => {
    const { app } = await serve();
    for (let key = 0; key < 10; key++) {
      const headers = { "idempotency-key": `at-once-${key}` };
      const answers = await Promise.all([GOOD, GOOD, GOOD].map((body) => app.inject(create(body, headers))));
      expect(answers.map(({ statusCode }) => statusCode)).toEqual([201, 201, 201]);
      expect(new Set(answers.map((answer) => answer.json<{ id: string }>().id)).size).toBe(1);
    }
  });

  test("the same key is the same prediction; with another input it is refused, by name", async ({ serve }) => {
    const { app } = await serve();
    const headers = { "idempotency-key": "my-key" };
    const first = (await app.inject(create(GOOD, headers))).json<{ id: string }>();
    expect((await app.inject(create(GOOD, headers))).json<{ id: string }>().id).toBe(first.id);
    const problem = expectProblem(await app.inject(create({ ...GOOD, input: { prompt: "b" } }, headers)), 422);
    expect(problem).toMatchObject({ title: "Idempotency-Key taken", detail: expect.stringContaining("my-key") });
    expect(problem.detail).toContain(first.id);
  });
});

describe("what isn't there", () => {
  const ABSENT = "0123456789abcdefghjk000000";
  const cases: readonly (readonly [request: InjectOptions, status: number, detail: RegExp])[] = [
    [{ url: `/v1/predictions/${ABSENT}` }, 404, new RegExp(ABSENT)],
    [{ url: "/v1/predictions/nothing" }, 404, /no prediction "nothing"/],
    [{ url: `/v1/predictions/${ABSENT.toUpperCase()}` }, 404, /no prediction/],
    [{ url: `/v1/predictions/${"a".repeat(101)}` }, 422, /params\.id/],
    [{ url: `/v1/predictions/${"a".repeat(500)}` }, 414, /too long/],
    [{ url: "/v1/predictions/%00" }, 404, /no prediction/],
    [{ url: "/v1/predictions/%zz" }, 400, /URL/],
    [{ url: "/v1/predictions/%E0%A4%A" }, 400, /URL/],
    [{ url: "/v1/predictions/__proto__" }, 404, /no prediction/],
    [{ url: `/v1/predictions/${ABSENT}/cancel`, method: "POST" }, 404, new RegExp(ABSENT)],
    [{ url: `/v1/predictions/${ABSENT}/cancel` }, 405, /GET isn't one of POST/],
    [{ url: "/v1/predictions", method: "DELETE" }, 405, /POST/],
    [{ url: "/v1/predictions", method: "PUT", payload: GOOD }, 405, /POST/],
    [{ url: "/v1/predictions", method: "OPTIONS" }, 405, /POST/],
    [{ url: `/v1/predictions/${ABSENT}/cancel`, method: "POST", payload: { why: 1 } }, 422, /property why is not/],
    [{ url: "/v1/nothing" }, 404, /\/v1\/nothing/],
    [{ url: "/v1/nothing", method: "POST", payload: GOOD }, 404, /\/v1\/nothing/],
    [{ url: "/v1/models/a/b" }, 404, /\/v1\/models/],
    [{ url: "/v1/models/a%2Fb/c/predictions", method: "POST", payload: { input: {} } }, 422, /owner\/name/],
    [{ url: "/v1/deployments/../c/predictions", method: "POST", payload: { input: {} } }, 404, /nothing at POST/],
    [{ url: `/v1/models/${"a".repeat(101)}/c/predictions`, method: "POST", payload: { input: {} } }, 422, /owner/],
  ];
  test.for(cases)("%j is answered with %i", async ([request, status, detail], { serve }) => {
    const { app } = await serve();
    const answer = await app.inject(request);
    expect(expectProblem(answer, status).detail).toMatch(detail);
    if (status === 405) expect(answer.headers.allow).toMatch(/POST/);
  });

  test("another tenant's prediction isn't there either, by get, by cancel and in its list", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const mine = await app.inject(create(GOOD, bearer(KEYS.producer)));
    const { id } = mine.json<{ id: string }>();
    const headers = bearer(KEYS.stranger);
    expectProblem(await app.inject({ url: `/v1/predictions/${id}`, headers }), 404);
    expectProblem(await app.inject({ method: "POST", url: `/v1/predictions/${id}/cancel`, headers }), 404);
    expect((await app.inject({ url: "/v1/predictions", headers })).json()).toMatchObject({ results: [] });
    expect((await app.inject({ url: `/v1/predictions/${id}`, headers: bearer(KEYS.viewer) })).statusCode).toBe(200);
  });
});
