import { Queue } from "bullmq";
import { pino } from "pino";
import { describe, expect, onTestFinished } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { describePrediction } from "../../src/batches/describe-prediction.ts";
import { isSignedFor, signedFileUrl } from "../../src/batches/file-links.ts";
import { type FoundItem, findItem } from "../../src/batches/find-item.ts";
import { withdrawItem } from "../../src/batches/withdraw-item.ts";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { readConfig } from "../../src/config.ts";
import {
  type AttemptRef,
  type BatchId,
  type ItemId,
  type NotifyEvent,
  notifyJobId,
  parseItemId,
  QUEUE_NAMES,
} from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { answerOf, type CopiedFile, type Ending } from "../../src/core/receipt.ts";
import { SECOND } from "../../src/core/time.ts";
import { deliver, openWebhookAgent, type WebhookAgent } from "../../src/webhooks/deliver.ts";
import { shownSecret } from "../../src/webhooks/sign.ts";
import { openServices } from "../../src/wiring.ts";
import { type NotifyDeps, notifyClients } from "../../workers/notify-clients.ts";
import { recordMetrics } from "../../workers/record-metrics.ts";
import { startStages } from "../../workers/stages.ts";
import { everyCrash } from "../support/crash.ts";
import { recordEffects } from "../support/effects.ts";
import { ACCOUNT, test as base, type Line, MODEL, NOON, predictionOf } from "../support/stages.ts";
import { idOf, isValid, openReceiver, predictionIn, type Receiver } from "../webhooks/receiver.ts";

const BASE_URL = "https://outlast.example";
const TOKEN = "token-of-the-client";
const FILE = "https://replicate.delivery/a/out.png";
const NEVER = new AbortController().signal;

/** An item whose client has a webhook, and the receiver that it leads to. */
type World = {
  readonly line: Line;
  readonly ref: AttemptRef;
  readonly item: ItemId;
  readonly receiver: Receiver;
  readonly agent: WebhookAgent;
};

const test = base.extend("openWorld", async ({ line }, { onCleanup }) => {
  const opened = new AsyncDisposableStack();
  onCleanup(() => opened.disposeAsync());
  return async (
    answers: readonly number[] = [200],
    { url, receiver = null }: { readonly url?: string; readonly receiver?: Receiver | null } = {},
  ): Promise<World> => {
    await line.clear();
    const told = receiver ?? opened.use(await openReceiver(...answers));
    const agent = openWebhookAgent({ hosts: [parseHostRule(told.host)] });
    opened.defer(() => agent.close());
    const { item } = await openAdmission(line).admit({
      tenant: "default",
      account: ACCOUNT,
      identity: "key:one",
      row: { input: { prompt: "hello" }, target: MODEL },
      replyTo: null,
      cancelAfterMs: null,
      webhook: {
        url: url ?? `${told.url}/hooks/${TOKEN}?token=${TOKEN}`,
        events: ["start", "completed"],
        base_url: BASE_URL,
      },
    });
    const place = parseItemId(item);
    if (place === null) throw new Error(`${item} isn't an item's id`);
    return { line, ref: { account: ACCOUNT, ...place, attempt: 1 }, item, receiver: told, agent };
  };
});

async function bind({ line: { ledger, clock }, ref }: World): Promise<void> {
  await ledger.move(ref, "claim", { nowMs: clock(), nonce: "n", set: { webhook_events: "start,completed" } });
  await ledger.move(ref, "bind", { nowMs: clock(), predictionId: predictionId("p1") });
}

/** Ends the item as record does, which leaves the errand of telling its client. */
async function end(world: World, ending: Ending): Promise<void> {
  const { bucket, ledger, clock } = world.line;
  await bind(world);
  const set = { ending: await keepEnding(bucket, world.ref, ending) };
  await ledger.move(world.ref, "conclude", { nowMs: clock(), set });
  await recordMetrics(world.ref, recordEffects(world.line));
}

