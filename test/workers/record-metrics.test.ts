import { describe, expect } from "vitest";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import {
  type AttemptRef,
  errandId,
  itemId,
  notifyJobId,
  OBJECT_KEYS,
  QUEUE_NAMES,
  REDIS_KEYS,
} from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { answerOf, type CopiedFile, type Ending, type ResultLine } from "../../src/core/receipt.ts";
import { MINUTE } from "../../src/core/time.ts";
import { type RecordDeps, recordMetrics } from "../../workers/record-metrics.ts";
import { everyCrash } from "../support/crash.ts";
import { recordEffects } from "../support/effects.ts";
import { failedByProvider, feed, statesOf } from "../support/life.ts";
import { ACCOUNT, ADMITTING, type Line, MODEL, NOON, predictionOf, test } from "../support/stages.ts";

const FILE = "https://replicate.delivery/a/out.png";
const COPIED: CopiedFile = {
  from: FILE,
  key: "batches/b/items/00000000/output-0.png",
  url: "file:/b/output-0.png",
  bytes: 70_000,
  sha256: "5a",
  content_type: "image/png",
};
const PREDICTION = predictionOf("p1", {
  status: "succeeded",
  output: [FILE, "words"],
  metrics: { predict_time: 1.2345, other: "kept" },
  createdAt: "2026-11-20T11:59:58.000Z",
  completedAt: "2026-11-20T12:00:02.000Z",
});
const SAVED: Ending = { end: "saved", error: null, answer: answerOf(PREDICTION), copied: [COPIED] };
const FAILED: Ending = { end: "failed", error: "NSFW", answer: null, copied: [] };
const REPLIES = "producer-replies";

type World = { readonly line: Line; readonly ref: AttemptRef };

/** An item that has come to this ending, the first of `items`; `webhookEvents`: what its client is told of, if anything. */
async function openWorld(
  line: Line,
  ending: Ending,
  { items = 1, replyTo = REPLIES, webhookEvents = "" } = {},
): Promise<World> {
  await line.clear();
  const batch = await line.submit(Array.from({ length: items }, (_, n) => ({ prompt: `input ${n}` })));
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  const set = {
    row_id: "my id",
    ...(replyTo !== "" && { reply_to: replyTo }),
    ...(webhookEvents !== "" && { webhook_events: webhookEvents }),
  };
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n", set });
  const kept = { nowMs: NOON, set: { ending: await keepEnding(line.bucket, ref, ending) } };
  if (ending.answer === null) {
    await line.ledger.move(ref, "refuse", kept);
  } else {
    await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("p1") });
    await line.ledger.move(ref, "conclude", kept);
  }
  return { line, ref };
}

const depsOf = ({ line }: World): RecordDeps => recordEffects(line);

const run = (world: World, deps = depsOf(world)) => recordMetrics(world.ref, deps);

test("a saved item has its receipt, its end, its sums, and its producer's answer", async ({ line }) => {
  const world = await openWorld(line, SAVED);
  const { batch } = world.ref;
  line.clock.forward(MINUTE);
  expect(await run(world)).toEqual({ kind: "done" });

  const receipt = await readReceipt(line.bucket, world.ref);
  expect(receipt).toEqual({
    index: 0,
    item: itemId(batch, 0),
    id: "my id",
    status: "saved",
    prediction_id: "p1",
    output: [COPIED.key, "words"],
    outputs: [{ key: COPIED.key, url: COPIED.url, bytes: 70_000, sha256: "5a", content_type: "image/png" }],
    error: null,
    metrics: { predict_time: 1.2345, other: "kept" },
    attempts: [{ attempt: 1, status: "saved", prediction_id: "p1", error: null, metrics: PREDICTION.metrics }],
    batch,
    account: ACCOUNT,
    model: "outlast/text",
    version: null,
    logs: null,
    claimed_at: "2026-11-20T12:00:00.000Z",
    created_at: "2026-11-20T11:59:58.000Z",
    started_at: null,
    completed_at: "2026-11-20T12:00:02.000Z",
    recorded_at: "2026-11-20T12:01:00.000Z",
    prediction_status: "succeeded",
    reply_to: REPLIES,
    webhook_events: [],
  });
  expect(await line.ledger.standing(ACCOUNT, batch)).toMatchObject({
    counts: { saved: 1, recording: 0 },
    sums: { predict_time_ms: 1_235n, output_bytes: 70_000n, output_files: 1n },
  });
  expect(await line.ledger.readItem(world.ref)).toEqual({ attempt: 1, state: "saved", fields: {} });
  const [reply, ...more] = await line.jobs(REPLIES);
  expect(more).toEqual([]);
  expect(reply).toMatchObject({
    id: itemId(batch, 0),
    data: { id: "my id", status: "saved", output: [COPIED.key, "words"] },
  });
  expect(Object.keys(reply?.data as ResultLine)).not.toContain("reply_to");
  expect((await line.jobs(QUEUE_NAMES.finish)).map(({ id }) => id)).toEqual([batch]);
});

