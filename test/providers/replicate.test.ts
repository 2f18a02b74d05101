/**
 * Replicate's adapter: the port, what exactly goes over the wire, and how its documented answers are read.
 */

import { describe, expect, test } from "vitest";
import { predictionId, type Target } from "../../src/core/prediction.ts";
import { ProviderAnswerError } from "../../src/providers/provider.ts";
import { createReplicate } from "../../src/providers/replicate.ts";
import { wirePrediction } from "../../src/providers/wire.ts";
import { conforms } from "./conformance.ts";
import { startSmallProvider } from "./small-provider.ts";

const never = () => new AbortController().signal;

async function open() {
  const disposing = new AsyncDisposableStack();
  const server = disposing.use(await startSmallProvider());
  const provider = disposing.use(createReplicate(server));
  return { server, provider, [Symbol.asyncDispose]: () => disposing.disposeAsync() };
}

conforms("Replicate", async () => {
  const disposing = new AsyncDisposableStack();
  const server = disposing.use(await startSmallProvider());
  return {
    provider: disposing.use(createReplicate(server)),
    stranger: disposing.use(createReplicate({ baseUrl: server.baseUrl, token: "r8_stranger" })),
    target: { kind: "model", owner: "ada", name: "loom" },
    input: (n) => ({ prompt: `number ${n}` }),
    accepted: () => server.books.length,
    [Symbol.asyncDispose]: () => disposing.disposeAsync(),
  };
});

describe("a create over the wire", () => {
  const input = { prompt: "ünïcode ✓", seed: 7, nested: { list: [null, 1.5] } };

  test.each<[Target, string, object]>([
    [{ kind: "version", version: "ada/loom:5c7d5dc6" }, "/predictions", { version: "ada/loom:5c7d5dc6", input }],
    [{ kind: "model", owner: "ada", name: "loom-2.1" }, "/models/ada/loom-2.1/predictions", { input }],
    [{ kind: "deployment", owner: "ada", name: "mine" }, "/deployments/ada/mine/predictions", { input }],
    [{ kind: "model", owner: "a/b", name: "c?d" }, "/models/a%2Fb/c%3Fd/predictions", { input }],
  ])("of %o goes to %s", async (target, path, body) => {
    await using opened = await open();
    await opened.provider.create({ target, input }, never());
    expect(opened.server.books).toMatchObject([{ path }]);
    expect(opened.server.books[0]?.body).toEqual(body); // the API refuses unknown fields
  });

  test("asks for no synchronous answer and closes its connection", async () => {
    await using opened = await open();
    await opened.provider.create({ target: { kind: "version", version: "v" }, input }, never());
    const headers = opened.server.books[0]?.headers ?? {};
    expect(headers).toMatchObject({
      authorization: "Bearer r8_small",
      connection: "close",
      "content-type": "application/json",
    });
    expect(headers).not.toHaveProperty("prefer");
    expect(headers).not.toHaveProperty("cancel-after");
  });

  test.each([
    [1, "5"],
    [60_000, "60"],
    [60_001, "61"],
    [1e12, "86400"],
  ])("that may run for %i ms says Cancel-After: %s", async (cancelAfterMs, seconds) => {
    await using opened = await open();
    await opened.provider.create({ target: { kind: "version", version: "v" }, input, cancelAfterMs }, never());
    expect(opened.server.books[0]?.headers).toHaveProperty("cancel-after", seconds);
  });

  test("with a webhook asks for the end only", async () => {
    await using opened = await open();
    const webhookUrl = "https://here.example/hook/n0nce";
    await opened.provider.create({ target: { kind: "model", owner: "a", name: "b" }, input, webhookUrl }, never());
    expect(opened.server.books[0]?.body).toEqual({ input, webhook: webhookUrl, webhook_events_filter: ["completed"] });
  });

  test.each(["", ".", ".."])("of a name that would change the path is refused unsent: %o", async (name) => {
    await using opened = await open();
    const create = opened.provider.create({ target: { kind: "model", owner: "ada", name }, input }, never());
    await expect(create).rejects.toMatchObject({ name: "ProviderError", kind: "refused", status: null });
    expect(opened.server.requests).toEqual([]);
  });

  test("of what isn't JSON is refused unsent", async () => {
    await using opened = await open();
    const create = opened.provider.create({ target: { kind: "version", version: "v" }, input: { n: 1n } }, never());
    await expect(create).rejects.toMatchObject({ name: "ProviderError", kind: "refused", status: null });
    expect(opened.server.requests).toEqual([]);
  });
});

