/**
 * Providers' webhooks as they come in, over real sockets: the emulator's own sender, and calls that are signed, forged,
 * old, too large or somebody else's by hand. What stands afterwards is read from Redis and the bucket.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Queue } from "bullmq";
import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { holdBatch } from "../../src/batches/hold-batch.ts";
import type { ItemState } from "../../src/core/item.ts";
import {
  type AttemptRef,
  type BatchId,
  errandId,
  OBJECT_KEYS,
  parseBatchId,
  parseItemId,
  QUEUE_NAMES,
  REDIS_KEYS,
  webhookPath,
} from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import { createReplicate } from "../../src/providers/replicate.ts";
import { selfCallAnswer } from "../../src/webhooks/self-call.ts";
import { shownSecret, signCall } from "../../src/webhooks/sign.ts";
import { ACCOUNT, accountName, openAccount } from "../support/stages.ts";
import { type Answer, openReceiver } from "../webhooks/receiver.ts";
import { expectProblem } from "./expect-problem.ts";
import { bringTo } from "./items.ts";
import { head, openRawClient } from "./raw-client.ts";
import { test as base, bearer, KEYS, post, rows, type Served, type ServeOptions, WITH_KEYS } from "./serving.ts";

const SECRET = Buffer.from("what the provider signs with");
const TARGET = { kind: "model", owner: "outlast", name: "text" } as const;
const HOUR = 3_600_000;
const never = new AbortController().signal;

/** A server that listens, and an emulator which is its provider. */
type World = Served & {
  readonly emulator: Emulator;
  readonly url: string;
  readonly batch: BatchId;
  readonly ref: (index?: number, attempt?: number) => AttemptRef;
};

const test = base.extend("open", async ({ serve }, { onCleanup }) => {
  const opened = new AsyncDisposableStack();
  onCleanup(() => opened.disposeAsync());
  return async (options: ServeOptions = {}): Promise<World> => {
    const emulator = opened.use(
      await startEmulator({
        webhookSecret: shownSecret(SECRET),
        webhookRetriesMs: [100, 100, 100],
        createsPerMinute: Number.POSITIVE_INFINITY,
        readsPerMinute: Number.POSITIVE_INFINITY,
        queueMs: { medianMs: 1, spread: 0 },
        runMs: { medianMs: 200, spread: 0 },
      }),
    );
    const env = {
      REPLICATE_API_TOKEN: "r8_emulator",
      OUTLAST_REPLICATE_BASE_URL: emulator.apiUrl,
      ...options.env,
    };
    const served = await serve({ ...options, env });
    const url = `http://127.0.0.1:${await served.listen()}`;
    await openAccount(served.services.ledger);
    const batch = await post(served.app, rows(3), { headers: bearer(KEYS.producer) });
    const ref = (index = 0, attempt = 1) => ({ account: ACCOUNT, batch, index, attempt });
    return { ...served, emulator, url, batch, ref };
  };
});

const NONCE = "nonce-0";
const inputOf = (index: number) => ({ prompt: `row ${index}` });

/** Has the emulator run a row's prediction; it calls the webhook when that has ended. */
async function buy({ emulator, url }: World, ref: AttemptRef, nonce = NONCE): Promise<string> {
  await using provider = createReplicate({ baseUrl: emulator.apiUrl, token: "r8_emulator" });
  const webhookUrl = url + webhookPath(ref, nonce);
  const { id } = await provider.create({ target: TARGET, input: inputOf(ref.index), webhookUrl }, never);
  return id;
}

type Call = {
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string | undefined>>;
  readonly path?: string;
  readonly secret?: Buffer;
  readonly agoMs?: number;
};

const bodyOf = (id: string, over: object = {}) =>
  JSON.stringify({ id, status: "succeeded", input: inputOf(0), output: "words", ...over });