const FAILED: Ending = { end: "failed", error: "NSFW", answer: null, copied: [] };

function savedEnding({ batch }: AttemptRef): Ending {
  const key = `batches/${batch}/items/00000000/output-0.png`;
  const copied: CopiedFile = { from: FILE, key, url: "", bytes: 7, sha256: "5a", content_type: "image/png" };
  const prediction = predictionOf("p1", {
    status: "succeeded",
    output: [FILE, "words"],
    logs: "went well",
    metrics: { predict_time: 1.5 },
    completedAt: "2026-11-20T12:00:02.000Z",
  });
  return { end: "saved", error: null, answer: answerOf(prediction), copied: [copied] };
}

async function describeFound({ bucket, ledger, clock }: Line, found: FoundItem) {
  const secret = await ledger.secretFor("files");
  return describePrediction(bucket, found, {
    baseUrl: BASE_URL,
    fileUrl: (item, key) => signedFileUrl(secret, BASE_URL, item, key, clock()),
  });
}

function depsOf({ line, agent }: Pick<World, "line" | "agent">): NotifyDeps {
  return {
    findItem: (id) => findItem(line, id),
    describe: (found) => describeFound(line, found),
    secretOf: (tenant) => line.ledger.secretFor(`webhooks:${tenant}`),
    deliver: (url, call, signal) => deliver(url, call, agent, signal),
    clock: line.clock,
  };
}

const run = (world: World, event: NotifyEvent, deps = depsOf(world)) =>
  notifyClients({ ...world.ref, event }, deps, NEVER);

const secretOf = async ({ ledger }: Line): Promise<string> => shownSecret(await ledger.secretFor("webhooks:default"));

describe("a client is told", () => {
  test("that its prediction begins, signed with its own secret", async ({ openWorld }) => {
    const world = await openWorld();
    await bind(world);
    expect(await run(world, "start")).toEqual({ kind: "done" });

    const [call, ...more] = world.receiver.calls;
    if (call === undefined) throw new Error("nobody called");
    expect(more).toEqual([]);
    expect(predictionIn(call)).toMatchObject({
      id: world.item,
      status: "starting",
      output: null,
      input: { prompt: "hello" },
    });
    expect(idOf(call)).toBe(`msg_${world.item}_1_start`);
    expect(call.headers["webhook-timestamp"]).toBe(String(NOON / SECOND));
    expect(await isValid(call, await secretOf(world.line))).toBe(true);
    expect(await isValid(call, shownSecret(await world.line.ledger.secretFor("webhooks:another")))).toBe(false);
  });

  test("what it has come to, as the API shows it, with files that can be fetched", async ({ openWorld }) => {
    const world = await openWorld();
    const { line, item, ref } = world;
    await end(world, savedEnding(ref));
    await run(world, "end");

    const [call] = world.receiver.calls;
    const found = await findItem(line, item);
    if (call === undefined || found === null) throw new Error("nobody called");
    const told = predictionIn(call);
    expect(told).toEqual(await describeFound(line, found));
    expect(told).toMatchObject({
      status: "succeeded",
      logs: "went well",
      metrics: { predict_time: 1.5 },
      completed_at: "2026-11-20T12:00:02.000Z",
      urls: { get: `${BASE_URL}/v1/predictions/${item}` },
      webhook_events_filter: ["start", "completed"],
    });
    const [fileUrl, words] = told.output as readonly [string, string];
    const { pathname, searchParams } = new URL(fileUrl);
    expect([pathname, words]).toEqual([`/v1/files/${item}/output-0.png`, "words"]);
    const query = Object.fromEntries(searchParams);
    expect(isSignedFor(await line.ledger.secretFor("files"), item, "output-0.png", query, NOON)).toBe(true);
    expect(idOf(call)).toBe(`msg_${item}_1_end`);
    expect(await isValid(call, await secretOf(line))).toBe(true);
  });

  test("that it has failed, and why", async ({ openWorld }) => {
    const world = await openWorld();
    await end(world, FAILED);
    await run(world, "end");
    expect(world.receiver.calls.map(predictionIn)).toMatchObject([{ status: "failed", error: "NSFW", output: null }]);
  });

  test("that its deadline passed before it was bought", async ({ openWorld }) => {
    const world = await openWorld();
    const found = await findItem(world.line, world.item);
    if (found === null) throw new Error("the item is gone");
    await withdrawItem(world.ref, found.row, { as: "aborted", error: "too late" }, world.line);
    await run(world, "end");
    expect(world.receiver.calls.map(predictionIn)).toMatchObject([{ status: "aborted", error: "too late" }]);
  });
});

