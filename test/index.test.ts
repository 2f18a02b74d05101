/** The library, against a real Redis, the emulator and a worker process. */

import path from "node:path";
import { Queue, QueueEvents } from "bullmq";
import { test as base, describe, expect } from "vitest";
import {
  BadRows,
  type BatchReport,
  ConfigError,
  InputRefused,
  openClient,
  RedisUnusable,
  type ResultLine,
  UnknownBatch,
} from "../src/index.ts";
import { startFleet } from "./support/fleet.ts";

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("fleet", { scope: "file" }, async ({}, { onCleanup }) => {
    const fleet = await startFleet({
      emulator: { runMs: { medianMs: 100, spread: 0.2 }, queueMs: { medianMs: 20, spread: 0 } },
    });
    onCleanup(() => fleet[Symbol.asyncDispose]());
    fleet.startWorker();
    return fleet;
  })
  .extend("client", async ({ fleet }, { onCleanup }) => {
    const client = await openClient({ env: fleet.env });
    onCleanup(() => client.close());
    return client;
  });

const MODEL = { model: "outlast/picture" } as const;
const fox = (n: number) => ({ input: { prompt: `a fox, number ${n}` } });

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  return Array.fromAsync(items);
}

describe("a batch", () => {
  test("is submitted, followed to its end, and read", async ({ client }) => {
    async function* rows() {
      for (let n = 0; n < 10; n++) yield { ...fox(n), id: `fox ${n}` };
    }
    const submitted = await client.submit(rows(), { name: "foxes", ...MODEL });
    expect(submitted).toMatchObject({ items: 10, fresh: true });

    const reports: BatchReport[] = await all(client.follow(submitted.batch));
    expect(reports.at(-1)).toMatchObject({ state: "finished", saved: 10, waiting: 0, in_flight: 0 });
    expect(new Set(reports.map((report) => JSON.stringify(report))).size).toBe(reports.length);
    expect(await client.status(submitted.batch)).toEqual(reports.at(-1));

    const results: ResultLine[] = await all(client.results(submitted.batch));
    expect(results.map(({ id, status }) => `${id}: ${status}`)).toEqual(
      Array.from({ length: 10 }, (_, n) => `fox ${n}: saved`),
    );
    expect(results[0]?.outputs[0]).toMatchObject({ content_type: "image/png", bytes: expect.any(Number) });
  });

  test("submitted again is the same one, unless it is asked for again", async ({ client }) => {
    const submit = (more: { again?: boolean; limit?: number } = {}) =>
      client.submit([fox(1), { input: { prompt: "x" }, model: "outlast/text" }], { name: "twice", ...MODEL, ...more });
    const first = await submit();
    expect(await submit()).toEqual({ ...first, fresh: false });
    expect((await submit({ again: true })).batch).not.toBe(first.batch);
    expect(await submit({ limit: 1 })).toMatchObject({ items: 1, fresh: true });
    const unnamed = await client.submit([{ ...fox(1), ...MODEL }]);
    expect(await client.status(unnamed.batch)).toMatchObject({ name: "rows", items: 1 });
  });

  test("with bad rows isn't submitted, and all of them are named", async ({ client }) => {
    const rows = [
      { ...fox(0), id: "a" },
      { input: { prompt: "b" }, model: "nonsense" },
      { ...fox(2), id: "a" },
    ];
    const refusal = await client.submit(rows, { name: "bad", ...MODEL }).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(BadRows);
    expect((refusal as BadRows).rows).toEqual([
      { line: 2, reason: expect.stringMatching(/^"model" is owner\/name/) },
      { line: 3, reason: 'the id "a" was given to row 1 already' },
    ]);
    await expect(client.submit([fox(1)], { name: "bad", model: "nonsense" })).rejects.toThrow(InputRefused);
    await expect(client.submit([fox(1)])).rejects.toThrow(BadRows);
  });

  test("that nobody knows is an error of its own", async ({ client }) => {
    for (const id of ["0123456789abcdefghjk", "fox", ""]) {
      await expect(client.status(id)).rejects.toThrow(UnknownBatch);
      await expect(all(client.follow(id))).rejects.toThrow(UnknownBatch);
      await expect(all(client.results(id))).rejects.toThrow(UnknownBatch);
    }
  });

  test("is no longer followed when the signal says so", async ({ client }) => {
    const { batch } = await client.submit([fox(100)], { name: "left alone", ...MODEL });
    const stop = new AbortController();
    const seen: BatchReport[] = [];
    for await (const report of client.follow(batch, { signal: stop.signal })) {
      seen.push(report);
      stop.abort();
    }
    expect(seen).toHaveLength(1);
  });
});