/** As the provider would call, but for what is said otherwise. */
async function call(
  { url, ref }: World,
  { path: at, body = bodyOf("p1"), secret = SECRET, agoMs = 0, ...own }: Call = {},
) {
  const signed = signCall({ id: "msg_1", body }, secret, Date.now() - agoMs).headers;
  const given = { "content-type": "application/json", ...signed, ...own.headers };
  const headers = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  const answer = await fetch(url + (at ?? webhookPath(ref(), NONCE)), {
    method: "POST",
    headers: headers as Record<string, string>,
    body,
    redirect: "manual",
  });
  return { statusCode: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
}

const outcome = (status: string) => ({ statusCode: 200, body: JSON.stringify({ status }) });

const itemOf = ({ services, batch }: World, index = 0) => services.ledger.readItem({ account: ACCOUNT, batch, index });

/** What came of the account's webhooks. */
const counts = ({ services }: World) => services.ledger.webhookCounts(ACCOUNT);
async function counted(world: World, wanted: Readonly<Record<string, number>>): Promise<void> {
  await expect.poll(() => counts(world)).toEqual(wanted);
}

type Follow = { readonly id: string; readonly data: unknown; readonly state: string };

async function follows({ services }: World): Promise<readonly Follow[]> {
  const queue = new Queue(QUEUE_NAMES.follow(ACCOUNT), { connection: services.redis, skipMetasUpdate: true });
  try {
    const jobs = await queue.getJobs(["wait", "delayed", "active", "failed"]);
    return await Promise.all(
      jobs.map(async (job) => ({ id: job.id ?? "", data: job.data as unknown, state: await job.getState() })),
    );
  } finally {
    await queue.close();
  }
}

/** Bought and followed: the next poll comes in an hour. */
async function running(world: World, id: string, index = 0): Promise<void> {
  const ref = world.ref(index);
  const { ledger, queues } = world.services;
  await ledger.move(ref, "claim", { nowMs: Date.now(), nonce: `nonce-${index}` });
  const bound = await ledger.move(ref, "bind", { nowMs: Date.now(), predictionId: predictionId(id) });
  expect(bound.answer).toBe("moved");
  await queues.follow(ref, { id: predictionId(id), startedAtMs: Date.now(), deadlineAtMs: null }, HOUR);
}

const duplicateOf = ({ services, batch }: World, id: string, index = 0) =>
  services.bucket.head(OBJECT_KEYS.duplicate(batch, index, id));

describe("the emulator's own sender", () => {
  test("wakes the item whose prediction has ended, and decides nothing", async ({ open }) => {
    const world = await open();
    const id = await buy(world, world.ref());
    await running(world, id);
    await counted(world, { woken: 1 });
    // Its sender has the answer a moment after it was counted.
    await expect.poll(() => world.emulator.books().webhooks).toMatchObject({ sent: 1, delivered: 1, tries: 1 });
    expect(await follows(world)).toMatchObject([{ id: errandId(world.ref()), state: "waiting" }]);
    expect(await itemOf(world)).toMatchObject({ state: "running", fields: { prediction_id: id, wake: "webhook" } });
  });

  test("binds what nobody knows the prediction of, five times told: once", async ({ open }) => {
    const world = await open();
    world.emulator.arm({ route: "webhook", kind: "repeat", times: 5 });
    await bringTo("unclear", world.ref(), world.services);
    const id = await buy(world, world.ref());
    await expect.poll(async () => Object.values(await counts(world)).reduce((sum, n) => sum + n, 0)).toBe(5);
    expect(await counts(world)).toEqual({ bound: 1, woken: 4 });
    expect(await itemOf(world)).toMatchObject({ state: "running", fields: { prediction_id: id } });
    expect(await follows(world)).toMatchObject([
      { id: errandId(world.ref()), data: [ACCOUNT, id, 1_000, null], state: "waiting" },
    ]);
    expect(await world.services.redis.zcard(REDIS_KEYS.unclear(ACCOUNT))).toBe(0);
  });

  test("is refused where it forges, and taken where it doesn't", async ({ open }) => {
    const world = await open();
    world.emulator.arm({ route: "webhook", kind: "forge" });
    await running(world, await buy(world, world.ref()));
    await counted(world, { "refused:signature": 1, woken: 1 });
    const forged = { forged: 1, forged_taken: 0, delivered: 1 };
    await expect.poll(() => world.emulator.books().webhooks).toMatchObject(forged);
  });
});

describe("an attempt without a prediction gets the one that its webhook tells", () => {
  test("while the request's own answer is still on its way", async ({ open }) => {
    const world = await open();
    await bringTo("claimed", world.ref(), world.services);
    expect(await call(world)).toMatchObject(outcome("bound"));
    expect(await itemOf(world)).toMatchObject({ state: "running", fields: { prediction_id: "p1", nonce: NONCE } });
    expect(await follows(world)).toMatchObject([{ data: [ACCOUNT, "p1", 1_000, null], state: "waiting" }]);
    // Then the answer comes, and finds its own.
    const answer = { nowMs: Date.now(), nonce: NONCE, predictionId: predictionId("p1") };
    expect(await world.services.ledger.move(world.ref(), "bind", answer)).toMatchObject({ answer: "already" });
    await counted(world, { bound: 1 });
  });

  test("also where its intent is gone, or another has been written since", async ({ open }) => {
    const world = await open();
    expect(await call(world, { path: webhookPath(world.ref(), "a-nonce-from-before") })).toMatchObject(
      outcome("bound"),
    );
    expect(await itemOf(world)).toMatchObject({ state: "running", fields: { prediction_id: "p1" } });
    await bringTo("claimed", world.ref(1), world.services);
    const told = { path: webhookPath(world.ref(1), "a-nonce-from-before"), body: bodyOf("p2", { input: inputOf(1) }) };
    expect(await call(world, told)).toMatchObject(outcome("bound"));
    expect(await itemOf(world, 1)).toMatchObject({ state: "running", fields: { prediction_id: "p2" } });
    expect((await follows(world)).map(({ id }) => id).toSorted()).toEqual([
      errandId(world.ref(0)),
      errandId(world.ref(1)),
    ]);
    await counted(world, { bound: 2 });
  });

  test("with what its claim would have kept of its row", async ({ open }) => {
    const world = await open();
    const { item } = await openAdmission({ ...world.services, clock: Date.now }).admit({
      tenant: "default",
      account: ACCOUNT,
      identity: null,
      row: { input: inputOf(0), target: TARGET, id: "its-own" },
      replyTo: "replies",
      cancelAfterMs: HOUR,
      webhook: { url: "https://client.example/hook", events: ["completed"], base_url: world.url },
    });
    const place = parseItemId(item);
    if (place === null) throw new Error(`not an item: ${item}`);
    const ref = { account: ACCOUNT, ...place, attempt: 1 };
    expect(await call(world, { path: webhookPath(ref, "forgotten") })).toMatchObject(outcome("bound"));
    expect(await world.services.ledger.readItem(ref)).toMatchObject({
      state: "running",
      fields: { row_id: "its-own", reply_to: "replies", webhook_events: "completed", prediction_id: "p1" },
    });
    const [follow] = await follows(world);
    expect(follow?.data).toEqual([ACCOUNT, "p1", expect.any(Number), expect.any(Number)]);
  });

  test("whether its batch is paused or canceled, for the money is spent", async ({ open }) => {
    const world = await open();
    for (const index of [0, 1]) await bringTo("unclear", world.ref(index), world.services);
    for (const [index, act] of (["pause", "cancel"] as const).entries()) {
      const standing = await world.services.ledger.standing(ACCOUNT, world.batch);
      if (standing === null) throw new Error("the batch is gone");
      await holdBatch(standing, act, { ...world.services, clock: Date.now });
      const told = { path: webhookPath(world.ref(index), `nonce-${index}`), body: bodyOf(`p${index}`, { input: {} }) };
      expect(await call(world, told)).toMatchObject(outcome("bound"));
    }
    await counted(world, { bound: 2 });
  });

  test("but never another item's, by a body that is replayed to its address", async ({ open }) => {
    const world = await open();
    for (const state of ["waiting", "claimed", "unclear"] as const) {
      const index = ["waiting", "claimed", "unclear"].indexOf(state);
      await bringTo(state, world.ref(index), world.services);
      const path = webhookPath(world.ref(index), `nonce-${index}`);
      const body = bodyOf("p9", { input: inputOf(index + 10) });
      expect(await call(world, { path, body })).toMatchObject(outcome("foreign"));
      expect((await itemOf(world, index)).state).toBe(state);
    }
    expect(await follows(world)).toEqual([]);
    await counted(world, { foreign: 3 });
  });

  test("nor one that another attempt holds, where both are the same", async ({ open }) => {
    const world = await open();
    await running(world, "p1", 1);
    await bringTo("unclear", world.ref(0), world.services);
    expect(await call(world, { body: bodyOf("p1", { input: {} }) })).toMatchObject(outcome("elsewhere"));
    expect((await itemOf(world)).state).toBe("unclear");
    await counted(world, { elsewhere: 1 });
  });
});

describe("an item that is followed", () => {
  test("gets its poll back, where that is missing", async ({ open }) => {
    const world = await open();
    await bringTo("running", world.ref(), world.services);
    const id = `${world.batch}-0`;
    expect(await call(world, { body: bodyOf(id) })).toMatchObject(outcome("woken"));
    expect(await follows(world)).toMatchObject([{ data: [ACCOUNT, id, 1_000, null], state: "waiting" }]);
  });

  test("is woken again in a second, where a poll runs at this moment", async ({ open }) => {
    const world = await open();
    await running(world, "p1");
    const queue = QUEUE_NAMES.follow(ACCOUNT);
    const job = `bull:${queue}:${errandId(world.ref())}`;
    // As if a worker had it, and looked for marks already: it snoozes after the webhook.
    const { redis } = world.services;
    await redis.zrem(`bull:${queue}:delayed`, errandId(world.ref()));
    await redis.lpush(`bull:${queue}:active`, errandId(world.ref()));
    expect(await call(world)).toMatchObject(outcome("woken"));
    await redis.lrem(`bull:${queue}:active`, 1, errandId(world.ref()));
    const atMs = Date.now() + HOUR;
    await redis.hset(job, "delay", HOUR, "timestamp", Date.now());
    await redis.zadd(`bull:${queue}:delayed`, atMs * 0x1000, errandId(world.ref()));
    await expect.poll(async () => (await follows(world)).map(({ state }) => state)).toEqual(["waiting"]);
  });

  test("by another prediction has been bought twice: that is noted, once", async ({ open }) => {
    const world = await open();
    await running(world, "p1");
    for (let times = 0; times < 2; times++) {
      expect(await call(world, { body: bodyOf("p2") })).toMatchObject(outcome("duplicate"));
    }
    expect(await duplicateOf(world, "p2")).not.toBeNull();
    expect(await world.services.redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, world.batch))).toEqual(["p2"]);
    expect(await itemOf(world)).toMatchObject({ state: "running", fields: { prediction_id: "p1" } });
    await counted(world, { duplicate: 2 });
  });

  test("isn't charged with what is provably another's, or what another attempt holds", async ({ open }) => {
    const world = await open();
    await running(world, "p1");
    await running(world, "p2", 1);
    expect(await call(world, { body: bodyOf("p3", { input: inputOf(7) }) })).toMatchObject(outcome("foreign"));
    expect(await call(world, { body: bodyOf("p2", { input: {} }) })).toMatchObject(outcome("elsewhere"));
    expect(await world.services.redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, world.batch))).toEqual([]);
  });

  test("by one that still runs and is surplus: that one is canceled, so that paying stops", async ({ open }) => {
    const world = await open();
    await running(world, "p1");
    await using provider = createReplicate({ baseUrl: world.emulator.apiUrl, token: "r8_emulator" });
    const slow = { kind: "model", owner: "outlast", name: "text" } as const;
    const { id } = await provider.create({ target: slow, input: inputOf(0) }, never);
    expect(await call(world, { body: bodyOf(id, { status: "processing" }) })).toMatchObject(outcome("duplicate"));
    expect(await provider.get(predictionId(id), never)).toMatchObject({ status: "canceled" });
  });
});

