/**
 * Redis or the bucket is killed, frozen or gone while clients ask: every route answers 503 and when to come again, soon,
 * `/ready` names what is missing, and all is well by itself when it is back. What was answered with 201 is there.
 */

import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { InjectOptions, LightMyRequestResponse } from "fastify";
import { describe, expect, test, vi } from "vitest";
import { itemId, parseItemId } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import { startTcpProxy } from "../bucket/tcp-proxy.ts";
import { startTestRedis, type TestRedis } from "../support/redis-server.ts";
import { startS3Server } from "../support/s3-server.ts";
import { expectProblem } from "./expect-problem.ts";
import { bringTo } from "./items.ts";
import { head, openRawClient } from "./raw-client.ts";
import { NDJSON, openServer, post, rows, type Served } from "./serving.ts";

/**
 * Nobody waits longer for an answer, whatever is broken: a bucket that says nothing costs 5 s a request, and a POST may come
 * behind the write of others, then write itself, and look at what is there (16 s were seen). A hang is longer.
 */
const LONGEST_MS = 25 * SECOND;

const CLIENTS = 20;

type App = Served["app"];

const AGAIN = { url: "/v1/batches?again=true" };
const GOOD = { version: "outlast/text", input: { prompt: "a" } };

/** One request to each route that needs Redis or bucket, for things that are there and that nobody has looked at. */
async function routesOf({ app, services }: Served): Promise<Readonly<Record<string, InjectOptions>>> {
  const [batch, paused] = [await post(app, rows(2), AGAIN), await post(app, rows(2), AGAIN)];
  await app.inject({ method: "POST", url: `/v1/batches/${paused}/pause` });
  await bringTo("saved", { batch, index: 0 }, services);
  const { output } = (await app.inject(`/v1/predictions/${itemId(batch, 0)}`)).json<{ output: string[] }>();
  const file = new URL(output[0] ?? "");
  return {
    create: { method: "POST", url: "/v1/predictions", payload: GOOD },
    "create again": { method: "POST", url: "/v1/predictions", payload: GOOD, headers: { "idempotency-key": "a" } },
    "create and wait": { method: "POST", url: "/v1/predictions", payload: GOOD, headers: { prefer: "wait=1" } },
    "create of a model": { method: "POST", url: "/v1/models/outlast/text/predictions", payload: { input: {} } },
    list: { url: "/v1/predictions" },
    get: { url: `/v1/predictions/${itemId(batch, 1)}` },
    cancel: { method: "POST", url: `/v1/predictions/${itemId(paused, 1)}/cancel` },
    submit: { method: "POST", url: AGAIN.url, payload: rows(2), headers: NDJSON },
    "submit the same": { method: "POST", url: "/v1/batches", payload: rows(2), headers: NDJSON },
    batches: { url: "/v1/batches" },
    batch: { url: `/v1/batches/${batch}` },
    results: { url: `/v1/batches/${batch}/results` },
    pause: { method: "POST", url: `/v1/batches/${batch}/pause` },
    resume: { method: "POST", url: `/v1/batches/${paused}/resume` },
    file: { url: `${file.pathname}${file.search}` },
    secret: { url: "/v1/webhooks/default/secret" },
    board: { url: "/queues/api/queues?page=1&jobsPerPage=10" },
  };
}

/** Each route's status; all that isn't 2xx is a 503 that says when to come again. */
async function ask(
  app: App,
  routes: Readonly<Record<string, InjectOptions>>,
): Promise<Readonly<Record<string, number>>> {
  const answers = Object.entries(routes).map(async ([name, request]) => {
    const askedAt = performance.now();
    const answer = await app.inject(request);
    expect(performance.now() - askedAt, `${name} took too long`).toBeLessThan(LONGEST_MS);
    if (answer.statusCode >= 300) expectOutage(answer);
    return [name, answer.statusCode] as const;
  });
  return Object.fromEntries(await Promise.all(answers));
}

function expectOutage(answer: LightMyRequestResponse): void {
  expect(expectProblem(answer, 503).detail).toMatch(/at the moment/);
  expect(Number(answer.headers["retry-after"])).toBeGreaterThanOrEqual(1);
}

