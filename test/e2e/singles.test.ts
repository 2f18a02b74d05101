/**
 * Single predictions over the API: however often one is asked for under an Idempotency-Key, it is bought once; and
 * beside a running batch they come first, and leave it its half. By the provider's books.
 */

import { randomUUID } from "node:crypto";
import Replicate, { type Prediction } from "replicate";
import { test as base, createExpect, describe, expect } from "vitest";
import { startTcpProxy } from "../bucket/tcp-proxy.ts";
import { type ApiFleet, bought, digest, type Input, keyOf, outputOf, startApiFleet } from "../support/api-fleet.ts";
import type { ServerProcess } from "../support/fleet.ts";

const TENANTS = { acme: "replicate", umbra: "replicate", twins: "replicate", crowd: "shared" };
/** Of the account `shared`, and what is fed ahead of it: three seconds' worth. */
const CREATES_PER_MINUTE = 600;
const FED_AHEAD = 30;

type Place = ApiFleet & { readonly second: ServerProcess };

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("api", { scope: "file" }, async ({}, { onCleanup }): Promise<Place> => {
    const api = await startApiFleet({ tenants: TENANTS, accounts: { shared: CREATES_PER_MINUTE } });
    onCleanup(() => api[Symbol.asyncDispose]());
    const second = await api.startServer();
    api.startWorker();
    return { ...api, second };
  })
  // Tests that run at once must each wait with an `expect` of their own.
  .extend(
    "poll",
    ({ task }) =>
      (look: () => unknown) =>
        createExpect(task).poll(look, { timeout: 60_000 }),
  );

describe.concurrent("an Idempotency-Key", () => {
  test("makes a create that is sent again the same prediction, also at once and to two servers", async ({
    api,
    poll,
  }) => {
    const input = { prompt: "asked for twenty times" };
    const clients = [api.server, api.second].map(({ url }) => keyed(url, "twins", "twenty"));
    const asked = Array.from({ length: 20 }, (_, at) => create(clients[at % 2], input));
    const ids = (await Promise.all(asked)).map(({ id }) => id);
    expect(new Set(ids).size).toBe(1);
    await poll(() => bought(api, "text", input)).toEqual(["succeeded"]);

    expect((await create(clients[0], input)).id).toBe(ids[0]);
    expect((await create(clients[1], input, { wait: true })).output).toBe(outputOf("text", input));
    expect(bought(api, "text", input)).toEqual(["succeeded"]);
    expect((await clients[1]?.predictions.list())?.results.map(({ id }) => id)).toEqual([ids[0]]);
  });

  test("is refused with another input", async ({ api, poll }) => {
    const client = keyed(api.server.url, "acme", "one-input");
    const input = { prompt: "the one" };
    const { id } = await create(client, input);
    await expect(create(client, { prompt: "another" })).rejects.toThrow(
      `422 Unprocessable Entity: {"title":"Idempotency-Key taken","status":422,"detail":"key one-input is item ${id} already, with another input"}`,
    );
    await poll(() => bought(api, "text", input)).toEqual(["succeeded"]);
    expect(bought(api, "text", { prompt: "another" })).toEqual([]);
  });

  test("is the tenant's own", async ({ api, poll }) => {
    const input = { prompt: "the same for both" };
    const clients = ["acme", "umbra"].map((tenant) => keyed(api.server.url, tenant, "everybodys-key"));
    const [mine, theirs] = await Promise.all(clients.map((client) => create(client, input)));
    expect(mine?.id).not.toBe(theirs?.id);
    await poll(() => bought(api, "text", input)).toEqual(["succeeded", "succeeded"]);
  });

  test("holds when the client itself sends a create again, since its answer was lost", async ({ api, poll }) => {
    const proxy = await startTcpProxy(Number(new URL(api.server.url).port));
    try {
      const client = new Replicate({
        auth: keyOf("acme"),
        baseUrl: `http://127.0.0.1:${proxy.port}/v1`,
        fetch: withKeys,
      });
      const input = { prompt: "lost on the way back" };
      proxy.loseAnswerTo(/^POST/);
      const { id } = await create(client, input);
      expect(proxy.lines).toEqual([
        "POST /v1/models/outlast/text/predictions",
        "POST /v1/models/outlast/text/predictions",
      ]);
      await poll(() => bought(api, "text", input)).toEqual(["succeeded"]);
      expect(await client.predictions.get(id)).toMatchObject({ id, input });
    } finally {
      await proxy.close();
    }
  });
});