describe("a webhook that comes after the end", () => {
  const ends: readonly ItemState[] = ["copying", "recording", "saved", "failed", "canceled"];

  test.for(ends)("of an item that is %s changes nothing", async (state, { open }) => {
    const world = await open();
    await bringTo(state, world.ref(), world.services);
    const before = await itemOf(world);
    expect(await call(world, { body: bodyOf(`${world.batch}-0`) })).toMatchObject(outcome("late"));
    expect(await itemOf(world)).toEqual(before);
    expect(await follows(world)).toEqual([]);
    await counted(world, { late: 1 });
  });

  test("and tells of another prediction than the receipt has been paid for beside it", async ({ open }) => {
    const world = await open();
    await bringTo("saved", world.ref(), world.services);
    expect(await call(world, { body: bodyOf("p2") })).toMatchObject(outcome("duplicate"));
    expect(await duplicateOf(world, "p2")).not.toBeNull();
    expect((await itemOf(world)).state).toBe("saved");
  });
});

describe("what is the provider's, and of no use here", () => {
  test("is left to come again where Redis may have lost the item: a batch, an index, an attempt that aren't", async ({
    open,
  }) => {
    const world = await open();
    const stranger = parseBatchId("0123456789abcdefghjk");
    if (stranger === null) throw new Error("not a batch id");
    for (const ref of [{ ...world.ref(), batch: stranger }, world.ref(3), world.ref(0, 2)]) {
      expectProblem(await call(world, { path: webhookPath(ref, NONCE) }), 503);
    }
    expect(await world.services.redis.exists(REDIS_KEYS.bytes(ACCOUNT, stranger))).toBe(0);
    expect(await itemOf(world)).toMatchObject({ attempt: 1, state: "waiting", fields: {} });
    await counted(world, { unknown: 3 });
  });

  test("is answered where its body tells of no prediction, since it would only come again", async ({ open }) => {
    const world = await open();
    for (const body of ["", "{", "null", "[]", "{}", '{"id":"p1"}', '{"id":"no id","status":"succeeded"}']) {
      expect(await call(world, { body })).toMatchObject(outcome("unreadable"));
    }
    await counted(world, { unreadable: 7 });
    expect((await itemOf(world)).state).toBe("waiting");
  });
});