/** Clients that post all the time, each its own key until it is accepted; `accepted`: what they were told, by key. */
function startClients(app: App) {
  const accepted = new Map<string, string>();
  const slow: number[] = [];
  let stopped = false;
  let refused = 0;
  async function client(name: number): Promise<void> {
    for (let n = 0; !stopped; ) {
      const key = `client-${name}-${n}`;
      const askedAt = performance.now();
      const answer = await app.inject({
        method: "POST",
        url: "/v1/predictions",
        payload: { ...GOOD, input: { key } },
        headers: { "idempotency-key": key },
      });
      if (performance.now() - askedAt > LONGEST_MS) slow.push(performance.now() - askedAt);
      if (answer.statusCode === 201) {
        accepted.set(key, answer.json<{ id: string }>().id);
        n++;
      } else {
        expectOutage(answer);
        refused++;
      }
      await sleep(20); // their pace
    }
  }
  const running = Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
  return {
    accepted,
    get refused() {
      return refused;
    },
    async stop() {
      stopped = true;
      await running;
      expect(slow).toEqual([]);
    },
  };
}

type Outage = {
  readonly down: () => Promise<void> | void;
  readonly up: () => Promise<void> | void;
  /** What `/ready` says. */
  readonly fault: RegExp;
  /** Routes that answer as ever. */
  readonly unharmed: readonly string[];
};

async function live(served: Served, { down, up, fault, unharmed }: Outage): Promise<void> {
  const { app } = served;
  const expectWell = async () => {
    const answers = await ask(app, await routesOf(served));
    expect(Object.entries(answers).filter(([, status]) => status >= 300)).toEqual([]);
  };
  await expectWell();
  const routes = await routesOf(served);

  const clients = startClients(app);
  await expect.poll(() => clients.accepted.size, { timeout: 60_000 }).toBeGreaterThan(20);
  await down();
  await expect.poll(() => clients.refused, { timeout: 60_000 }).toBeGreaterThanOrEqual(CLIENTS);
  const ready = await app.inject("/ready");
  expect(expectProblem(ready, 503).detail).toMatch(fault);
  expect(Number(ready.headers["retry-after"])).toBeGreaterThanOrEqual(1);
  expect((await app.inject("/health")).statusCode).toBe(200);
  const broken = Object.entries(await ask(app, routes));
  expect(broken.filter(([, status]) => status !== 503)).toEqual(unharmed.map((name) => [name, 200]));

  const before = clients.accepted.size;
  await up();
  await expect.poll(async () => (await app.inject("/ready")).statusCode, { timeout: 60_000 }).toBe(200);
  await expect.poll(() => clients.accepted.size, { timeout: 60_000 }).toBeGreaterThan(before + 40);
  await clients.stop();
  await expectWell();

  const items = await itemsByKey(app);
  for (const [key, id] of clients.accepted) expect([key, items.get(key)]).toEqual([key, [id]]);
}

/** Which predictions the server lists for each key that a client posted. */
async function itemsByKey(app: App): Promise<ReadonlyMap<string, readonly string[]>> {
  const items = new Map<string, string[]>();
  for (let url: string | null = "/v1/predictions"; url !== null; ) {
    const page: Listed = (await app.inject(url)).json<Listed>();
    for (const { id, input } of page.results)
      items.set(String(input["key"]), [...(items.get(String(input["key"])) ?? []), id]);
    url = page.next;
  }
  return items;
}

type Listed = {
  readonly next: string | null;
  readonly results: readonly { readonly id: string; readonly input: Readonly<Record<string, unknown>> }[];
};