describe("nobody is called", () => {
  test("about an item that isn't known any more, or an attempt that a newer one followed", async ({ openWorld }) => {
    const world = await openWorld();
    await end(world, FAILED);
    const unknown = { ...world.ref, batch: "0".repeat(20) as BatchId };
    for (const ref of [unknown, { ...world.ref, index: 1 }, { ...world.ref, attempt: 2 }]) {
      expect(await notifyClients({ ...ref, event: "end" }, depsOf(world), NEVER)).toEqual({ kind: "done" });
    }
    expect(world.receiver.calls).toEqual([]);
  });

  test("about a row without a webhook", async ({ openWorld }) => {
    const world = await openWorld();
    const batch = await world.line.submit([{ prompt: "of a file" }]);
    const errand = { account: ACCOUNT, batch, index: 0, attempt: 1, event: "end" } as const;
    expect(await notifyClients(errand, depsOf(world), NEVER)).toEqual({ kind: "done" });
    expect(world.receiver.calls).toEqual([]);
  });
});

describe("in the queue, a call", () => {
  /** The stage as it is wired, with what it logs; the queue's jobs, to be looked at. */
  async function start({ line, receiver }: World, redisUrl: string) {
    const services = await openServices(
      readConfig({
        REPLICATE_API_TOKEN: "r8_not_a_token",
        OUTLAST_REDIS_URL: redisUrl,
        OUTLAST_BUCKET: line.bucket.url,
        OUTLAST_WEBHOOK_HOSTS: receiver.host,
      }),
      "worker",
    );
    let logged = "";
    const log = pino({ level: "trace" }, { write: (text: string) => (logged += text) });
    const stages = await startStages(services, ["notify"], log);
    const queue = new Queue(QUEUE_NAMES.notify, { connection: line.redis });
    onTestFinished(async () => {
      await stages.drain();
      await queue.close();
      await services[Symbol.asyncDispose]();
    });
    return {
      logged: () => logged,
      /** Until no call waits, runs or is to be made again; answers the failed ones. */
      failedInTheEnd: async () => {
        const open = () => queue.getJobCountByTypes("wait", "active", "delayed");
        await expect.poll(open, { timeout: 10_000, interval: 20 }).toBe(0);
        return queue.getFailed();
      },
    };
  }

  test("that wasn't taken is made again, later and under the same id", async ({ openWorld, redis }) => {
    const world = await openWorld([500, 301, 200]);
    await end(world, FAILED);
    const { failedInTheEnd } = await start(world, redis.url);
    expect(await failedInTheEnd()).toEqual([]);

    const { calls } = world.receiver;
    expect(calls.map(idOf)).toEqual(Array(3).fill(`msg_${world.item}_1_end`));
    expect(new Set(calls.map(({ body }) => body)).size).toBe(1);
    const secret = await secretOf(world.line);
    for (const call of calls) expect(await isValid(call, secret)).toBe(true);
    const [first = 0, , third = 0] = calls.map(({ headers }) => Number(headers["webhook-timestamp"]));
    expect(third - first, "1 s, then 2 s").toBeGreaterThanOrEqual(2);
  });

  test("about the beginning is made once, taken or not", async ({ openWorld, redis }) => {
    const world = await openWorld([500]);
    await bind(world);
    await world.line.queues.notify(world.ref, "start");
    const { failedInTheEnd } = await start(world, redis.url);
    expect(await failedInTheEnd()).toMatchObject([
      {
        id: notifyJobId(world.ref, "start"),
        attemptsMade: 1,
        failedReason: `the webhook at ${world.receiver.url} was answered 500, and not 2xx`,
      },
    ]);
    expect(world.receiver.calls).toHaveLength(1);
  });

  test("to somebody who is gone ends at once, with the reason", async ({ openWorld, redis }) => {
    const world = await openWorld([410]);
    await end(world, FAILED);
    const { failedInTheEnd } = await start(world, redis.url);
    expect(await failedInTheEnd()).toMatchObject([
      { attemptsMade: 1, failedReason: expect.stringMatching(/was answered 410: its receiver is gone/) },
    ]);
    expect(world.receiver.calls).toHaveLength(1);
  });

  test.for([
    "http://127.0.0.1:1",
    "https://169.254.169.254",
    "https://10.1.2.3",
    "https://localhost",
    "http://hooks.example",
  ])("to %s ends at once, with the reason", async (place, { openWorld, redis }) => {
    const world = await openWorld([200], { url: `${place}/hooks/${TOKEN}?token=${TOKEN}` });
    await end(world, FAILED);
    const { failedInTheEnd } = await start(world, redis.url);
    expect(await failedInTheEnd()).toMatchObject([
      { attemptsMade: 1, failedReason: expect.stringContaining(`the webhook at ${place} is refused: `) },
    ]);
  });

  test.for([
    [410, "a job can't succeed and stays in the failed set"],
    [500, "a job has failed and stays in the failed set"],
  ] as const)(
    "answered %i leaves no word of what its address holds behind the host",
    async ([status, words], { openWorld, redis }) => {
      const world = await openWorld([status]);
      await bind(world);
      await world.line.queues.notify(world.ref, "start");
      const { failedInTheEnd, logged } = await start(world, redis.url);
      const jobs = await failedInTheEnd();
      expect(jobs).toHaveLength(1);
      expect(JSON.stringify(jobs.map((job) => job.toJSON()))).not.toContain(TOKEN);
      await expect.poll(logged).toContain(words);
      expect(logged()).not.toContain(TOKEN);
      expect(logged()).not.toContain((await secretOf(world.line)).slice("whsec_".length));
    },
  );
});