test("beside a running batch, singles come first and get at most half the rate", async ({ api, poll }) => {
  const rows = Array.from({ length: 300 }, (_, at) => ({ prompt: `row ${at}` }));
  const singles = Array.from({ length: 60 }, (_, at) => ({ prompt: `single ${at}`, seconds: 0 }));
  const kinds = new Map([
    ...rows.map((input) => [digest("text", input), "row"] as const),
    ...singles.map((input) => [digest("slow", input), "single"] as const),
  ]);
  const arrivals = () => [...api.emulator.predictionRows()].flatMap((row) => kinds.get(row.digest) ?? []);
  const post = (path: string, body: string, type: string) => {
    const headers = { authorization: `Bearer ${keyOf("crowd")}`, "content-type": type };
    return fetch(`${api.server.url}/v1${path}`, { method: "POST", headers, body });
  };

  const lines = rows.map((input) => JSON.stringify({ input, model: "outlast/text" })).join("\n");
  const { batch } = (await (await post("/batches", lines, "application/x-ndjson")).json()) as { batch: string };
  await poll(() => arrivals().length).toBeGreaterThan(FED_AHEAD);
  const client = api.client("crowd");
  const createAll = (inputs: readonly Input[]) =>
    Promise.all(inputs.map((input) => client.predictions.create({ model: "outlast/slow", input })));
  await createAll(singles.slice(0, 1));
  const before = arrivals().length;
  await createAll(singles.slice(1));
  const admitted = arrivals().length;
  await poll(() => count(arrivals(), "single")).toBe(singles.length);
  const order = arrivals();
  await post(`/batches/${batch}/cancel`, "", "application/json");

  // Ten rows may pass until the next feed, and then it is the first; behind those that were fed it would be the 30th.
  expect(order.indexOf("single") - before, "rows that came before the first single").toBeLessThan(FED_AHEAD / 2);
  const last = order.lastIndexOf("single") + 1;
  let lead = 0;
  const leads = order.slice(order.indexOf("single"), last).map((kind) => (lead += kind === "single" ? 1 : -1));
  expect(Math.max(...leads), "how far singles were ever ahead of rows").toBeLessThanOrEqual(FED_AHEAD);
  const rest = order.slice(admitted, last);
  expect(count(rest, "row"), "rows that were bought while singles waited").toBeLessThanOrEqual(
    count(rest, "single") + FED_AHEAD,
  );
});

function count<T>(list: readonly T[], value: T): number {
  return list.filter((one) => one === value).length;
}

async function create(
  client: Replicate | undefined,
  input: Input,
  more: { readonly wait?: true } = {},
): Promise<Prediction> {
  if (client === undefined) throw new Error("there is no such client");
  return client.predictions.create({ model: "outlast/text", input, ...more });
}

/** A client whose creates all have this key. */
function keyed(url: string, tenant: string, key: string): Replicate {
  return new Replicate({
    auth: keyOf(tenant),
    baseUrl: `${url}/v1`,
    fetch: (address, init) => {
      const headers = new Headers(init?.headers);
      headers.set("idempotency-key", key);
      return fetch(address, { ...init, headers });
    },
  });
}

/** As the README has it: the client's own repetitions of a request carry its headers, and so its key. */
function withKeys(url: string | Request, init?: RequestInit): Promise<Response> {
  if (init?.method === "POST") (init.headers as Record<string, string>)["Idempotency-Key"] ??= randomUUID();
  return fetch(url, init);
}
