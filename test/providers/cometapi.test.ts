/**
 * CometAPI's adapter: the port, and the oddities of its route.
 */

import { describe, expect, test } from "vitest";
import { predictionId, type Target } from "../../src/core/prediction.ts";
import { createCometApi } from "../../src/providers/cometapi.ts";
import { type Provider, ProviderAnswerError } from "../../src/providers/provider.ts";
import { conforms } from "./conformance.ts";
import { startSmallProvider } from "./small-provider.ts";

const never = () => new AbortController().signal;
const PREFIX = "/replicate/v1";
const TARGET: Target = { kind: "model", owner: "ada", name: "loom" };
const ID = predictionId("p1");

async function open() {
  const disposing = new AsyncDisposableStack();
  const server = disposing.use(await startSmallProvider(PREFIX));
  const provider = disposing.use(createCometApi({ baseUrl: server.baseUrl, key: server.token }));
  return { server, provider, [Symbol.asyncDispose]: () => disposing.disposeAsync() };
}

conforms("CometAPI", async () => {
  const disposing = new AsyncDisposableStack();
  const server = disposing.use(await startSmallProvider(PREFIX));
  return {
    provider: disposing.use(createCometApi({ baseUrl: server.baseUrl, key: server.token })),
    stranger: disposing.use(createCometApi({ baseUrl: server.baseUrl, key: "sk-stranger" })),
    target: TARGET,
    input: (n) => ({ prompt: `number ${n}` }),
    accepted: () => server.books.length,
    [Symbol.asyncDispose]: () => disposing.disposeAsync(),
  };
});

test("a create sends the input and nothing else", async () => {
  await using opened = await open();
  const request = {
    target: TARGET,
    input: { prompt: "x" },
    cancelAfterMs: 60_000,
    webhookUrl: "https://here.example/hook",
  };
  await opened.provider.create(request, never());
  expect(opened.server.books).toMatchObject([{ path: "/models/ada/loom/predictions" }]);
  expect(opened.server.books[0]?.body).toEqual({ input: { prompt: "x" } });
  expect(opened.server.books[0]?.headers).not.toHaveProperty("cancel-after");
});

test("it has no list, no cancel, no webhooks and no check, and takes models only", async () => {
  await using opened = await open();
  const provider: Provider = opened.provider;
  for (const ability of ["list", "cancel", "check", "webhookSecret", "readWebhook"]) {
    expect(provider).not.toHaveProperty(ability);
  }
  expect([...provider.targets]).toEqual(["model"]);
});

test("it polls by base and id, whatever urls the answer names", async () => {
  await using opened = await open();
  const { id } = await opened.provider.create({ target: TARGET, input: {} }, never());
  await opened.provider.get(id, never());
  expect(opened.server.requests.map(({ line }) => line)).toEqual([
    `POST ${PREFIX}/models/ada/loom/predictions`,
    `GET ${PREFIX}/predictions/${id}`,
  ]);
});

describe("a wrapped answer", () => {
  const inner = { id: "upstream1", model: "ada/loom", error: null, logs: "x" };
  test.each<[string, object, object]>([
    [
      "that succeeded, with the prediction inside",
      { task_id: "p1", status: "SUCCESS", data: { ...inner, status: "succeeded", output: ["u"] } },
      { status: "succeeded", output: ["u"], model: "ada/loom" },
    ],
    [
      "that succeeded while the prediction inside still says processing, with its output",
      { task_id: "p1", status: "SUCCESS", data: { ...inner, status: "processing", output: ["u"] } },
      { status: "succeeded", output: ["u"] },
    ],
    [
      "that succeeded while the prediction inside is running and has nothing yet",
      { task_id: "p1", status: "SUCCESS", data: { ...inner, status: "processing", output: null } },
      { status: "processing", output: null },
    ],
    [
      "that waits, with nothing inside",
      { task_id: "p1", status: "QUEUED", data: null },
      { status: "starting", output: null },
    ],
    ["that runs, with nothing inside", { task_id: "p1", status: "IN_PROGRESS" }, { status: "processing" }],
    [
      "that failed, with the wrapper's reason",
      { task_id: "p1", status: "FAILURE", fail_reason: "NSFW", data: null },
      { status: "failed", error: "NSFW" },
    ],
    [
      "that was canceled inside",
      { task_id: "p1", status: "FAILURE", data: { ...inner, status: "canceled" } },
      { status: "canceled" },
    ],
    [
      "with a word nobody knows",
      { task_id: "p1", status: "PONDERING" },
      { status: "unknown", statusWord: "PONDERING" },
    ],
  ])("%s", async (_name, data, expected) => {
    await using opened = await open();
    opened.server.answerWith({ status: 200, body: { code: "success", message: "", data } });
    expect(await opened.provider.get(ID, never())).toMatchObject({ id: ID, ...expected });
  });

  test("to a create gives the id to follow", async () => {
    await using opened = await open();
    const data = { task_id: "t1", status: "SUBMITTED", data: { ...inner, status: "starting", output: null } };
    opened.server.answerWith({ status: 200, body: { code: "success", data } });
    expect(await opened.provider.create({ target: TARGET, input: {} }, never())).toMatchObject({ id: "upstream1" });
  });

  test.each([
    { code: "success", data: {} },
    { code: "success", data: null },
    { error: { message: "no", code: "x" } },
    {},
  ])("that holds no prediction is unknown to a create and loud to a get: %o", async (body) => {
    await using opened = await open();
    opened.server.answerWith({ status: 200, body });
    const create = opened.provider.create({ target: TARGET, input: {} }, never());
    await expect(create).rejects.toMatchObject({ name: "ProviderError", kind: "unknown", status: 200 });
    await expect(opened.provider.get(ID, never())).rejects.toBeInstanceOf(ProviderAnswerError);
  });
});

describe("a 500", () => {
  const invalid = { error: { message: "bad input (request id: 2026)", code: "invalid_request" } };

  test("of invalid_request leaves a create unclear, since only the listed statuses prove a refusal", async () => {
    await using opened = await open();
    opened.server.answerWith({ status: 500, body: invalid });
    const create = opened.provider.create({ target: TARGET, input: {} }, never());
    await expect(create).rejects.toMatchObject({ kind: "unknown", status: 500, code: "invalid_request" });
  });

  test("of invalid_request refuses a get for good", async () => {
    await using opened = await open();
    opened.server.answerWith({ status: 500, body: invalid });
    await expect(opened.provider.get(ID, never())).rejects.toMatchObject({
      kind: "refused",
      status: 500,
      detail: "bad input (request id: 2026)",
    });
  });

  test.each([500, 503, 504, 524])("of another kind lets a get be repeated: %i", async (status) => {
    await using opened = await open();
    opened.server.answerWith({ status, body: { error: { message: "busy", code: "overloaded" } } });
    await expect(opened.provider.get(ID, never())).rejects.toMatchObject({ kind: "unknown", status });
  });
});
