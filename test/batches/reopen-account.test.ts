/** What becomes of batches when Redis comes back without its last moments, or without anything. */

import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { holdBatch } from "../../src/batches/hold-batch.ts";
import { limitAccount } from "../../src/batches/limit-account.ts";
import { openKnownBatch } from "../../src/batches/rebuild-batch.ts";
import { type ReopenDeps, type Reopened, reopenAccount } from "../../src/batches/reopen-account.ts";
import { repairItem } from "../../src/batches/repair-item.ts";
import { reportAccount } from "../../src/batches/report-account.ts";
import { reportBatch } from "../../src/batches/report-batch.ts";
import { restoreLimits } from "../../src/batches/restore-limits.ts";
import { readInputJob, type SingleInput } from "../../src/batches/single-input.ts";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { writeBatchAct } from "../../src/bucket/acts.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import {
  JSON_TYPE,
  readBatch,
  readReceipt,
  writeBatch,
  writeDuplicate,
  writeReceipt,
} from "../../src/bucket/records.ts";
import { wrappedBucket } from "../../src/bucket/wrapped-bucket.ts";
import { type BatchId, OBJECT_KEYS, parseItemId, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { buildReceipt } from "../../src/core/receipt.ts";
import { DAY, HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { openGate } from "../../src/gates/account-gate.ts";
import { recordMetrics } from "../../workers/record-metrics.ts";
import { everyCrash } from "../support/crash.ts";
import { recordEffects } from "../support/effects.ts";
import {
  buy,
  buyAndEnd,
  cancelOne,
  claim,
  end,
  FAILED,
  failedByProvider,
  feed,
  finish,
  nonceOf,
  record,
  redrive,
  refOf,
  remember,
  savedAs,
  standingOf,
  statesOf,
} from "../support/life.ts";
import { ACCOUNT, ADMITTING, accountName, type Line, MODEL, NOON, newBatch, test } from "../support/stages.ts";

const LIMITED = { name: ACCOUNT, createsPerMinute: 600, readsPerMinute: 3_000, toleratesBurst: true };
const INTERRUPTED = failedByProvider("Prediction interrupted; please retry (code: PA)");

function depsOf({ bucket, ledger, queues, clock }: Line, fields: Partial<ReopenDeps> = {}): ReopenDeps {
  return {
    bucket,
    ledger,
    queues,
    clock,
    restoreLimits: () => restoreLimits(LIMITED, { bucket, ledger }),
    restartLosesNothing: false,
    tell: () => undefined,
    ...fields,
  };
}

const reopen = (line: Line, fields: Partial<ReopenDeps> = {}): Promise<Reopened | null> =>
  reopenAccount(ACCOUNT, depsOf(line, fields));

async function submit(line: Line, name: string, rows: number, retryFailed = 0): Promise<BatchId> {
  async function* readings() {
    for (let n = 0; n < rows; n++) yield { line: n + 1, row: { input: { prompt: `${name} ${n}` }, target: MODEL } };
  }
  return (await submitBatch(readings(), { name, tenant: "default", account: ADMITTING, retryFailed }, line)).batch;
}

function single(id: string): SingleInput {
  const data = { input: { prompt: `prompt of ${id}` }, model: "outlast/text", id, reply_to: "producer-replies" };
  return readInputJob({ jobId: "1", addedAtMs: NOON, data }, [ADMITTING]);
}

async function admit(line: Line, id: string): Promise<{ readonly batch: BatchId; readonly index: number }> {
  return parseItemId((await openAdmission(line).admit(single(id))).item) ?? raise("no item");
}

/** All that people and totals see of a batch. */
async function sumOf(line: Line, batch: BatchId) {
  const { counts, sums, paused, canceledAtMs, finishedAtMs, batch: of } = await standingOf(line, batch);
  return {
    of,
    counts,
    sums,
    paused,
    canceledAtMs,
    finishedAtMs,
    failures: await line.ledger.failuresOf(ACCOUNT, batch),
    latest: await line.ledger.latestSaved(ACCOUNT, batch),
  };
}

/** Of each unclear item: between which moments it may have been bought, in seconds after noon. */
async function spansOf(line: Line, batch: BatchId): Promise<Record<string, string>> {
  const intents = await line.ledger.intents(ACCOUNT, "unclear", 1_000);
  const seconds = (ms: number) => Math.round((ms - NOON) / SECOND);
  return Object.fromEntries(
    intents
      .filter(({ ref }) => ref.batch === batch)
      .map(({ ref, fromMs, toMs }) => [`${ref.index}.${ref.attempt}`, `${seconds(fromMs)} to ${seconds(toMs)}`]),
  );
}

type World = { readonly line: Line; readonly main: BatchId; readonly other: BatchId; readonly singles: BatchId };

const MAIN = [
  "1 saved",
  "1 failed",
  "2 saved",
  "1 canceled",
  "1 running",
  "1 claimed",
  "1 unclear",
  "1 waiting",
  "2 waiting",
  "2 waiting",
  "1 waiting",
  "1 waiting",
  "1 waiting",
  "1 waiting",
];

/** A batch with an item in every state, one that is untouched, and one of singles of which one is void. */
async function openWorld(line: Line): Promise<World> {
  await line.clear();
  await reopen(line);
  const main = await submit(line, "main", 14, 1);
  const ref = (index: number, attempt = 1) => refOf(main, index, attempt);
  await feed(line);
  await buyAndEnd(line, ref(0), savedAs(ref(0)));
  await buyAndEnd(line, ref(1), FAILED);
  await buyAndEnd(line, ref(2), FAILED);
  await buyAndEnd(line, ref(8), FAILED);
  expect(await redrive(line, main, { indexes: [[2, 2]] })).toBe(1);
  line.clock.forward(1);
  await buyAndEnd(line, ref(2, 2), savedAs(ref(2, 2)));
  await cancelOne(line, ref(3));
  await buy(line, ref(4));
  await claim(line, ref(5));
  await claim(line, ref(6));
  await line.ledger.move(ref(6), "doubt", { nowMs: line.clock(), nonce: nonceOf(ref(6)) });
  line.clock.forward(10 * SECOND);
  await redrive(line, main, { indexes: [[8, 8]] });
  await buyAndEnd(line, ref(9), INTERRUPTED);

  const other = await submit(line, "other", 3);
  const { batch: singles } = await admit(line, "a");
  await writeTwin(line, singles);
  expect(await statesOf(line, main)).toEqual(MAIN);
  expect(await statesOf(line, singles)).toEqual(["1 waiting", "1 canceled"]);
  return { line, main, other, singles };
}

/** A part whose only row is an input that was admitted already: two admissions raced. */
async function writeTwin({ bucket, ledger }: Line, batch: BatchId): Promise<void> {
  const part = await bucket.get(OBJECT_KEYS.input(batch, 0), { maxBytes: 1e6 });
  await bucket.putOnce(OBJECT_KEYS.input(batch, 1), part ?? "", JSON_TYPE);
  await ledger.publishPart({ id: batch, account: ACCOUNT }, { part: 1, first: 1, rows: 1, voidIndexes: [1] });
}

describe("on a Redis that was emptied,", () => {
  test("what ended stands, what may have been bought is unclear, and the rest waits and is fed", async ({ line }) => {
    const { main, other, singles } = await openWorld(line);
    const before = await sumOf(line, main);
    line.clock.forward(20 * SECOND);
    await line.redis.flushall();
    expect((await claim(line, refOf(main, 12))).answer, "nothing is bought before").toBe("unopened");
    expect(await reopen(line)).toEqual({ batches: 3, rebuilt: 3, unclear: 8 });
    expect(await reopen(line), "it is open now").toBeNull();

    const states = [...MAIN];
    states.splice(
      4,
      8,
      "1 unclear",
      "1 unclear",
      "1 unclear",
      "1 unclear",
      "2 unclear",
      "2 unclear",
      "1 unclear",
      "1 unclear",
    );
    expect(await statesOf(line, main)).toEqual(states);
    expect(await sumOf(line, main)).toEqual({
      ...before,
      counts: { ...before.counts, running: 0, claimed: 0, unclear: 8, waiting: 2 },
    });
    expect(await spansOf(line, main)).toEqual({
      "4.1": "0 to 30",
      "5.1": "0 to 30",
      "6.1": "0 to 30",
      "7.1": "0 to 30",
      "8.2": "10 to 30",
      "9.2": "10 to 30",
      "10.1": "0 to 30",
      "11.1": "0 to 30",
    });
    expect(await statesOf(line, other)).toEqual(["1 waiting", "1 waiting", "1 waiting"]);
    expect(await statesOf(line, singles)).toEqual(["1 waiting", "1 canceled"]);
    expect((await standingOf(line, singles)).parts).toBe(2);

    await feed(line);
    const fed = (await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id);
    expect(fed, "a void row is given out, too, and its claim is lost").toHaveLength(7);
    expect(fed).toEqual(expect.arrayContaining([`${main}-12-1`, `${main}-13-1`, `${other}-0-1`, `${singles}-0-1`]));
    expect((await claim(line, refOf(main, 12))).answer).toBe("moved");
    expect((await claim(line, refOf(main, 7))).answer).toBe("lost");
  });

  test("predictions that receipts name are held, so that the list gives them to nobody else", async ({ line }) => {
    const { main } = await openWorld(line);
    await line.redis.flushall();
    await reopen(line);
    const ids = [0, 1, 4].map((index) => predictionId(`p-${main.slice(0, 4)}-${index}-1`));
    const held = await line.ledger.holdersAmong(ACCOUNT, ids, line.clock());
    expect([...held]).toEqual([
      [ids[0], `${main}-0-1`],
      [ids[1], `${main}-1-1`],
    ]);
  });

  test("what people decided holds: paused, canceled, finished, and duplicates are known", async ({ line }) => {
    await line.clear();
    const old = await submit(line, "old", 1);
    await buyAndEnd(line, refOf(old, 0), savedAs(refOf(old, 0)));
    await finish(line, old);
    line.clock.forward(DAY);
    const finished = await submit(line, "finished", 1);
    await buyAndEnd(line, refOf(finished, 0), savedAs(refOf(finished, 0)));
    await writeDuplicate(line.bucket, refOf(finished, 0), "surplus", line.clock());
    await finish(line, finished);
    line.clock.forward(7 * DAY);
    const [paused, canceled] = [await submit(line, "paused", 3), await submit(line, "canceled", 3)];
    await holdBatch(await standingOf(line, paused), "pause", line);
    await holdBatch(await standingOf(line, canceled), "cancel", line);
    const abroad = newBatch({ account: accountName("cometapi") });
    await writeBatch(line.bucket, abroad);

    const before = await Promise.all([finished, paused, canceled].map((batch) => sumOf(line, batch)));
    await line.redis.flushall();
    expect(await reopen(line)).toEqual({ batches: 3, rebuilt: 3, unclear: 0 });
    expect(await Promise.all([finished, paused, canceled].map((batch) => sumOf(line, batch)))).toEqual(before);
    expect(await line.ledger.standing(ACCOUNT, old), "finished 8 days ago").toBeNull();
    expect(await line.ledger.standing(abroad.account, abroad.id), "another account's").toBeNull();
    expect(await line.redis.smembers(REDIS_KEYS.duplicates(ACCOUNT, finished))).toEqual(["surplus"]);
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual(expect.arrayContaining([paused, canceled]));
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toHaveLength(2);

    await feed(line);
    expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toEqual([]);
    expect(await statesOf(line, canceled), "the walk is made again").toEqual([
      "1 canceled",
      "1 canceled",
      "1 canceled",
    ]);
    await holdBatch(await standingOf(line, paused), "resume", line);
    await feed(line);
    expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toHaveLength(3);
    expect(await line.ledger.nextAct({ id: paused, account: ACCOUNT }), "after the two").toBe(3);
  });

  test("what was canceled stays so, when others of its batch were redriven since", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 6);
    await feed(line, { createsPerMinute: 60, windowRows: 2, createBacklog: async () => 8 });
    expect((await standingOf(line, batch)).cursor).toBe(2);
    await buyAndEnd(line, refOf(batch, 0), FAILED);
    await holdBatch(await standingOf(line, batch), "cancel", line);
    await feed(line);
    await redrive(line, batch, {
      ends: new Set(["failed", "canceled"]),
      indexes: [
        [0, 0],
        [4, 4],
      ],
    });
    await line.redis.flushall();
    await reopen(line);
    const states = ["2 unclear", "1 unclear", "1 canceled", "1 canceled", "2 unclear", "1 canceled"];
    expect(await statesOf(line, batch)).toEqual(states);
    const isToEnd = async (index: number) => "cancel" in (await line.ledger.readItem(refOf(batch, index))).fields;
    expect([await isToEnd(0), await isToEnd(1), await isToEnd(4)]).toEqual([false, true, false]);
    expect(await standingOf(line, batch)).toMatchObject({ canceledAtMs: null, finishedAtMs: null });
  });

  test("a batch that had ended, and of which something was redriven, is open again; the rest has ended", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 3, 1);
    await feed(line);
    await buyAndEnd(line, refOf(batch, 0), FAILED);
    await holdBatch(await standingOf(line, batch), "cancel", line);
    await feed(line);
    await finish(line, batch);
    line.clock.forward(SECOND);
    await redrive(line, batch);
    await line.redis.flushall();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "1 canceled", "1 canceled"]);
    expect(await standingOf(line, batch)).toMatchObject({ finishedAtMs: null });
  });

  test.for(["redriven", "repaired"] as const)(
    "a batch that had ended long ago, and of which something was %s lately, isn't forgotten",
    async (how, { line }) => {
      await line.clear();
      const batch = await submit(line, "b", 2);
      await feed(line);
      for (const index of [0, 1]) await buyAndEnd(line, refOf(batch, index), FAILED);
      await finish(line, batch);
      const rest = await submit(line, "another", 1);
      await feed(line);
      await buyAndEnd(line, refOf(rest, 0), FAILED);
      await finish(line, rest);
      line.clock.forward(8 * DAY);
      if (how === "redriven") await redrive(line, batch, { indexes: [[1, 1]] });
      else await repairItem(refOf(batch, 1), "p-late", line.clock(), line);
      await line.redis.flushall();
      await reopen(line);
      expect(await statesOf(line, batch)).toEqual(["1 failed", how === "redriven" ? "2 unclear" : "2 running"]);
      expect(await line.ledger.standing(ACCOUNT, rest), "of which nothing was").toBeNull();
    },
  );

  test.for(["emptied", "behind"])(
    "and one that was only %s: a single that came since is bought, though its window was noted",
    async (how, { line }) => {
      await line.clear();
      const { batch } = await admit(line, "a");
      await feed(line, { windowRows: 2_000 });
      const restore = await remember(line);
      await buy(line, refOf(batch, 0));
      await admit(line, "b");
      line.clock.forward(SECOND);
      await (how === "emptied" ? line.redis.flushall() : restore());
      const lostByMs = line.clock();
      // An API server admits on while nobody feeds.
      const row = { input: { prompt: "late" }, target: MODEL, created_at: new Date(lostByMs + MINUTE).toISOString() };
      await line.bucket.putOnce(OBJECT_KEYS.input(batch, 2), `${JSON.stringify(row)}\n`, JSON_TYPE);
      await reopen(line);
      expect(await statesOf(line, batch)).toEqual(["1 unclear", "1 unclear", "1 waiting"]);
      await feed(line, { windowRows: 2_000 });
      expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toMatchObject([{ id: `${batch}-2-1` }]);
      expect((await claim(line, refOf(batch, 2))).answer).toBe("moved");
    },
  );

  test.for(["emptied", "behind"])(
    "and one that was only %s: a single that is admitted while the account can't be opened is bought",
    async (how, { line }) => {
      await line.clear();
      const { batch } = await admit(line, "a");
      await feed(line, { windowRows: 2_000 });
      const restore = await remember(line);
      await buy(line, refOf(batch, 0));
      line.clock.forward(SECOND);
      await (how === "emptied" ? line.redis.flushall() : restore());
      const restoreLimits = () => Promise.reject(new Error("the bucket is down"));
      await expect(reopen(line, { restoreLimits })).rejects.toThrow("the bucket is down");
      line.clock.forward(10 * MINUTE);
      await admit(line, "late");
      await reopen(line);
      expect(await statesOf(line, batch)).toEqual(["1 unclear", "1 waiting"]);
      await feed(line, { windowRows: 2_000 });
      expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toMatchObject([{ id: `${batch}-1-1` }]);
      expect((await claim(line, refOf(batch, 1))).answer).toBe("moved");
    },
  );

  test("half a batch, as a late writer leaves it, is in nobody's way", async ({ line }) => {
    const { main } = await openWorld(line);
    await line.redis.flushall();
    await line.ledger.noteWindow({ id: main, account: ACCOUNT }, 8);
    await line.ledger.nextAct({ id: main, account: ACCOUNT });
    const adopted = line.ledger.move(refOf(main, 12), "adopt", {
      nowMs: line.clock(),
      predictionId: predictionId("p"),
    });
    await expect(adopted, "which batch?").rejects.toThrow(/does not know batch/);
    expect(await line.ledger.standing(ACCOUNT, main)).toBeNull();
    expect(await reopen(line)).toMatchObject({ rebuilt: 3 });
    expect((await statesOf(line, main))[12]).toBe("1 waiting");
    expect(
      await openKnownBatch((await readBatch(line.bucket, main)) ?? raise("no batch"), line),
      "it is known",
    ).toBeNull();
  });
});

