/**
 * Replicate's own published client, pointed at `outlast serve` behind TLS: what it can do with predictions works as it
 * does there, and the provider's books say what was bought and what was canceled.
 */

import { buffer } from "node:stream/consumers";
import Replicate, { type FileOutput, type Prediction, validateWebhook } from "replicate";
import { test as base, createExpect, describe, expect } from "vitest";
import { fixture, shapeOf } from "../emulator/asker.ts";
import { type ApiFleet, bought, filesOf, modelOf, outputOf, startApiFleet } from "../support/api-fleet.ts";
import type { ReceivedCall } from "../webhooks/receiver.ts";

/** By account: nothing is bought for `idle`, and for `scarce` one prediction in twelve seconds. */
const TENANTS = { acme: "replicate", umbra: "replicate", idler: "idle", archive: "idle", scarce: "scarce" };

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("api", { scope: "file" }, async ({}, { onCleanup }): Promise<ApiFleet> => {
    const api = await startApiFleet({ tenants: TENANTS, accounts: { idle: 600, scarce: 5 } });
    onCleanup(() => api[Symbol.asyncDispose]());
    const idle = api.services.accounts.find(({ name }) => name === "idle");
    if (idle === undefined) throw new Error("the fleet has no idle account");
    await api.services.ledger.pauseAccount(idle.name, "nothing is to be bought");
    api.startWorker();
    return api;
  })
  // Tests that run at once must each wait with an `expect` of their own.
  .extend("until", ({ task }) => async (client: Replicate, id: string, status: Prediction["status"]) => {
    const look = async () => (await client.predictions.get(id)).status;
    await createExpect(task).poll(look, { timeout: 60_000, interval: 100 }).toBe(status);
  })
  .extend("calls", ({ api: { receiver }, task }) => async (path: string, count: number) => {
    const calls = () => receiver.calls.filter((call) => call.path === path);
    await createExpect(task)
      .poll(() => calls().length, { timeout: 60_000, interval: 100 })
      .toBe(count);
    return calls();
  });