describe("a list", () => {
  test("asks with its bounds", async () => {
    await using opened = await open();
    await opened.provider.list({ after: "2026-11-21T12:00:00Z", before: "2026-11-21T13:00:00+00:00" }, never());
    expect(opened.server.requests.map(({ line }) => line)).toEqual([
      "GET /v1/predictions?created_after=2026-11-21T12%3A00%3A00Z&created_before=2026-11-21T13%3A00%3A00%2B00%3A00",
    ]);
  });

  const elsewhere = [
    "https://api.elsewhere.example/v1/predictions?cursor=x",
    "http://127.0.0.1:1/v1/predictions?cursor=x",
    "BASE/../../predictions?cursor=x",
    "BASE/%2e%2e/%2E./predictions?cursor=x",
    "//evil.example/v1/predictions",
    "/v1/predictions?cursor=x",
    "nonsense",
  ];

  test.each(elsewhere)("never follows a link to %s", async (link) => {
    await using opened = await open();
    const next = link.replace("BASE", opened.server.baseUrl);
    await expect(opened.provider.list({ next }, never())).rejects.toMatchObject({
      name: "ProviderError",
      kind: "not-sent",
    });
    expect(opened.server.requests).toEqual([]);

    opened.server.answerWith({ status: 200, body: { next, results: [] } });
    await expect(opened.provider.list({}, never())).rejects.toBeInstanceOf(ProviderAnswerError);
  });

  test("never follows a link that names another user, host or port of the base", async () => {
    await using opened = await open();
    const base = new URL(opened.server.baseUrl);
    const links = [
      `http://ada@${base.host}/v1/predictions`,
      `http://${base.host}@evil.example/v1/predictions`,
      `https://${base.host}/v1/predictions`,
      `http://${base.hostname}:${Number(base.port) - 1}/v1/predictions`,
      `http://${base.host}/v10/predictions`,
    ];
    for (const next of links)
      await expect(opened.provider.list({ next }, never())).rejects.toMatchObject({ kind: "not-sent" });
    expect(opened.server.requests).toEqual([]);
  });

  test.each([
    [{ results: [{ id: "p1", status: "starting" }, { id: "p2" }] }],
    [{ results: {} }],
    [{ results: [], next: 7 }],
    [[]],
  ])("that can't be read whole is loud: %o", async (body) => {
    await using opened = await open();
    opened.server.answerWith({ status: 200, body });
    await expect(opened.provider.list({}, never())).rejects.toBeInstanceOf(ProviderAnswerError);
  });

  test("without a next page says so, however it does", async () => {
    await using opened = await open();
    for (const body of [{ results: [] }, { results: [], next: null }, { results: [], next: "" }]) {
      opened.server.answerWith({ status: 200, body });
      expect(await opened.provider.list({}, never())).not.toHaveProperty("next");
    }
  });
});

test("cancel posts without a body", async () => {
  await using opened = await open();
  const { id } = await opened.provider.create({ target: { kind: "version", version: "v" }, input: {} }, never());
  expect(await opened.provider.cancel(id, never())).toMatchObject({ id, status: "canceled" });
  const last = opened.server.requests.at(-1);
  expect(last).toMatchObject({ line: `POST /v1/predictions/${id}/cancel`, headers: { "content-length": "0" } });
});