// ── Redis without its last moments ────────────────────────────────────────────

type Later = World & { readonly late: BatchId; readonly restore: () => Promise<void> };

/** The same world, and what was done since Redis was copied. */
async function goOn(world: World): Promise<Later> {
  const { line, main, other } = world;
  const ref = (index: number, attempt = 1) => refOf(main, index, attempt);
  await line.ledger.move(ref(9, 2), "withdraw", { nowMs: line.clock() }); // as a person would
  const restore = await remember(line);
  line.clock.forward(10 * SECOND);
  await buy(line, ref(7));
  await claim(line, ref(10));
  await feed(line, { createBacklog: async () => 0 }); // rows 12 and 13, and the others'
  await buy(line, ref(12));
  await buyAndEnd(line, ref(11), savedAs(ref(11)));
  await end(line, ref(4), savedAs(ref(4)));
  await redrive(line, main, { indexes: [[1, 1]] });
  await buy(line, ref(1, 2));
  await cancelOne(line, ref(6));
  await cancelOne(line, refOf(other, 2));
  await holdBatch(await standingOf(line, main), "pause", line);
  const late = await submit(line, "late", 2);
  await admit(line, "b");
  line.clock.forward(10 * SECOND);
  return { ...world, late, restore };
}

describe("on a Redis without its last moments,", () => {
  test("nothing waits that may have been bought, receipts and acts hold, and what is new is there", async ({
    line,
  }) => {
    const { main, other, singles, late, restore } = await goOn(await openWorld(line));
    const receipt = await readReceipt(line.bucket, refOf(main, 11));
    await restore();
    expect((await claim(line, refOf(main, 7))).answer).toBe("unopened");
    expect(await reopen(line)).toMatchObject({ batches: 4, rebuilt: 1 });

    const states = [...MAIN];
    states[1] = "2 unclear";
    states.splice(
      5,
      9,
      "1 unclear",
      "1 unclear",
      "1 unclear",
      "2 unclear",
      "2 canceled",
      "1 unclear",
      "1 recording",
      "1 unclear",
      "1 unclear",
    );
    expect(await statesOf(line, main)).toEqual(states);
    expect(await spansOf(line, main)).toEqual({
      "1.2": "20 to 30",
      "5.1": "0 to 30",
      "6.1": "0 to 30",
      "7.1": "10 to 30",
      "8.2": "10 to 30",
      "10.1": "10 to 30",
      "12.1": "20 to 30",
      "13.1": "20 to 30",
    });
    expect((await line.ledger.readItem(refOf(main, 6))).fields).toMatchObject({ cancel: "1" });
    expect((await standingOf(line, main)).paused).toMatch(/^paused by a person/);
    expect(await line.ledger.failuresOf(ACCOUNT, main), "the redriven one has left its group").toEqual([]);

    expect((await line.jobs(QUEUE_NAMES.record)).map(({ id }) => id)).toContain(`${main}-11-1`);
    await record(line, refOf(main, 11));
    await record(line, refOf(main, 11));
    expect(await readReceipt(line.bucket, refOf(main, 11)), "as it was").toEqual(receipt);
    await end(line, refOf(main, 4), savedAs(refOf(main, 4)));
    expect((await standingOf(line, main)).sums, "items 0, 2, 4, 11; 9 had failed").toEqual({
      predict_time_ms: 8_000n,
      output_bytes: 280_000n,
      output_files: 4n,
      not_saved: 0n,
    });
    expect((await statesOf(line, main))[11]).toBe("1 saved");

    expect(await statesOf(line, other)).toEqual(["1 unclear", "1 unclear", "1 recording"]);
    await record(line, refOf(other, 2));
    expect((await statesOf(line, other))[2]).toBe("1 canceled");
    expect(await statesOf(line, late)).toEqual(["1 waiting", "1 waiting"]);
    expect(await statesOf(line, singles), "the second had come before Redis was lost").toEqual([
      "1 unclear",
      "1 canceled",
      "1 unclear",
    ]);
    await feed(line);
    expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toMatchObject([{ id: `${late}-0-1` }, { id: `${late}-1-1` }]);
  });

  test("an item can't have been bought before it was given out, or came, however long ago the last claim was", async ({
    line,
  }) => {
    await line.clear();
    const old = await submit(line, "old", 1);
    await feed(line);
    await buy(line, refOf(old, 0));
    line.clock.forward(2 * HOUR);
    const batch = await submit(line, "b", 6);
    await feed(line, { createBacklog: async () => 6 });
    line.clock.forward(10 * SECOND);
    const { batch: singles } = await admit(line, "a");
    await feed(line, { createBacklog: async () => 0 });
    line.clock.forward(10 * SECOND);
    await admit(line, "b");
    const restore = await remember(line);
    line.clock.forward(10 * SECOND);
    await restore();
    await reopen(line);
    const at = (seconds: number) => `${7_200 + seconds} to 7230`;
    const first = Object.fromEntries([0, 1, 2, 3].map((index) => [`${index}.1`, at(0)]));
    expect(await spansOf(line, batch)).toEqual({ ...first, "4.1": at(10), "5.1": at(10) });
    expect(await spansOf(line, singles)).toEqual({ "0.1": at(10), "1.1": at(20) });
  });

  test("an item that a person canceled meanwhile, and that surely wasn't bought, ends with its receipt", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 3);
    const restore = await remember(line);
    await restore();
    expect(await cancelOne(line, refOf(batch, 1)), "nobody knows yet").toBe("waiting");
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["1 waiting", "1 canceled", "1 waiting"]);
    expect(await readReceipt(line.bucket, refOf(batch, 1))).toMatchObject({ status: "canceled", prediction_id: null });

    await line.redis.flushall();
    await cancelOneUnknown(line, batch, 2);
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["1 waiting", "1 canceled", "1 canceled"]);
    expect(await readReceipt(line.bucket, refOf(batch, 2))).toMatchObject({ status: "canceled" });
  });

  test("an item that a person cancels while the account is reopened isn't bought once it is open", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 4);
    await feed(line, { windowRows: 2, createBacklog: async () => 8 });
    const restore = await remember(line);
    await restore();
    const said: string[] = [];
    // Its batch was looked at, and the account isn't open yet.
    const restoreLimits = async () => void said.push(await cancelOne(line, refOf(batch, 3)));
    await reopen(line, { restoreLimits });
    expect(said).toEqual(["waiting"]);
    expect(await statesOf(line, batch)).toEqual(["1 unclear", "1 unclear", "1 waiting", "1 canceled"]);
    expect(await readReceipt(line.bucket, refOf(batch, 3))).toMatchObject({ status: "canceled" });
  });

  test("the notes of a batch's windows are read once, however many items are unclear", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 1_100);
    const createBacklog = async () => 0;
    while ((await standingOf(line, batch)).cursor < 1_100) {
      await feed(line, { windowRows: 550, createsPerMinute: 60_000, createBacklog });
    }
    const restore = await remember(line);
    await restore();
    const read: string[] = [];
    const bucket = wrappedBucket(line.bucket, {
      get: (key, options) => {
        if (key.includes("/windows/")) read.push(key);
        return line.bucket.get(key, options);
      },
    });
    expect(await reopen(line, { bucket })).toMatchObject({ unclear: 1_100 });
    const notes = [OBJECT_KEYS.window(batch, 0), OBJECT_KEYS.window(batch, 550)];
    expect(read.filter((key) => notes.some((note) => note === key))).toEqual(notes);
  });

  test("a redriven item whose row had never been given out may have been bought all the same", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 3);
    await cancelOne(line, refOf(batch, 2));
    await redrive(line, batch, { ends: new Set(["canceled"]) });
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await buy(line, refOf(batch, 2, 2));
    await restore();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["1 waiting", "1 waiting", "2 unclear"]);
    await feed(line);
    expect((await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id)).not.toContain(`${batch}-2-2`);
  });

  test("a retry that is decided only now opens an attempt that may have been bought; one decided later doesn't", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 2, 1);
    await feed(line);
    for (const index of [0, 1]) await buy(line, refOf(batch, index));
    const ref = refOf(batch, 0);
    await line.ledger.move(ref, "conclude", {
      nowMs: line.clock(),
      set: { ending: await keepEnding(line.bucket, ref, INTERRUPTED) },
    });
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await record(line, ref);
    await buy(line, refOf(batch, 0, 2));
    await restore();
    line.clock.forward(SECOND);
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["1 recording", "1 running"]);
    await record(line, ref);
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "1 running"]);
    expect(await spansOf(line, batch)).toEqual({ "0.2": "1 to 2" });
    line.clock.forward(HOUR);
    await end(line, refOf(batch, 1), INTERRUPTED);
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "2 waiting"]);
  });

  test("a retry that is decided before the account is reopened opens an attempt that may have been bought, too", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 1, 1);
    await feed(line);
    await buy(line, refOf(batch, 0));
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await end(line, refOf(batch, 0), INTERRUPTED);
    await buy(line, refOf(batch, 0, 2));
    await restore();
    line.clock.forward(SECOND);
    await end(line, refOf(batch, 0), INTERRUPTED);
    expect(await statesOf(line, batch)).toEqual(["2 unclear"]);
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["2 unclear"]);
    expect(await spansOf(line, batch)).toEqual({ "0.2": "1 to 2" });
  });

  test("an item that had ended, and was redriven, in the moments that were lost may have been bought again", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 2);
    await feed(line);
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await buyAndEnd(line, refOf(batch, 0), FAILED);
    await redrive(line, batch);
    await buy(line, refOf(batch, 0, 2));
    line.clock.forward(SECOND);
    await restore();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["1 recording", "1 unclear"]);
    await record(line, refOf(batch, 0));
    await record(line, refOf(batch, 0));
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "1 unclear"]);
    expect(await spansOf(line, batch)).toMatchObject({ "0.2": "1 to 2" });
    expect(await line.ledger.failuresOf(ACCOUNT, batch)).toEqual([]);
  });

  test.for(["running", "recording"] as const)(
    "an item that had ended, and was redriven and bought again, and is %s once more is followed by its next attempt",
    async (state, { line }) => {
      await line.clear();
      const batch = await submit(line, "b", 2);
      const ref = refOf(batch, 0);
      await feed(line);
      await buy(line, ref);
      const conclude = async () => {
        const ending = await keepEnding(line.bucket, ref, FAILED);
        await line.ledger.move(ref, "conclude", { nowMs: line.clock(), set: { ending } });
      };
      if (state === "recording") await conclude();
      const restore = await remember(line);
      line.clock.forward(SECOND);
      if (state === "running") await conclude();
      await record(line, ref);
      await redrive(line, batch);
      await buy(line, refOf(batch, 0, 2));
      line.clock.forward(SECOND);
      await restore();
      await reopen(line);
      expect(await statesOf(line, batch)).toEqual([`1 ${state}`, "1 unclear"]);
      expect((await line.ledger.readItem(ref)).fields).toMatchObject({ redriven: String(NOON + SECOND) });

      if (state === "running") await conclude();
      for (let times = 0; times < 2; times++) await record(line, ref);
      expect(await statesOf(line, batch), "and nobody buys it a third time").toEqual(["2 unclear", "1 unclear"]);
      expect(await spansOf(line, batch)).toMatchObject({ "0.2": "1 to 2" });
      expect(await line.ledger.failuresOf(ACCOUNT, batch)).toEqual([]);
    },
  );

  test.for([
    ["that Redis's last sure word may not know yet", 30 * SECOND, "2 unclear"],
    ["that Redis's last sure word would know", 30 * SECOND + 1, "1 failed"],
  ] as const)("a redrive %s: %i ms older than it, the item is %s", async ([_which, ageMs, state], { line }) => {
    await line.clear();
    const batch = await submit(line, "b", 3);
    await feed(line);
    await buyAndEnd(line, refOf(batch, 0), FAILED);
    // Whoever said so died between the act and its effect.
    await writeBatchAct(line.bucket, batch, 1, { act: "redrive", items: [[0, 1]] }, line.clock());
    line.clock.forward(ageMs);
    await buy(line, refOf(batch, 1));
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await restore();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual([state, "1 running", "1 unclear"]);
    expect(await line.ledger.failuresOf(ACCOUNT, batch)).toHaveLength(state === "1 failed" ? 1 : 0);
  });

  test("an attempt can't have been bought before the one it follows was recorded, or before a person said so", async ({
    line,
  }) => {
    await line.clear();
    const batch = await submit(line, "b", 2, 1);
    await feed(line);
    for (const index of [0, 1]) await buy(line, refOf(batch, index));
    line.clock.forward(5 * SECOND);
    await end(line, refOf(batch, 0), INTERRUPTED);
    await end(line, refOf(batch, 1), FAILED);
    line.clock.forward(3 * SECOND);
    await redrive(line, batch, { indexes: [[1, 1]] });
    expect(await statesOf(line, batch)).toEqual(["2 waiting", "2 waiting"]);
    const restore = await remember(line);
    line.clock.forward(2 * SECOND);
    await restore();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "2 unclear"]);
    expect(await spansOf(line, batch), "though the last claim that Redis knows of is of noon").toEqual({
      "0.2": "5 to 10",
      "1.2": "8 to 10",
    });
  });

  test("a redrive that was lost, of a batch whose cancel was being walked, comes after the walk", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 4);
    await feed(line, { createBacklog: async () => 8 });
    await buyAndEnd(line, refOf(batch, 0), FAILED);
    await holdBatch(await standingOf(line, batch), "cancel", line);
    const restore = await remember(line);
    await feed(line);
    await redrive(line, batch);
    await buy(line, refOf(batch, 0, 2));
    await restore();
    await reopen(line);
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "1 canceled", "1 canceled", "1 canceled"]);
    expect(await standingOf(line, batch)).toMatchObject({ canceledAtMs: null });
    expect(await line.ledger.cancelingBatches(ACCOUNT, 10)).toEqual([]);
  });

  test.for([
    { said: ["pause"], next: "resume" },
    { said: ["pause", "resume"], next: "pause" },
  ] as const)("what a person says before that is known holds: $next, after $said", async ({ said, next }, { line }) => {
    await line.clear();
    const batch = await submit(line, "b", 1);
    let restore = async () => undefined as void;
    for (const act of said) {
      // All but the last of it.
      restore = await remember(line);
      await holdBatch(await standingOf(line, batch), act, line);
      line.clock.forward(SECOND);
    }
    await restore();
    await holdBatch(await standingOf(line, batch), next, line);
    await reopen(line);
    expect((await standingOf(line, batch)).paused !== null).toBe(next === "pause");
  });

  test("a receipt that names a prediction another attempt holds by now is recorded all the same", async ({ line }) => {
    await line.clear();
    const batch = await submit(line, "b", 2);
    await feed(line);
    await buy(line, refOf(batch, 0));
    const restore = await remember(line);
    const [held] = [
      ...(await line.ledger.holdersAmong(ACCOUNT, [predictionId(`p-${batch.slice(0, 4)}-0-1`)], NOON)).keys(),
    ];
    const ref = refOf(batch, 1);
    const receipt = buildReceipt({
      ref,
      rowId: null,
      replyTo: null,
      webhookEvents: [],
      predictionId: held ?? raise("nothing is held"),
      claimedAtMs: NOON,
      recordedAtMs: NOON,
      ending: savedAs(ref),
      earlier: [],
    });
    await writeReceipt(line.bucket, ref, receipt);
    await restore();
    await reopen(line);
    await record(line, ref);
    expect(await statesOf(line, batch)).toEqual(["1 running", "1 saved"]);
  });
});