describe("Redis", () => {
  async function withRedis(outage: (redis: TestRedis, pid: number) => Outage): Promise<void> {
    const folder = await mkdtemp(path.join(tmpdir(), "outlast-outage-"));
    await using redis = await startTestRedis({ durable: true });
    try {
      const env = { OUTLAST_REDIS_URL: redis.url, OUTLAST_BUCKET: `file:${folder}` };
      await using served = await openServer({ env });
      const pid = Number(/process_id:(\d+)/.exec(await served.services.redis.info("server"))?.[1]);
      await live(served, outage(redis, pid));
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  test("killed, and started again", { timeout: 120_000 }, () =>
    withRedis((redis) => ({
      down: redis.kill,
      up: redis.restart,
      fault: /^Redis can't be used at the moment \((?:unreachable|timeout)\)$/,
      unharmed: [],
    })),
  );

  test("frozen, and thawed", { timeout: 120_000 }, () =>
    withRedis((_redis, pid) => ({
      down: () => void process.kill(pid, "SIGSTOP"),
      up: () => void process.kill(pid, "SIGCONT"),
      fault: /^Redis can't be used at the moment \(timeout\)$/,
      unharmed: [],
    })),
  );
});

test("who watches a batch, and who is held, hear of it when Redis is back", { timeout: 60_000 }, async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-outage-"));
  await using redis = await startTestRedis({ durable: true });
  try {
    await using served = await openServer({ env: { OUTLAST_REDIS_URL: redis.url, OUTLAST_BUCKET: `file:${folder}` } });
    const { app, services } = served;
    const batch = await post(app, rows(2));
    const port = await served.listen();
    using watcher = await openRawClient(port);
    await watcher.send(head(`GET /v1/batches/${batch}/events`));
    await watcher.shows(/"in_flight":0/);
    using held = await openRawClient(port);
    const body = JSON.stringify(GOOD);
    const headers = ["Content-Type: application/json", `Content-Length: ${body.length}`, "Prefer: wait=60"];
    await held.send(head("POST /v1/predictions", ...headers) + body);
    await expect.poll(async () => (await itemsByKey(app)).size).toBe(1);
    const [[item = ""] = []] = (await itemsByKey(app)).values();

    await redis.kill();
    await expect.poll(async () => (await app.inject("/ready")).statusCode).toBe(503);
    await redis.restart();
    await expect.poll(async () => (await app.inject("/ready")).statusCode, { timeout: 10_000 }).toBe(200);
    await bringTo("running", { batch, index: 1 }, services);
    await watcher.shows(/"in_flight":1/);
    await bringTo("saved", parseItemId(item) ?? { batch, index: 0 }, services);
    const [answer] = await held.answers(1);
    expect([answer?.status, JSON.parse(answer?.body ?? "")]).toMatchObject([201, { id: item, status: "succeeded" }]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

describe("the bucket", () => {
  /** What is in Redis, or in memory, is told without it. */
  const IN_REDIS = ["batches", "batch", "secret", "board"];

  async function withFolder(outage: (folder: string) => Outage): Promise<void> {
    const place = await mkdtemp(path.join(tmpdir(), "outlast-outage-"));
    const folder = path.join(place, "bucket");
    await using redis = await startTestRedis();
    try {
      const env = { OUTLAST_REDIS_URL: redis.url, OUTLAST_BUCKET: `file:${folder}` };
      await using served = await openServer({ env });
      await live(served, outage(folder));
    } finally {
      await rm(place, { recursive: true });
    }
  }

  test("a folder that is gone, and comes back", { timeout: 120_000 }, () =>
    withFolder((folder) => ({
      down: () => rename(folder, `${folder}-away`),
      up: () => rename(`${folder}-away`, folder),
      fault: /^the bucket can't be used at the moment \(missing-bucket\)$/,
      unharmed: IN_REDIS,
    })),
  );

  test("a folder that a plain file stands in for, and comes back", { timeout: 120_000 }, () =>
    withFolder((folder) => ({
      async down() {
        await rename(folder, `${folder}-away`);
        await writeFile(folder, "");
      },
      async up() {
        await rm(folder);
        await rename(`${folder}-away`, folder);
      },
      fault: /^the bucket can't be used at the moment \(missing-bucket\)$/,
      unharmed: IN_REDIS,
    })),
  );

  async function withS3(state: "gone" | "frozen", fault: RegExp): Promise<void> {
    const server = await startS3Server();
    const proxy = await startTcpProxy(Number(new URL(server.settings.endpoint).port));
    const endpoint = new URL(server.settings.endpoint);
    endpoint.port = String(proxy.port);
    vi.stubEnv("AWS_ACCESS_KEY_ID", server.settings.credentials.accessKeyId);
    vi.stubEnv("AWS_SECRET_ACCESS_KEY", server.settings.credentials.secretAccessKey);
    vi.stubEnv("AWS_REGION", "auto");
    await using redis = await startTestRedis();
    try {
      const env = {
        OUTLAST_REDIS_URL: redis.url,
        OUTLAST_BUCKET: `s3://${server.bucket}/outage`,
        OUTLAST_S3_ENDPOINT: endpoint.href,
      };
      await using served = await openServer({ env });
      await live(served, {
        down: () => proxy.pretend(state),
        up: () => proxy.pretend("well"),
        fault,
        unharmed: IN_REDIS,
      });
    } finally {
      vi.unstubAllEnvs();
      await proxy.close();
      await server.stop();
    }
  }

  test("an S3 server that is gone, and comes back", { timeout: 180_000 }, () =>
    withS3("gone", /^the bucket can't be used at the moment \((?:unreachable|timeout)\)$/),
  );

  test("an S3 server that says nothing, and speaks again", { timeout: 180_000 }, () =>
    withS3("frozen", /^the bucket can't be used at the moment \(timeout\)$/),
  );
});