describe.concurrent("create", () => {
  test("runs a version, a model or a deployment, in every form that names one", async ({ api }) => {
    const client = api.client("acme");
    const id = modelOf("text").versionId;
    const named = (by: string) => ({ prompt: `named by ${by}` });
    const created = await Promise.all([
      client.predictions.create({ version: id, input: named("its version") }),
      client.predictions.create({ version: "outlast/text", input: named("owner/name") }),
      client.predictions.create({ version: `outlast/text:${id}`, input: named("owner/name:id") }),
      client.predictions.create({ model: "outlast/text", input: named("its model") }),
      client.deployments.predictions.create("outlast", "text", { input: named("a deployment") }),
    ]);
    const inputs = ["its version", "owner/name", "owner/name:id", "its model", "a deployment"].map(named);
    const ended = await Promise.all(created.map((prediction) => ending(client, prediction)));
    expect(ended.map(({ version }) => version)).toEqual([id, "hidden", id, "hidden", id]);
    expect(ended.map(({ deployment }) => deployment)).toEqual([...Array(4).fill(undefined), "outlast/text"]);
    for (const [at, input] of inputs.entries()) {
      expect(created[at]).toMatchObject({ status: "starting", input, output: null, error: null });
      const output = outputOf("text", input);
      expect(ended[at]).toMatchObject({ id: created[at]?.id, model: "outlast/text", status: "succeeded", output });
      expect(bought(api, "text", input)).toEqual(["succeeded"]);
    }
  });

  test("what it answers has the documented shapes", async ({ api }) => {
    const client = api.client("acme");
    const created = await client.predictions.create({ model: "outlast/picture", input: { prompt: "a shape" } });
    expect(shapeOf(created)).toMatchObject(shapeOf(await fixture("replicate/prediction-created")) as object);
    const succeeded = await ending(client, created);
    expect(shapeOf(succeeded)).toEqual(shapeOf(await fixture("replicate/prediction-succeeded")));
    const refused = await client.predictions.create({ model: "outlast/moderated", input: { prompt: "a shape" } });
    const failed = await ending(client, refused);
    expect(shapeOf(failed)).toEqual(shapeOf(await fixture("replicate/prediction-failed")));
  });

  test("is held with wait until the end", async ({ api }) => {
    const answers: Response[] = [];
    const client = listening(api, answers);
    const input = { prompt: "worth waiting for" };
    const held = await client.predictions.create({ model: "outlast/text", input, wait: true });
    const again = await client.predictions.create({ model: "outlast/text", input: { prompt: "worth 30" }, wait: 29.5 });
    expect(held).toMatchObject({ status: "succeeded", output: outputOf("text", input) });
    expect(again).toMatchObject({ status: "succeeded", output: outputOf("text", { prompt: "worth 30" }) });
    const told = answers.map(({ status, headers }) => [status, headers.get("preference-applied")]);
    expect(told).toEqual([
      [201, "wait"],
      [201, "wait=30"],
    ]);
    expect(answers[0]?.headers.get("location")).toBe(held.urls.get);
  });

  test("whose hold runs out says starting, whatever the provider says meanwhile", async ({ api, until }) => {
    const answers: Response[] = [];
    const client = listening(api, answers, { "idempotency-key": "a-long-run" });
    const asked = { model: "outlast/slow", input: { prompt: "a long run", seconds: 600 } };
    const { id } = await client.predictions.create(asked);
    await until(client, id, "processing");
    const held = await client.predictions.create({ ...asked, wait: 1 });
    expect(held).toMatchObject({ id, status: "starting", output: null });
    const [, { status, headers }] = answers.filter(({ url }) => url.endsWith("/models/outlast/slow/predictions")) as [
      Response,
      Response,
    ];
    expect([status, headers.get("preference-applied")]).toEqual([202, "wait=1"]);
    expect(await client.predictions.get(id)).toMatchObject({ status: "processing" });
  });

  test("puts a Blob or a Buffer into the input as a data URL, which the model gets whole", async ({ api }) => {
    // Forms are the global fetch's, which trusts no certificate of ours.
    const client = api.client("acme", { baseUrl: `${api.server.url}/v1`, fetch });
    // Of more than some 100 kB the client itself makes no data URL: it runs out of stack.
    const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, at) => at % 251));
    const input = { prompt: "a picture of this", image: new Blob([bytes], { type: "image/png" }), mask: bytes };
    const created = await client.predictions.create({ model: "outlast/text", input });
    const sent = {
      prompt: input.prompt,
      image: `data:image/png;base64,${bytes.toString("base64")}`,
      mask: `data:application/octet-stream;base64,${bytes.toString("base64")}`,
    };
    expect(await ending(api.client("acme"), created)).toMatchObject({ status: "succeeded", input: sent });
    expect(bought(api, "text", sent)).toEqual(["succeeded"]);
  });

  test("with Cancel-After is ended by the provider at that moment", async ({ api }) => {
    const client = listening(api, [], { "cancel-after": "6s" });
    const input = { prompt: "six seconds", seconds: 600 };
    const created = await client.predictions.create({ model: "outlast/slow", input });
    expect(Date.parse(created.deadline ?? "") - Date.parse(created.created_at)).toBe(6_000);
    expect(await ending(client, created)).toMatchObject({ status: "canceled", deadline: created.deadline });
    expect(bought(api, "slow", input)).toEqual(["canceled"]);
  });

  test("with a Cancel-After that passes while it waits is aborted, and never bought", async ({ api, until, calls }) => {
    const client = listening(api, [], { "cancel-after": "5" }, "scarce");
    const [webhook, input] = [`${api.receiver.url}/aborted`, { prompt: "too late" }];
    const first = await client.predictions.create({ model: "outlast/text", input: { prompt: "just in time" } });
    const second = await client.predictions.create({ model: "outlast/text", input, webhook });
    await until(client, second.id, "aborted");
    expect(await client.predictions.get(first.id)).toMatchObject({ status: "succeeded" });
    expect(bought(api, "text", input)).toEqual([]);
    const [told] = await calls("/aborted", 1);
    expect(JSON.parse(told?.body ?? "")).toMatchObject({ id: second.id, status: "aborted" });
  });
});

describe.concurrent("get and list", () => {
  test("pages hold all predictions, newest first, each once, while more are created", async ({ api }) => {
    const client = api.client("archive");
    const create = (group: number) =>
      Promise.all(
        Array.from({ length: 23 }, (_, at) =>
          client.predictions.create({ model: "outlast/text", input: { prompt: `${group}`, seed: at } }),
        ),
      );
    const created: Prediction[] = [];
    for (let group = 0; group < 10; group++) created.push(...(await create(group)));

    const pages: Prediction[][] = [];
    for await (const page of client.paginate(client.predictions.list)) {
      pages.push(page);
      await create(10 + pages.length);
    }
    expect(pages.map(({ length }) => length)).toEqual([100, 100, 30]);
    const listed = pages.flat();
    expect(new Set(listed.map(({ id }) => id))).toEqual(new Set(created.map(({ id }) => id)));
    const groups = listed.map(({ input }) => Number((input as { prompt: string }).prompt));
    expect(groups).toEqual(groups.toSorted((a, b) => b - a));
    expect(listed[0]).toEqual(await client.predictions.get(listed[0]?.id ?? ""));
  });
});