/** As the API does it, where Redis doesn't know the batch: the act is written, and nothing else. */
async function cancelOneUnknown(line: Line, batch: BatchId, index: number): Promise<void> {
  await writeBatchAct(line.bucket, batch, 10, { act: "cancel", items: [index] }, line.clock());
}

// ── whoever does it ───────────────────────────────────────────────────────────

describe("an account", () => {
  test("that nobody has bought for is opened, and nothing is lost", async ({ line }) => {
    await line.clear();
    await line.redis.hdel(REDIS_KEYS.account(ACCOUNT), "opened_on");
    expect(await reopen(line)).toEqual({ batches: 0, rebuilt: 0, unclear: 0 });
    expect(await line.ledger.opening(ACCOUNT)).toMatchObject({ lastClaimMs: null, lostByMs: null });
    expect(await reopen(line)).toBeNull();
  });

  test("that is opened first after its first batch came has lost nothing: a retry is bought without evidence", async ({
    line,
  }) => {
    await line.clear();
    await line.redis.hdel(REDIS_KEYS.account(ACCOUNT), "opened_on");
    const batch = await submit(line, "b", 2, 1);
    await reopen(line);
    await feed(line);
    await buyAndEnd(line, refOf(batch, 0), INTERRUPTED);
    expect(await statesOf(line, batch)).toEqual(["2 waiting", "1 waiting"]);
    // The next Redis is another matter, though it knows of no opening either.
    await line.redis.flushall();
    await reopen(line);
    expect(await line.ledger.opening(ACCOUNT)).toMatchObject({ lostByMs: line.clock() });
    expect(await statesOf(line, batch)).toEqual(["2 unclear", "1 unclear"]);
  });

  test("isn't reopened after a restart of a Redis that loses nothing; after a loss of its data it is", async ({
    line,
  }) => {
    const { main, restore } = await goOn(await openWorld(line));
    await restore();
    const before = await statesOf(line, main);
    expect(await reopen(line, { restartLosesNothing: true })).toBeNull();
    expect(await statesOf(line, main)).toEqual(before);
    expect((await line.ledger.opening(ACCOUNT)).on).toBe(await line.ledger.readIdentity(ACCOUNT));
    await line.redis.flushall();
    expect(await reopen(line, { restartLosesNothing: true })).toMatchObject({ rebuilt: 4 });
  });

  test("that two reopen at once stands as if one had", async ({ line }) => {
    const once = async (times: number) => {
      const { main, other, singles, restore } = await goOn(await openWorld(line));
      await restore();
      await Promise.all(Array.from({ length: times }, () => reopen(line)));
      return Promise.all(
        [main, other, singles].map(async (batch) => [await statesOf(line, batch), await spansOf(line, batch)]),
      );
    };
    expect(await once(2)).toEqual(await once(1));
  });

  test("that is open by now has nothing more called unclear", async ({ line }) => {
    const { main } = await openWorld(line);
    const given = { fed: 14, cursor: 14 };
    const lost = { fromMs: NOON, toMs: NOON + SECOND };
    expect(await line.ledger.doubtLost({ id: main, account: ACCOUNT }, given, [7, 12], lost)).toBeNull();
    expect(await statesOf(line, main)).toEqual(MAIN);
    expect((await standingOf(line, main)).cursor).toBe(10);
  });
});