describe("a single input", () => {
  test("is enqueued many at once, and every one is an item of its own", async ({ client }) => {
    const enqueued = await Promise.all(
      Array.from({ length: 50 }, (_, n) => client.enqueue({ ...fox(1_000 + n), ...MODEL })),
    );
    expect(new Set(enqueued.map(({ item }) => item)).size).toBe(50);
    expect(new Set(enqueued.map(({ batch }) => batch)).size).toBe(1);
    expect(enqueued.every(({ item, batch }) => item.startsWith(batch))).toBe(true);
    const [{ batch }] = enqueued as [(typeof enqueued)[number]];
    await expect.poll(async () => (await client.status(batch)).saved, { timeout: 20_000 }).toBeGreaterThanOrEqual(50);
  });

  test("with an id is the same item when it comes again, and refused with another input", async ({ client }) => {
    const first = await client.enqueue({ ...fox(1), ...MODEL, id: "the fox" });
    expect(await client.enqueue({ ...fox(1), ...MODEL, id: "the fox" })).toEqual(first);
    await expect(client.enqueue({ ...fox(2), ...MODEL, id: "the fox" })).rejects.toThrow(InputRefused);
  });

  test("answers on the queue it names", async ({ client, fleet }) => {
    const connection = { url: fleet.redis.url };
    await using opened = new AsyncDisposableStack();
    const queue = new Queue<ResultLine>("my-results", { connection });
    opened.defer(() => queue.close());
    const events = new QueueEvents("my-results", { connection });
    opened.defer(() => events.close());
    await events.waitUntilReady();
    const added = Promise.withResolvers<string>();
    events.on("added", ({ jobId }) => added.resolve(jobId));
    const { item } = await client.enqueue({ ...fox(2_000), ...MODEL, replyTo: "my-results" });
    const job = await queue.getJob(await added.promise);
    expect(job?.data).toMatchObject({ item, status: "saved", outputs: [{ content_type: "image/png" }] });
  });

  test("that can't become an item is refused with the reason", async ({ client }) => {
    const bad = [
      [{ ...fox(1), model: "fox" }, /"model" is owner\/name/],
      [{ ...fox(1), ...MODEL, account: "mine" }, /there is no account "mine" \(known: replicate\)/],
      [{ ...fox(1), ...MODEL, replyTo: "outlast-feed" }, /`reply_to` must name a queue of your own/],
      [{ ...fox(1), ...MODEL, id: "" }, /"id" is empty/],
    ] as const;
    for (const [input, reason] of bad) {
      await expect(client.enqueue(input)).rejects.toThrow(InputRefused);
      await expect(client.enqueue(input)).rejects.toThrow(reason);
    }
  });
});

describe("a client", () => {
  test("needs no token, only the names of the workers' accounts", async ({ fleet }) => {
    const { OUTLAST_REDIS_URL: redisUrl = "", OUTLAST_BUCKET: bucket = "" } = fleet.env;
    const stateDir = path.join(fleet.folder, "nothing is up here");
    await using client = await openClient({
      env: {},
      redisUrl,
      bucket,
      stateDir,
      accounts: [{ name: "replicate", provider: "replicate" }],
    });
    expect(await client.submit([fox(3_000)], { name: "no token", ...MODEL })).toMatchObject({ items: 1 });
    await using knowsNobody = await openClient({ env: {}, redisUrl, bucket, stateDir });
    await expect(knowsNobody.enqueue({ ...fox(1), ...MODEL })).rejects.toThrow(/known: none/);
  });

  test("that can't be opened says why", async ({ fleet }) => {
    const env = { ...fleet.env, OUTLAST_REDIS_URL: "" };
    await expect(openClient({ env })).rejects.toThrow(ConfigError);
    await expect(openClient({ env, redisUrl: "redis://127.0.0.1:1" })).rejects.toThrow(RedisUnusable);
    await expect(openClient({ env: fleet.env, accounts: [{ name: "No!", provider: "replicate" }] })).rejects.toThrow(
      ConfigError,
    );
  });
});