describe("what isn't proven to be the provider's is refused, and does nothing", () => {
  const forged = Buffer.from("what somebody else signs with");
  const none = { "webhook-id": undefined, "webhook-timestamp": undefined, "webhook-signature": undefined };
  const cases: readonly (readonly [what: string, call: Call, status: number, why: string])[] = [
    ["signed by somebody else", { secret: forged }, 401, "signature"],
    ["signed over another body", { headers: { "webhook-id": "msg_2" } }, 401, "signature"],
    ["not signed at all", { headers: none }, 401, "unsigned"],
    ["signed six minutes ago", { agoMs: 360_000 }, 401, "timestamp"],
    ["signed in six minutes", { agoMs: -360_000 }, 401, "timestamp"],
    ["of another type", { headers: { "content-type": "text/plain" } }, 415, "type"],
    ["of rows", { headers: { "content-type": "application/x-ndjson" } }, 415, "type"],
    ["packed", { headers: { "content-encoding": "gzip" } }, 415, "type"],
    ["longer than a webhook is", { body: bodyOf("p1", { logs: "x".repeat(4 * 1024 * 1024) }) }, 413, "size"],
  ];

  test.for(cases)("%s", async ([, given, status, why], { open }) => {
    const world = await open();
    await bringTo("unclear", world.ref(), world.services);
    expectProblem(await call(world, given), status);
    await counted(world, { [`refused:${why}`]: 1 });
    expect((await itemOf(world)).state).toBe("unclear");
    expect(await follows(world)).toEqual([]);
  });

  test("in pieces that never end, or come to a stop", async ({ open }) => {
    const world = await open({ timeouts: { idleMs: 100 } });
    const start = head(`POST ${webhookPath(world.ref(), NONCE)}`, "Content-Type: application/json");
    const port = Number(new URL(world.url).port);
    using endless = await openRawClient(port);
    await endless.send(start.replace(/\r\n\r\n$/, "\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for (let mib = 0; mib < 5; mib++) await endless.send(`100000\r\n${"x".repeat(0x100000)}\r\n`);
    expect(await endless.answers(1)).toMatchObject([{ status: 413 }]);
    using stopped = await openRawClient(port);
    await stopped.send(`${start.replace(/\r\n\r\n$/, "\r\nContent-Length: 100\r\n\r\n")}{"id":`);
    expect(await stopped.answers(1)).toMatchObject([{ status: 408 }]);
    await counted(world, { "refused:size": 1, "refused:slow": 1 });
  });

  test("at an address that is none of ours", async ({ open }) => {
    const world = await open();
    const stranger = accountName("stranger");
    expectProblem(await call(world, { path: webhookPath({ ...world.ref(), account: stranger }, NONCE) }), 404);
    for (const errand of ["nothing", `${world.batch}-0`, `${world.batch}-0-16`, `${world.batch}-01-1`]) {
      expectProblem(await call(world, { path: `/v1/webhooks/${ACCOUNT}/${errand}/${NONCE}` }), 404);
    }
    for (const path of [
      "/v1/webhooks",
      `/v1/webhooks/${ACCOUNT}`,
      `/v1/webhooks/${ACCOUNT}/${errandId(world.ref())}`,
    ]) {
      expectProblem(await call(world, { path }), 404);
    }
    await counted(world, { "refused:address": 4 });
    expect(await world.services.ledger.webhookCounts(stranger)).toEqual({});
  });

  test("by any other method, it is 405", async ({ open }) => {
    const world = await open();
    for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
      const answer = await fetch(world.url + webhookPath(world.ref(), NONCE), { method });
      expect([answer.status, answer.headers.get("allow")]).toEqual([405, "POST"]);
    }
    expect(await counts(world)).toEqual({});
  });
});

describe("the secret", () => {
  /** A provider that gives out a secret, and can rotate it or be down. */
  const giving = (secret: () => Buffer | null): Answer => {
    return (response) => {
      const now = secret();
      if (now === null) response.writeHead(500).end("{}");
      else response.end(JSON.stringify({ key: shownSecret(now) }));
    };
  };

  test("that was rotated is taken up by itself, and forgeries don't have it asked for again and again", async ({
    open,
  }) => {
    let secret = SECRET;
    await using provider = await openReceiver(giving(() => secret));
    const pauseMs = 300;
    const env = { OUTLAST_REPLICATE_BASE_URL: `${provider.url}/v1` };
    const world = await open({ env, timeouts: { secretPauseMs: pauseMs } });
    await running(world, "p1");
    expect(await call(world)).toMatchObject(outcome("woken"));
    expect(provider.calls).toMatchObject([{ path: "/v1/webhooks/default/secret" }]);

    secret = Buffer.from("what the provider signs with now");
    const askedAt = performance.now();
    await expect.poll(async () => (await call(world, { secret })).statusCode).toBe(200);
    expect((await call(world)).statusCode).toBe(401);

    for (let n = 0; n < 100; n++) await call(world, { secret: Buffer.from("forged") });
    const pauses = Math.ceil((performance.now() - askedAt) / pauseMs);
    expect(provider.calls.length).toBeLessThanOrEqual(2 + pauses);
    expect((await call(world, { secret })).statusCode).toBe(200);
  });

  test("that can't be had leaves a webhook to come again", async ({ open }) => {
    let secret: Buffer | null = null;
    await using provider = await openReceiver(giving(() => secret));
    const env = { OUTLAST_REPLICATE_BASE_URL: `${provider.url}/v1` };
    const world = await open({ env, timeouts: { secretPauseMs: 50 } });
    expectProblem(await call(world), 503);
    await counted(world, { "refused:outage": 1 });
    secret = SECRET;
    await expect.poll(async () => (await call(world)).statusCode).toBe(200);
  });

  test("of each account is its own", async ({ open }) => {
    const folder = await mkdtemp(path.join(tmpdir(), "outlast-webhooks-test-"));
    await using done = new AsyncDisposableStack();
    done.defer(() => rm(folder, { recursive: true, force: true }));
    const other = Buffer.from("what the other account's provider signs with");
    const provider = done.use(await openReceiver(giving(() => other)));
    const accounts = {
      other: { provider: "replicate", token: "r8_other", base_url: `${provider.url}/v1` },
      comet: { provider: "cometapi", token: "sk-comet", base_url: `${provider.url}/replicate/v1` },
    };
    await writeFile(path.join(folder, "accounts.json"), JSON.stringify(accounts));
    const world = await open({ env: { OUTLAST_ACCOUNTS: path.join(folder, "accounts.json") } });
    const at = (account: string) => webhookPath({ ...world.ref(), account: accountName(account) }, NONCE);

    expectProblem(await call(world, { path: at("replicate"), secret: other }), 401);
    expectProblem(await call(world, { path: at("other") }), 401);
    // Its own, but of a batch that isn't.
    expectProblem(await call(world, { path: at("other"), secret: other }), 503);
    expectProblem(await call(world, { path: at("comet") }), 404);
    expect((await itemOf(world)).state).toBe("waiting");
    expect(await world.services.ledger.webhookCounts(accountName("other"))).toEqual({
      "refused:signature": 1,
      unknown: 1,
    });
  });
});

describe("whoever calls", () => {
  test("needs no key, and may know the server by another name", async ({ open }) => {
    for (const env of [{}, WITH_KEYS]) {
      const world = await open({ env });
      const id = env === WITH_KEYS ? "p1" : "p0"; // one Redis for both
      await running(world, id);
      const address = webhookPath(world.ref(), NONCE);
      const body = bodyOf(id);
      const headers = {
        "content-type": "application/json",
        host: "predictions.example",
        ...signCall({ id: "msg_1", body }, SECRET, Date.now()).headers,
      };
      const answer = await world.app.inject({ method: "POST", url: address, headers, payload: body });
      expect(answer.json()).toEqual({ status: "woken" });
      const other = await world.app.inject({ url: "/v1/predictions", headers: { host: "predictions.example" } });
      expect(other.statusCode).toBe(env === WITH_KEYS ? 401 : 421);
    }
  });

  test("isn't told more than it can prove: the self-call answers by the fleet's secret alone", async ({ open }) => {
    const world = await open({ env: WITH_KEYS });
    const self = async (body: string) => {
      const headers = { "content-type": "application/json" };
      const answer = await fetch(`${world.url}/v1/webhooks/self`, { method: "POST", headers, body });
      return [answer.status, await answer.text()] as const;
    };
    const secret = await world.services.ledger.secretFor("self-call");
    expect(await self('{"challenge":"a"}')).toEqual([200, selfCallAnswer(secret, '{"challenge":"a"}')]);
    expect((await self("x".repeat(201)))[0]).toBe(413);
  });

  test("is answered in milliseconds", async ({ open }) => {
    const world = await open();
    await running(world, "p1");
    const tookMs: number[] = [];
    for (let n = 0; n < 50; n++) {
      const at = performance.now();
      expect(await call(world)).toMatchObject(outcome("woken"));
      tookMs.push(performance.now() - at);
    }
    const median = tookMs.toSorted((a, b) => a - b)[25];
    expect(median, "ms").toBeLessThan(100);
  });
});