describe("killed after any effect and run again twice, a reopening", () => {
  const small = async (line: Line) => {
    await line.clear();
    const batch = await submit(line, "b", 6, 1);
    await feed(line, { windowRows: 3, createBacklog: async () => 7 });
    await buyAndEnd(line, refOf(batch, 0), INTERRUPTED);
    return batch;
  };
  const more = async (line: Line, batch: BatchId) => {
    line.clock.forward(SECOND);
    await buyAndEnd(line, refOf(batch, 0, 2), FAILED);
    await redrive(line, batch);
    await buyAndEnd(line, refOf(batch, 1), savedAs(refOf(batch, 1)));
    await cancelOne(line, refOf(batch, 5));
    await admit(line, "a");
    await holdBatch(await standingOf(line, batch), "pause", line);
  };

  test.for(["emptied", "behind"])(
    "of a Redis that was %s ends as if nothing had happened",
    { timeout: 120_000 },
    async (how, { line }) => {
      type Run = { readonly batch: BatchId };
      const { undisturbed, crashes } = await everyCrash<Run, unknown>({
        async open() {
          const batch = await small(line);
          const restore = await remember(line);
          await more(line, batch);
          await (how === "emptied" ? line.redis.flushall() : restore());
          return { batch };
        },
        run: (_world, wrap) => reopenAccount(ACCOUNT, wrap(depsOf(line))),
        look: async ({ batch }) => {
          // As the keeper does it for an item that is to be recorded and has no errand.
          for (const ref of await line.ledger.untouched(ACCOUNT, line.clock(), 100)) {
            if ((await line.ledger.readItem(ref)).state === "recording") await line.queues.record(ref);
          }
          const { objects, redis, errands } = await line.look();
          // The note names the process's data, which are others each time.
          const { [OBJECT_KEYS.redisNote(ACCOUNT, 1)]: note, ...rest } = objects;
          expect(note).toBeDefined();
          return { objects: rest, redis, errands, states: await statesOf(line, batch) };
        },
      });
      expect(crashes.map(({ diedAfter }) => diedAfter)).toContain(how === "emptied" ? "restoreBatch" : "doubtLost");
      expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("noteOpened");
      for (const { diedAfter, n, seen } of crashes) expect(seen, `died after ${diedAfter} (${n})`).toEqual(undisturbed);
    },
  );
});