test("a refused input is a failed item, without a prediction, and costs nothing", async ({ line }) => {
  const world = await openWorld(line, FAILED, { items: 2, replyTo: "" });
  await run(world);
  expect(await readReceipt(line.bucket, world.ref)).toMatchObject({
    status: "failed",
    error: "NSFW",
    prediction_id: null,
    outputs: [],
  });
  expect(await line.ledger.standing(ACCOUNT, world.ref.batch)).toMatchObject({
    counts: { failed: 1, waiting: 1 },
    sums: { predict_time_ms: 0n, output_bytes: 0n, output_files: 0n },
  });
  expect(await line.jobs(REPLIES), "nobody asked").toEqual([]);
  expect(await line.jobs(QUEUE_NAMES.finish), "another item is left").toEqual([]);
});

test("a success whose output couldn't be saved is counted as paid for and not saved, once, and isn't bought again by itself", async ({
  line,
}) => {
  // Its words are like those of a failure of the provider's own, which would be.
  const error = "succeeded, but its output couldn't be saved: GET … was interrupted (E1000)";
  const answer = answerOf(PREDICTION);
  const unsaved = [{ url: FILE, why: "GET … was interrupted (E1000)" }];
  for (const ending of [
    { end: "failed", error, answer, copied: [], unsaved },
    { end: "failed", error: "succeeded with no output", answer: { ...answer, output: null }, copied: [] },
  ] as const) {
    const world = await openWorld(line, ending);
    await line.redis.hset(REDIS_KEYS.batch(ACCOUNT, world.ref.batch), "retry_failed", 3);
    for (let runs = 0; runs < 3; runs++) await run(world);
    expect(await line.ledger.standing(ACCOUNT, world.ref.batch)).toMatchObject({
      counts: { failed: 1, waiting: 0 },
      sums: { not_saved: 1n, predict_time_ms: 1_235n, output_files: 0n },
    });
    expect(await readReceipt(line.bucket, world.ref)).toMatchObject({
      status: "failed",
      prediction_status: "succeeded",
      attempts: [{ not_saved: true }],
      ...("unsaved" in ending && { unsaved }),
    });
    expect(await line.ledger.failuresOf(ACCOUNT, world.ref.batch)).toMatchObject([{ error: ending.error, count: 1 }]);
  }
});

test("a failure is counted in its group, once, with its first item as the example; a saved one isn't", async ({
  line,
}) => {
  const oom = (gb: number): Ending => ({
    ...FAILED,
    error: `CUDA out of memory: tried ${gb}.5 on ${"ab12".repeat(8)}`,
  });
  const world = await openWorld(line, oom(2), { items: 4 });
  const more = async (index: number, ending: Ending) => {
    const ref = { ...world.ref, index };
    await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
    await line.ledger.move(ref, "refuse", {
      nowMs: NOON,
      set: { ending: await keepEnding(line.bucket, ref, ending) },
    });
    return ref;
  };
  const refs = [world.ref, await more(1, FAILED), await more(2, oom(16)), await more(3, SAVED)];
  for (const ref of [...refs, ...refs]) await recordMetrics(ref, depsOf(world));
  expect(await line.ledger.failuresOf(ACCOUNT, world.ref.batch)).toEqual([
    { error: "CUDA out of memory: tried N on ID", count: 2, example: 0 },
    { error: "NSFW", count: 1, example: 1 },
  ]);
  expect(await line.ledger.latestSaved(ACCOUNT, world.ref.batch), "the one with files").toEqual([3]);
});