describe("killed after any effect and run again twice,", () => {
  /** What stands, without the secrets, which are chance. */
  async function lookAt({ line, receiver }: World) {
    const { objects, errands, redis } = await line.look();
    const { "outlast:secrets": _secrets, ...keys } = redis;
    const secret = await secretOf(line);
    const valid = await Promise.all(receiver.calls.map((call) => isValid(call, secret)));
    const calls = receiver.calls.map((call) => ({ id: idOf(call), status: predictionIn(call).status }));
    return {
      objects,
      errands,
      keys,
      valid: [...new Set(valid)],
      told: [...new Set(calls.map((call) => JSON.stringify(call)))],
    };
  }

  test.for<readonly [NotifyEvent, (world: World) => Promise<void>]>([
    ["start", bind],
    ["end", (world) => end(world, savedEnding(world.ref))],
  ])(
    "the call at the %s is told, repeated under one id, and changes nothing else",
    async ([event, until], { openWorld }) => {
      let receiver: Receiver | null = null;
      const { undisturbed, crashes } = await everyCrash({
        open: async () => {
          const world = await openWorld([200], { receiver });
          receiver = world.receiver;
          receiver.calls.length = 0;
          await until(world);
          return world;
        },
        run: (world, wrap) => run(world, event, wrap(depsOf(world))),
        look: lookAt,
      });
      expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual(["findItem", "describe", "secretOf", "deliver"]);
      expect(undisturbed).toMatchObject({ valid: [true] });
      expect(undisturbed.told).toHaveLength(1);
      for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
    },
  );
});