test("an errand of the record that was given by a reopening, and died, is the keeper's to find", async ({ line }) => {
  const { main, restore } = await goOn(await openWorld(line));
  await restore();
  await reopen(line);
  expect(await line.ledger.untouched(ACCOUNT, line.clock(), 100)).toContainEqual(refOf(main, 11));
  await recordMetrics(refOf(main, 11), recordEffects(line));
  expect(await line.ledger.untouched(ACCOUNT, line.clock(), 100)).not.toContainEqual(refOf(main, 11));
});

describe("rates that a person set", () => {
  /** As a worker does when it starts, or finds that Redis is another. */
  const configure = ({ ledger, queues, clock }: Line, settings = LIMITED) =>
    openGate(settings, { ledger, queues, clock, mark: () => "a probe" }).configure();
  const reopenAs = (line: Line, settings: typeof LIMITED) =>
    reopen(line, { restoreLimits: () => restoreLimits(settings, line) });
  const rates = async ({ ledger }: Line) => {
    const { creates, reads } = (await ledger.readBudgets(ACCOUNT)).paces;
    return [creates, reads].map((pace) => pace && `${pace.perMinute}${pace.byHand ? " by hand" : ""}`);
  };

  test("stand on a Redis that was emptied, for workers that start later, too", async ({ line }) => {
    await configure(line);
    await limitAccount(ACCOUNT, { creates: 120 }, line);
    await limitAccount(ACCOUNT, { creates: 60, reads: 900 }, line);
    await limitAccount(ACCOUNT, { reads: null }, line);
    for (const first of ["the account is opened", "a worker has started"]) {
      await line.redis.flushall();
      if (first === "a worker has started") await configure(line);
      await reopen(line);
      expect((await rates(line))[0], first).toBe("60 by hand");
      await configure(line);
      expect(await rates(line), first).toEqual(["60 by hand", "3000"]);
    }
  });

  test("are those of the last act, where Redis lost only that", async ({ line }) => {
    await openWorld(line);
    await configure(line);
    await limitAccount(ACCOUNT, { creates: 120, reads: 900 }, line);
    const restore = await remember(line);
    line.clock.forward(SECOND);
    await limitAccount(ACCOUNT, { creates: 60, reads: null }, line);
    await restore();
    expect(await rates(line)).toEqual(["120 by hand", "900 by hand"]);
    await reopen(line);
    expect(await rates(line)).toEqual(["60 by hand", "3000"]);
  });

  test("give way to settings that changed since, as they do where nothing is lost", async ({ line }) => {
    await configure(line);
    await limitAccount(ACCOUNT, { creates: 60, reads: 900 }, line);
    await line.redis.flushall();
    const changed = { ...LIMITED, createsPerMinute: 1_200 };
    await configure(line, changed);
    await reopenAs(line, changed);
    expect(await rates(line)).toEqual(["1200", "900 by hand"]);
  });
});