test("an item that is saved without files, or canceled, is neither a failure nor among the latest", async ({
  line,
}) => {
  for (const ending of [
    { ...SAVED, copied: [] },
    { ...FAILED, end: "canceled" },
  ] as const) {
    const world = await openWorld(line, ending);
    await run(world);
    expect(await line.ledger.failuresOf(ACCOUNT, world.ref.batch)).toEqual([]);
    expect(await line.ledger.latestSaved(ACCOUNT, world.ref.batch)).toEqual([]);
  }
});

test("an error that holds half a character is recorded like any other", async ({ line }) => {
  const world = await openWorld(line, { ...FAILED, error: "odd: \ud83e and \u0000" });
  await run(world);
  expect(await line.ledger.failuresOf(ACCOUNT, world.ref.batch)).toEqual([
    { error: "odd: \ufffd and \u0000", count: 1, example: 0 },
  ]);
});

test("a client's webhook is to be called once for the end, if it wants to know more than the beginning", async ({
  line,
}) => {
  const toldOf = async (webhookEvents: string, ending = SAVED) => {
    const world = await openWorld(line, ending, { webhookEvents });
    await Promise.allSettled([run(world), run(world)]);
    await run(world);
    expect((await readReceipt(line.bucket, world.ref))?.webhook_events.join(",")).toBe(webhookEvents);
    return (await line.jobs(QUEUE_NAMES.notify)).map(({ id }) => (id === notifyJobId(world.ref, "end") ? "end" : id));
  };
  expect(await toldOf("")).toEqual([]);
  expect(await toldOf("start")).toEqual([]);
  expect(await toldOf("start,output,logs,completed")).toEqual(["end"]);
  expect(await toldOf("completed", FAILED)).toEqual(["end"]);
  expect(await toldOf("logs")).toEqual(["end"]);
});

test("a receipt that stands in the bucket is adopted, whatever this run would have written", async ({ line }) => {
  const world = await openWorld(line, SAVED);
  await run(world);
  const first = await line.bucket.get(OBJECT_KEYS.receipt(world.ref.batch, 0, 1), { maxBytes: 1e6 });

  const again = await openWorld(line, FAILED);
  await line.bucket.put(OBJECT_KEYS.receipt(again.ref.batch, 0, 1), first ?? "", { contentType: "application/json" });
  await run(again);
  expect(await line.ledger.readItem(again.ref)).toMatchObject({ state: "saved" });
  expect((await line.ledger.standing(ACCOUNT, again.ref.batch))?.sums.output_bytes).toBe(70_000n);
});

test("an errand of another attempt, or of an item that isn't there yet, does nothing", async ({ line }) => {
  const world = await openWorld(line, SAVED, { items: 2 });
  const before = await line.look();
  for (const ref of [
    { ...world.ref, attempt: 2 },
    { ...world.ref, index: 1 },
  ]) {
    // And its id is free for the errand that will have something to do.
    expect(await recordMetrics(ref, depsOf(world))).toEqual({ kind: "nothing" });
  }
  expect(await line.look()).toEqual(before);
});

test("twice at once is once", async ({ line }) => {
  const world = await openWorld(line, SAVED);
  await Promise.allSettled([run(world), run(world), run(world)]);
  await run(world);
  const standing = await line.ledger.standing(ACCOUNT, world.ref.batch);
  expect(standing).toMatchObject({ counts: { saved: 1 }, sums: { output_bytes: 70_000n, output_files: 1n } });
  expect(await line.jobs(REPLIES)).toHaveLength(1);
});