describe.concurrent("cancel", () => {
  test("of one that waits ends it unbought", async ({ api }) => {
    const client = api.client("idler");
    const input = { prompt: "never mind" };
    const { id } = await client.predictions.create({ model: "outlast/text", input });
    const canceled = await client.predictions.cancel(id);
    expect(canceled).toMatchObject({ id, status: "canceled", output: null, completed_at: expect.any(String) });
    expect(await client.predictions.get(id)).toEqual(canceled);
    expect(bought(api, "text", input)).toEqual([]);
  });

  test("of one that runs cancels it at the provider", async ({ api, until }) => {
    const client = api.client("acme");
    const input = { prompt: "never mind", seconds: 600 };
    const { id } = await client.predictions.create({ model: "outlast/slow", input });
    await until(client, id, "processing");
    const canceled = await ending(client, await client.predictions.cancel(id));
    expect(canceled).toMatchObject({ id, status: "canceled", output: null });
    expect(bought(api, "slow", input)).toEqual(["canceled"]);
  });

  test("of one that has ended changes nothing", async ({ api }) => {
    const client = api.client("acme");
    const input = { prompt: "too late to mind" };
    const ended = await client.predictions.create({ model: "outlast/text", input, wait: true });
    expect(await client.predictions.cancel(ended.id)).toEqual(ended);
    expect(ended.status).toBe("succeeded");
    expect(bought(api, "text", input)).toEqual(["succeeded"]);
  });
});

describe.concurrent("run", () => {
  const texts = [
    { mode: "block", wait: { mode: "block" } },
    { mode: "block with a timeout", wait: { mode: "block", timeout: 1 } },
    { mode: "poll", wait: { mode: "poll", interval: 100 } },
  ] as const;
  test.for(texts)("in mode $mode answers a text and a list", async ({ mode, wait }, { api }) => {
    const client = api.client("acme");
    for (const as of ["string", "list"]) {
      const input = { prompt: `run in mode ${mode}`, as };
      expect(await client.run("outlast/text", { input, wait })).toEqual(outputOf("text", input));
    }
  });

  test.for(texts)("in mode $mode answers files as streams of their bytes", async ({ mode, wait }, { api }) => {
    const client = api.client("acme");
    const input = { prompt: `files in mode ${mode}`, num_outputs: 3 };
    const outputs = (await client.run(`outlast/pictures:${modelOf("pictures").versionId}`, {
      input,
      wait,
    })) as FileOutput[];
    expect(outputs.map((output) => output.url().origin)).toEqual(Array(3).fill(api.front.url));
    const contents = await Promise.all(
      outputs.map(async (output) => Buffer.from(await (await output.blob()).arrayBuffer())),
    );
    expectSameBytes(contents, filesOf("pictures", input));
  });

  test("answers files wherever they stand in an output", async ({ api }) => {
    const input = { prompt: "one inside the other" };
    const output = (await api.client("acme").run("outlast/nested", { input })) as Nested<FileOutput>;
    const { pictures, speech, thumbnail } = output.media;
    expect(output).toMatchObject({ title: input.prompt, scores: [0.25, 1, -3, 1e-7], missing: null, empty: {} });
    expect(pictures[1]).toBeNull();
    const contents = await Promise.all([pictures[0].url, speech].map((file) => buffer(file)));
    expectSameBytes(contents, filesOf("nested", input));
    const inline = (outputOf("nested", input) as Nested<string>).media.thumbnail;
    expect(`data:image/png;base64,${(await buffer(thumbnail)).toString("base64")}`).toBe(inline);
  });

  test("answers files as URLs where it is told to, which open without a key", async ({ api }) => {
    const input = { prompt: "an address" };
    const run = api.client("acme", { useFileOutput: false }).run("outlast/picture", { input });
    const output = (await run) as unknown as string;
    expect(output).toMatch(/^https:/);
    const answer = await api.front.fetch(output);
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "image/png"]);
    expectSameBytes([Buffer.from(await answer.arrayBuffer())], filesOf("picture", input));
  });

  test("tells its progress", async ({ api }) => {
    const told: Prediction[] = [];
    const input = { prompt: "step by step" };
    const wait = { mode: "poll", interval: 50 } as const;
    await api.client("acme").run("outlast/text", { input, wait }, (prediction) => told.push(prediction));
    expect(told[0]).toMatchObject({ status: "starting", output: null });
    expect(told.at(-1)).toMatchObject({ status: "succeeded", output: outputOf("text", input) });
    expect(new Set(told.map(({ id }) => id)).size).toBe(1);
  });

  test("throws in the provider's words where the prediction fails", async ({ api }) => {
    const client = api.client("acme");
    const wait = { mode: "poll", interval: 100 } as const;
    const runs = await Promise.allSettled([
      client.run("outlast/moderated", { input: { prompt: "a fig leaf" } }),
      client.run("outlast/moderated", { input: { prompt: "a palm leaf" }, wait }),
      client.run("outlast/picture", { input: { prompt: "too wide", width: 1_000_000 } }),
    ]);
    expect(runs.map((run) => run.status === "rejected" && (run.reason as Error).message)).toEqual([
      "Prediction failed: The input or output was flagged as sensitive, try another prompt (E005)",
      "Prediction failed: The input or output was flagged as sensitive, try another prompt (E005)",
      expect.stringMatching(/^Prediction failed: .*input\.width: Must be less than or equal to 1024/),
    ]);
  });

  test.for([
    { mode: "poll", wait: { mode: "poll", interval: 100 } },
    { mode: "block", wait: { mode: "block", timeout: 1 } },
  ] as const)(
    "in mode $mode cancels at the provider when its signal aborts",
    async ({ mode, wait }, { api, expect }) => {
      const controller = new AbortController();
      const input = { prompt: `a change of mind in mode ${mode}`, seconds: 600 };
      const options = { input, wait, signal: controller.signal };
      const output = await api.client("acme").run("outlast/slow", options, ({ status }) => {
        if (status === "processing") controller.abort();
      });
      expect(output).toBeNull();
      await expect.poll(() => bought(api, "slow", input), { timeout: 20_000 }).toEqual(["canceled"]);
    },
  );
});