test("the account's name is its username, its name or its type", async () => {
  await using opened = await open();
  for (const [body, account] of [
    [{ type: "organization", username: "acme", name: "Acme Corp" }, "acme"],
    [{ type: "user", name: "Ada" }, "Ada"],
    [{ type: "user" }, "user"],
  ] as const) {
    opened.server.answerWith({ status: 200, body });
    expect(await opened.provider.check(never())).toMatchObject({ account });
  }
  opened.server.answerWith({ status: 200, body: {} });
  await expect(opened.provider.check(never())).rejects.toBeInstanceOf(ProviderAnswerError);
});

describe("a prediction is read", () => {
  test("whole, in the shape that the API's document shows", () => {
    const wire = {
      id: "gm3qorzdhgbfurvjtvhg6dckhu",
      model: "replicate/hello-world",
      version: "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
      input: { text: "Alice" },
      output: "hello Alice",
      error: null,
      logs: "",
      status: "succeeded",
      data_removed: false,
      created_at: "2023-09-08T16:19:34.765994Z",
      started_at: "2023-09-08T16:19:34.779176Z",
      completed_at: "2023-09-08T16:19:34.791859Z",
      metrics: { predict_time: 0.012683, total_time: 0.025 },
      source: "api",
      urls: { web: "https://replicate.com/p/x", get: "https://api.replicate.com/v1/predictions/x" },
    };
    expect(wirePrediction.parse(wire)).toEqual({
      id: predictionId("gm3qorzdhgbfurvjtvhg6dckhu"),
      status: "succeeded",
      statusWord: "succeeded",
      output: "hello Alice",
      error: null,
      logs: "",
      model: "replicate/hello-world",
      version: "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
      createdAt: "2023-09-08T16:19:34.765994Z",
      startedAt: "2023-09-08T16:19:34.779176Z",
      completedAt: "2023-09-08T16:19:34.791859Z",
      dataRemoved: false,
      metrics: { predict_time: 0.012683, total_time: 0.025 },
    });
  });

  const bare = {
    id: predictionId("p1"),
    status: "starting",
    statusWord: "starting",
    output: null,
    error: null,
    logs: null,
    model: null,
    version: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    dataRemoved: false,
    metrics: {},
  };

  test.each<[string, object, object]>([
    ["with nothing but id and status", {}, {}],
    [
      "with everything null",
      { output: null, error: null, logs: null, metrics: null, data_removed: null, model: null },
      {},
    ],
    ["with everything odd", { error: 7, logs: 7, metrics: [], data_removed: "yes", created_at: 7 }, { error: "7" }],
    ["with an error that is an object", { error: { code: "E1001" } }, { error: '{"code":"E1001"}' }],
    ["with a status nobody knows", { status: "successful" }, { status: "unknown", statusWord: "successful" }],
    ["aborted", { status: "aborted" }, { status: "aborted", statusWord: "aborted" }],
    ["with an output of any JSON", { output: { a: [false, 0, ""] } }, { output: { a: [false, 0, ""] } }],
    ["with a false output", { output: false }, { output: false }],
    ["with its data removed", { data_removed: true }, { dataRemoved: true }],
    [
      "with metrics that nobody documented",
      { metrics: { image_count: 2, x: "y" } },
      { metrics: { image_count: 2, x: "y" } },
    ],
  ])("%s", (_name, wire, expected) => {
    expect(wirePrediction.parse({ id: "p1", status: "starting", ...wire })).toEqual({ ...bare, ...expected });
  });

  test("with the end of its logs", () => {
    const logs = `${"🙂".repeat(20_000)} done`;
    const read = wirePrediction.parse({ id: "p1", status: "starting", logs }).logs ?? "";
    expect(read).toMatch(/🙂 done$/);
    expect(read.length).toBeLessThanOrEqual(16_384);
    expect(read.isWellFormed()).toBe(true);
  });

  test.each([
    {},
    { id: "p1" },
    { status: "starting" },
    { id: 1, status: "starting" },
    { id: "p1", status: "" },
    { id: "a b", status: "x" },
    null,
    [],
    "p1",
  ])("not at all from %o", (wire) => {
    expect(wirePrediction.safeParse(wire).success).toBe(false);
  });
});