describe("killed after any effect and run again twice,", () => {
  test.for<readonly [string, Ending, effects: number, webhookEvents?: string]>([
    ["the record of a saved item", SAVED, 6],
    ["the record of a failed item", FAILED, 6],
    ["the record of an item whose client has a webhook", SAVED, 7, "completed"],
    [
      "the record of a long answer",
      { ...SAVED, answer: { ...answerOf(PREDICTION), output: "x".repeat(9_000) }, copied: [] },
      6,
    ],
  ])("%s ends as if nothing had happened", async ([, ending, effects, webhookEvents = ""], { line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: () => openWorld(line, ending, { webhookEvents }),
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      look: ({ line: { look } }) => look(),
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toHaveLength(effects);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
    expect(Object.keys(undisturbed.errands).toSorted()).toEqual(
      [QUEUE_NAMES.feed, QUEUE_NAMES.finish, REPLIES, ...(webhookEvents === "" ? [] : [QUEUE_NAMES.notify])].toSorted(),
    );
  });
});

test("a producer hears of an item's later attempt, too, whatever of the first answer still stands in its queue", async ({
  line,
}) => {
  const world = await openWorld(line, FAILED);
  await run(world);
  const ref = { ...world.ref, attempt: 2 };
  await line.ledger.redrive({ id: ref.batch, account: ACCOUNT }, [{ index: 0, ended: 1 }], NOON);
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n", set: { reply_to: REPLIES } });
  const ending = await keepEnding(line.bucket, ref, { ...FAILED, error: "another reason" });
  await line.ledger.move(ref, "refuse", { nowMs: NOON, set: { ending } });
  await run({ line, ref });
  await run({ line, ref });
  const replies = await line.jobs(REPLIES);
  expect(replies.map(({ data }) => (data as ResultLine).error)).toEqual(["NSFW", "another reason"]);
});

describe("what the provider itself failed", () => {
  const INTERRUPTED = "Prediction interrupted; please retry (code: PA)";
  const RETRYING = { replyTo: REPLIES, webhookEvents: "completed" };

  /** One item, of a batch whose people allowed so many more attempts. */
  async function openRetrying(line: Line, ending: Ending, retryFailed = 1): Promise<World> {
    await line.clear();
    async function* rows() {
      yield { line: 1, row: { input: { prompt: "a fox" }, target: MODEL } };
    }
    const options = { name: "b", tenant: "default", account: ADMITTING, retryFailed };
    const { batch } = await submitBatch(rows(), options, line);
    const world = { line, ref: { account: ACCOUNT, batch, index: 0, attempt: 1 } };
    await feed(line);
    await bring(world, ending);
    return world;
  }

  async function bring({ line, ref }: World, ending: Ending): Promise<void> {
    const set = { reply_to: RETRYING.replyTo, webhook_events: RETRYING.webhookEvents };
    await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n", set });
    const kept = { nowMs: NOON, set: { ending: await keepEnding(line.bucket, ref, ending) } };
    if (ending.answer === null) {
      await line.ledger.move(ref, "refuse", kept);
      return;
    }
    const id = predictionId(`p${ref.attempt}`);
    await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: id });
    await line.ledger.move(ref, "conclude", kept);
  }

  const next = ({ line, ref }: World): World => ({ line, ref: { ...ref, attempt: ref.attempt + 1 } });
  const told = async ({ line }: World) => ({
    replies: (await line.jobs(REPLIES)).length,
    calls: (await line.jobs(QUEUE_NAMES.notify)).length,
    finishes: (await line.jobs(QUEUE_NAMES.finish)).length,
  });

  test.for([
    null,
    "",
    "E1000: unknown error",
    "E6716: start timeout",
    "E8367: prediction stopped",
    "E8765: health check failed",
    INTERRUPTED,
    "the model is at capacity",
  ])("with the words %o is bought again, and nobody is told before the end", async (error, { line }) => {
    const world = await openRetrying(line, failedByProvider(error));
    const { batch } = world.ref;
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await statesOf(line, batch)).toEqual(["2 waiting"]);
    expect(await told(world)).toEqual({ replies: 0, calls: 0, finishes: 0 });
    expect(await readReceipt(line.bucket, world.ref)).toMatchObject({ status: "failed", prediction_id: "p1" });
    expect(await line.ledger.failuresOf(ACCOUNT, batch), "the item hasn't failed").toEqual([]);
    await feed(line);
    const fed = (await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id);
    expect(fed).toContain(errandId({ ...world.ref, attempt: 2 }));

    await bring(next(world), SAVED);
    await run(next(world));
    await run(world);
    expect(await told(world)).toEqual({ replies: 1, calls: 1, finishes: 1 });
    const [reply] = await line.jobs(REPLIES);
    expect(reply?.data).toMatchObject({
      status: "saved",
      attempts: [
        { attempt: 1, status: "failed", prediction_id: "p1" },
        { attempt: 2, status: "saved", prediction_id: "p2" },
      ],
    });
    expect((await line.ledger.standing(ACCOUNT, batch))?.sums.predict_time_ms, "both were billed").toBe(3_235n);
  });

  test("once too often is a failed item, with all its attempts", async ({ line }) => {
    const world = await openRetrying(line, failedByProvider(INTERRUPTED), 2);
    await run(world);
    for (const again of [next(world), next(next(world))]) {
      await bring(again, failedByProvider(INTERRUPTED));
      await run(again);
    }
    expect(await statesOf(line, world.ref.batch)).toEqual(["3 failed"]);
    expect(await told(world)).toEqual({ replies: 1, calls: 1, finishes: 1 });
    expect((await readReceipt(line.bucket, next(next(world)).ref))?.attempts).toHaveLength(3);
    expect(await line.ledger.failuresOf(ACCOUNT, world.ref.batch)).toMatchObject([{ count: 1 }]);
  });

  const ended = (status: "failed" | "canceled" | "aborted", error: string | null): Ending => {
    const end = status === "failed" ? "failed" : "canceled";
    return { end, error: null, answer: answerOf(predictionOf("p1", { status, error })), copied: [] };
  };

  test.for<readonly [string, Ending, number]>([
    ["unasked", failedByProvider(INTERRUPTED), 0],
    ["where the model failed", ended("failed", "NSFW content detected"), 3],
    ["where the input was refused", FAILED, 3],
    ["where it was canceled", ended("canceled", null), 3],
    ["where it was aborted", ended("aborted", null), 3],
    ["where its files couldn't be had", { ...SAVED, end: "failed", error: "its output expired" }, 3],
  ])("isn't bought again %s", async ([, ending, retryFailed], { line }) => {
    const world = await openRetrying(line, ending, retryFailed);
    await run(world);
    expect(await statesOf(line, world.ref.batch)).toEqual([`1 ${ending.end}`]);
    expect(await told(world)).toEqual({ replies: 1, calls: 1, finishes: 1 });
  });

  test("isn't bought again where a person canceled it meanwhile, alone or with its batch", async ({ line }) => {
    const alone = await openRetrying(line, failedByProvider(INTERRUPTED));
    await line.ledger.markItem(alone.ref, "cancel");
    await run(alone);
    expect(await statesOf(line, alone.ref.batch)).toEqual(["1 failed"]);
    const whole = await openRetrying(line, failedByProvider(INTERRUPTED));
    await line.ledger.cancelBatch({ id: whole.ref.batch, account: ACCOUNT }, NOON);
    await run(whole);
    expect(await statesOf(line, whole.ref.batch)).toEqual(["1 failed"]);
  });

  test("is opened again once, whenever its record dies", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: () => openRetrying(line, failedByProvider(INTERRUPTED), 5),
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      look: async (world) => ({
        ...(await line.look()),
        states: await statesOf(line, world.ref.batch),
        told: await told(world),
      }),
    });
    expect(undisturbed).toMatchObject({ states: ["2 waiting"], told: { replies: 0, calls: 0, finishes: 0 } });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("move");
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });
});