describe.concurrent("webhooks", () => {
  test("tell the start and the end, signed, and the file in them opens without a key", async ({ api, calls }) => {
    const client = api.client("acme");
    const input = { prompt: "tell me about it" };
    const created = await client.predictions.create({
      model: "outlast/picture",
      input,
      webhook: `${api.receiver.url}/start-and-end`,
      webhook_events_filter: ["start", "completed"],
    });
    const heard = await calls("/start-and-end", 2);
    const told = heard.map(({ body }) => JSON.parse(body) as Prediction);
    expect(told.map(({ id }) => id)).toEqual([created.id, created.id]);
    const end = told.find(({ status }) => status === "succeeded");
    expect(end).toEqual(await client.predictions.get(created.id));
    expect(told.find((prediction) => prediction !== end)).toMatchObject({ output: null });

    const { key } = await client.webhooks.default.secret.get();
    for (const call of heard) {
      expect(await isGenuine(call, key)).toBe(true);
      expect(await isGenuine({ ...call, body: call.body.replace("tell", "sell") }, key)).toBe(false);
      expect(await isGenuine(call, (await api.client("umbra").webhooks.default.secret.get()).key)).toBe(false);
    }
    const file = await api.front.fetch(String(end?.output));
    expectSameBytes([Buffer.from(await file.arrayBuffer())], filesOf("picture", input));
  });

  test("tell the end alone by default, of failures too", async ({ api, calls }) => {
    const client = api.client("acme");
    const webhook = `${api.receiver.url}/by-default`;
    const input = { prompt: "tell me the worst" };
    const created = await client.predictions.create({ model: "outlast/moderated", input, webhook });
    const [call] = await calls("/by-default", 1);
    const told = JSON.parse(call?.body ?? "") as Prediction;
    expect(told).toMatchObject({ id: created.id, status: "failed", error: expect.stringContaining("E005") });
    expect(told).toEqual(await client.predictions.get(created.id));
  });
});

