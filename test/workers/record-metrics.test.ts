import { describe, expect } from "vitest";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import { readReceipt, writeReceipt } from "../../src/bucket/records.ts";
import { type AttemptRef, itemId, notifyJobId, OBJECT_KEYS, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { answerOf, type CopiedFile, type Ending, type ResultLine } from "../../src/core/receipt.ts";
import { MINUTE } from "../../src/core/time.ts";
import { type RecordDeps, recordMetrics } from "../../workers/record-metrics.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, predictionOf, test } from "../support/stages.ts";

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

function depsOf({ line }: World): RecordDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    readItem: ledger.readItem,
    readEnding: (ref, kept) => readEnding(bucket, ref, kept),
    readReceipt: (ref) => readReceipt(bucket, ref),
    writeReceipt: (ref, receipt) => writeReceipt(bucket, ref, receipt),
    move: ledger.move,
    reply: queues.reply,
    enqueueNotify: queues.notify,
    enqueueFinish: (ref) => queues.finish(ref.account, ref.batch),
    clock,
  };
}

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
    expect(await recordMetrics(ref, depsOf(world))).toEqual({ kind: "done" });
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