describe("an account that can't be opened", () => {
  test("stays closed, says why where people look, and opens when that is mended", async ({ line }) => {
    const batch = await submit(line, "b", 2);
    const key = OBJECT_KEYS.batch(batch);
    const whole = await line.bucket.get(key, { maxBytes: 10_000 });
    const report = async () => {
      const [account, ofBatch] = [await reportAccount(ACCOUNT, line), await reportBatch(line.ledger, batch)];
      return { account: account.unopened, batch: ofBatch?.unopened, state: ofBatch?.state };
    };
    await line.redis.hdel(REDIS_KEYS.account(ACCOUNT), "opened_on");
    expect(await report()).toEqual({ account: null, batch: null, state: "open" });

    await line.bucket.put(key, "{ damaged", JSON_TYPE);
    await expect(reopen(line)).rejects.toThrow(/batch\.json isn't what Outlast wrote there/);
    const reason = expect.stringMatching(
      /^account \S+ can't be opened on this Redis: \S+batch\.json isn't what Outlast wrote there; was it edited\?; once that is mended it opens by itself$/,
    );
    // Nobody paused it: who waits for the batch goes on waiting.
    expect(await report()).toEqual({ account: reason, batch: reason, state: "open" });

    await line.bucket.put(key, whole ?? raise("no batch"), JSON_TYPE);
    expect(await reopen(line)).not.toBeNull();
    expect(await report()).toEqual({ account: null, batch: null, state: "open" });
  });
});

function raise(message: string): never {
  throw new Error(message);
}