describe.concurrent("what is asked in vain", () => {
  test("is an ApiError with a problem that says why", async ({ api }) => {
    const client = api.client("acme");
    const { id } = await api.client("umbra").predictions.create({ model: "outlast/text", input: { prompt: "mine" } });
    const stranger = new Replicate({
      auth: "nobody-knows-this-key",
      baseUrl: client.baseUrl ?? "",
      fetch: client.fetch,
    });
    const create = (body: object) => client.request("/predictions", { method: "POST", data: body });
    const input = { prompt: "in vain" };
    const asked: readonly (readonly [status: number, detail: RegExp, request: () => Promise<unknown>])[] = [
      [401, /API key/, () => stranger.predictions.get(id)],
      [401, /API key/, () => stranger.predictions.create({ model: "outlast/text", input })],
      [404, /no prediction/, () => client.predictions.get("gm3qorzdhgbfurvjtvhg6dckhu")],
      [404, /no prediction/, () => client.predictions.get(id)],
      [404, /no prediction/, () => client.predictions.cancel(id)],
      [404, /nothing at GET/, () => client.models.get("outlast", "text")],
      [405, /PUT isn't one of/, () => client.request("/predictions", { method: "PUT", data: {} })],
      [422, /version/, () => create({ input })],
      [422, /input is required/, () => create({ version: "outlast/text" })],
      [422, /Additional property tag is not allowed/, () => create({ version: "outlast/text", input, tag: "mine" })],
      [422, /version/, () => client.predictions.create({ version: "not a version", input })],
      [501, /no files/, () => client.files.create(Buffer.from("a file"))],
    ];
    for (const [status, detail, request] of asked) {
      const problem = await problemOf(request());
      expect(problem).toMatchObject({ status, detail: expect.stringMatching(detail), title: expect.any(String) });
    }
    const { results } = await client.predictions.list();
    expect(results.map((prediction) => prediction.id)).not.toContain(id);
  });

  test("has the documented shape where a body is wrong", async ({ api }) => {
    const body = { model: "outlast/text", input: { prompt: "x" } };
    const request = api.client("acme").request("/predictions", { method: "POST", data: body });
    expect(await problemOf(request)).toEqual(await fixture("replicate/problem-422-body"));
  });

  test("beyond the limit of a key is a 429 that says when to come again", async ({ api }) => {
    const { url } = await api.startServer({ OUTLAST_API_LIMITS: "requests=3" });
    const answers: Response[] = [];
    const client = listening(api, answers, {}, "acme", { baseUrl: `${url}/v1`, fetch });
    for (let request = 0; request < 3; request++) await client.accounts.current();
    expect(await problemOf(client.accounts.current())).toMatchObject({ status: 429 });
    expect(Number(answers.at(-1)?.headers.get("retry-after"))).toBeGreaterThan(0);
  });
});

test("the account is the tenant of the key", async ({ api }) => {
  expect(await api.client("umbra").accounts.current()).toMatchObject({ type: "organization", username: "umbra" });
});

test("nothing is streamed, and the client says so", async ({ api }) => {
  const events = api.client("idler").stream("outlast/text", { input: { prompt: "drop by drop" } });
  await expect(events.next()).rejects.toThrow("Prediction does not support streaming");
});

type Nested<File> = {
  readonly media: {
    readonly pictures: readonly [{ readonly url: File }, null];
    readonly speech: File;
    readonly thumbnail: File;
  };
};

/** A client whose answers are kept, and which sends these headers with whatever it posts. */
function listening(
  api: ApiFleet,
  answers: Response[],
  headers: Readonly<Record<string, string>> = {},
  tenant = "acme",
  own: { readonly baseUrl?: string; readonly fetch?: typeof fetch } = {},
): Replicate {
  const send = own.fetch ?? api.front.fetch;
  return api.client(tenant, {
    ...own,
    fetch: async (url, init) => {
      const more = init?.method === "POST" ? headers : {};
      const answer = await send(url, { ...init, headers: { ...(init?.headers as Record<string, string>), ...more } });
      answers.push(answer);
      return answer;
    },
  });
}

/** Its end, as the client waits for it; failed ones too. */
async function ending(client: Replicate, prediction: Prediction): Promise<Prediction> {
  await client.wait(prediction, { interval: 100 }).catch((error: Error) => {
    if (!error.message.startsWith("Prediction failed")) throw error;
  });
  return client.predictions.get(prediction.id);
}

function isGenuine({ headers, body }: ReceivedCall, secret: string): Promise<boolean> {
  return validateWebhook(
    new Request("http://receiver", { method: "POST", headers: new Headers(headers as Record<string, string>), body }),
    secret,
  );
}

async function problemOf(request: Promise<unknown>): Promise<unknown> {
  const error = await request.then(
    () => new Error("it was answered"),
    (refusal: Error & { readonly response?: Response }) => refusal,
  );
  if (!("response" in error)) throw error;
  expect(error.response?.headers.get("content-type")).toBe("application/problem+json");
  return JSON.parse(/: (\{.*\})\.$/s.exec(error.message)?.[1] ?? "null");
}

function expectSameBytes(got: readonly Buffer[], right: readonly Buffer[]): void {
  expect(got.map(({ length }) => length)).toEqual(right.map(({ length }) => length));
  for (const [at, bytes] of got.entries()) expect(bytes.equals(right[at] ?? Buffer.alloc(0))).toBe(true);
}
