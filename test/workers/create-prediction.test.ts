import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { openExpectations } from "../../src/batches/expect-runs.ts";
import { reopenAccount } from "../../src/batches/reopen-account.ts";
import type { SingleInput } from "../../src/batches/single-input.ts";
import { withdrawItem } from "../../src/batches/withdraw-item.ts";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import { readRow } from "../../src/bucket/input-parts.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import { noteWindow } from "../../src/bucket/window-notes.ts";
import type { ItemState } from "../../src/core/item.ts";
import {
  type BatchId,
  errandId,
  itemId,
  notifyJobId,
  parseItemId,
  QUEUE_NAMES,
  REDIS_KEYS,
} from "../../src/core/naming.ts";
import { DEFAULT_POLL_POLICY } from "../../src/core/polling.ts";
import { type Prediction, type PredictionId, predictionId } from "../../src/core/prediction.ts";
import { bucketOf, upperBoundMs } from "../../src/core/run-times.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { type Provider, ProviderError } from "../../src/providers/provider.ts";
import type { CreateErrand } from "../../src/queues/queues.ts";
import { type CreateDeps, createPrediction } from "../../workers/create-prediction.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, MODEL, NOON, predictionOf, test } from "../support/stages.ts";

/** A provider that answers as it is told, and keeps the books. */
function providerThat(
  answer: (n: number) => Prediction | Error,
): Pick<Provider, "create"> & { readonly books: unknown[] } {
  const books: unknown[] = [];
  return {
    books,
    async create(request) {
      const made = answer(books.length);
      // What it refuses, it doesn't book.
      if (!(made instanceof ProviderError && made.kind !== "unknown")) books.push(request);
      if (made instanceof Error) throw made;
      return made;
    },
  };
}

const answerNumber = (n: number): Prediction => predictionOf(`p${n}`);

const refused = (status: number, retryAfterMs: number | null = null) =>
  new ProviderError("no", { kind: "refused", status, detail: `says ${status}`, retryAfterMs });
const notSent = new ProviderError("no", { kind: "not-sent", detail: "connect ECONNREFUSED" });
const unknown = new ProviderError("no", { kind: "unknown", detail: "the connection broke" });

type World = {
  readonly line: Line;
  readonly batch: BatchId;
  readonly errand: CreateErrand;
  readonly provider: ReturnType<typeof providerThat>;
};

async function openWorld(line: Line, answer: (n: number) => Prediction | Error): Promise<World> {
  await line.clear();
  const batch = await line.submit([{ prompt: "a" }, { prompt: "b" }]);
  return { line, batch, errand: await line.createErrand(batch, 0), provider: providerThat(answer) };
}

const REPLIES = "producer-replies";

/** A single whose client waits for it in every way that there is. */
async function openSingle(
  line: Line,
  answer: (n: number) => Prediction | Error,
  asked: Partial<Pick<SingleInput, "cancelAfterMs" | "webhook">> = {},
): Promise<World> {
  await line.clear();
  const { bucket, ledger, queues, clock } = line;
  const { item } = await openAdmission({ bucket, ledger, queues, clock }).admit({
    tenant: "default",
    account: ACCOUNT,
    identity: null,
    row: { input: { prompt: "a" }, target: MODEL },
    replyTo: REPLIES,
    cancelAfterMs: null,
    webhook: { url: "https://client.example/hook", events: ["start", "completed"], base_url: "http://127.0.0.1" },
    ...asked,
  });
  const batch = parseItemId(item)?.batch;
  if (batch === undefined) throw new Error(`not an item: ${item}`);
  return { line, batch, errand: await line.createErrand(batch, 0), provider: providerThat(answer) };
}

let nonces = 0;
function depsOf({ line, provider }: World): CreateDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    readRow: (errand) => readRow(bucket, errand.batch, errand.place),
    move: ledger.move,
    withdraw: (ref, row, why) => withdrawItem(ref, row, why, { bucket, ledger, queues, clock }),
    provider,
    webhookFor: () => null,
    pauseAccount: async (reason) => {
      await ledger.pauseAccount(ACCOUNT, reason);
    },
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    expect: openExpectations(ACCOUNT, { ledger, clock }).expect,
    bookDuplicate: async (ref, prediction) => ledger.addDuplicate(ref, prediction),
    isOpen: ledger.isOpen,
    readItem: ledger.readItem,
    pause: async () => undefined,
    warn: () => undefined,
    enqueueRecord: queues.record,
    enqueueNotify: queues.notify,
    enqueueFinish: (ref) => queues.finish(ref.account, ref.batch),
    nonce: () => `nonce-${nonces++}`,
    waitForTurn: async () => undefined,
    clock,
    random: () => 0.5,
    policy: DEFAULT_POLL_POLICY,
  };
}

const signal = new AbortController().signal;
const run = (world: World, deps = depsOf(world)) => createPrediction(world.errand, deps, signal);
const stateOf = async ({ line, errand }: World): Promise<ItemState> => (await line.ledger.readItem(errand)).state;
const follows = ({ line }: World) => line.jobs(QUEUE_NAMES.follow(ACCOUNT));
const records = ({ line }: World) => line.jobs(QUEUE_NAMES.record);
const told = async ({ line }: World) => (await line.jobs(QUEUE_NAMES.notify)).map(({ id }) => id);
const finishes = async ({ line }: World) => (await line.jobs(QUEUE_NAMES.finish)).map(({ id }) => id);

describe("one create", () => {
  test("is sent, bound and put on its way to be followed", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([
      { target: MODEL, input: { prompt: "a" }, cancelAfterMs: DEFAULT_POLL_POLICY.deadlineMs },
    ]);
    expect(await line.ledger.readItem(world.errand)).toMatchObject({
      state: "running",
      fields: { prediction_id: "p0", intent_at: String(NOON) },
    });
    expect(await follows(world)).toEqual([
      { id: errandId(world.errand), data: [ACCOUNT, "p0", NOON, null], delay: 2_000, priority: 0 },
    ]);
    expect(await told(world), "a row of a file has no client").toEqual([]);
  });

  test("whose end a webhook will tell says so to who follows it, and the poll is a net", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await run(world, { ...depsOf(world), webhookFor: () => "https://outlast.example/hook" });
    expect(world.provider.books).toMatchObject([{ webhookUrl: "https://outlast.example/hook" }]);
    expect(await follows(world)).toMatchObject([{ data: [ACCOUNT, "p0", NOON, null, 1], delay: 30_000 }]);
  });

  test("is polled first when half of its model's runs have ended", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    for (let runs = 0; runs < 10; runs++) await line.ledger.learnRun(ACCOUNT, "outlast/text", 20_000, NOON);
    await run(world);
    expect(await follows(world)).toMatchObject([{ delay: upperBoundMs(bucketOf(20_000)) }]);
  });

  test("tells a client that wants to know that its prediction begins, also where the first run died after it", async ({
    line,
  }) => {
    const world = await openSingle(line, answerNumber);
    await run(world);
    expect(await told(world)).toEqual([notifyJobId(world.errand, "start")]);
    expect((await line.ledger.readItem(world.errand)).fields).toMatchObject({
      reply_to: REPLIES,
      webhook_events: "start,completed",
    });

    const silent = await openSingle(line, answerNumber, {
      webhook: { url: "https://client.example", events: ["completed"], base_url: "http://127.0.0.1" },
    });
    await run(silent);
    expect(await told(silent)).toEqual([]);

    const again = await openSingle(line, answerNumber);
    await line.ledger.move(again.errand, "claim", { nowMs: NOON, nonce: "a dead worker's" });
    await line.ledger.move(again.errand, "bind", { nowMs: NOON, predictionId: predictionId("p0") });
    await run(again);
    expect(await told(again)).toEqual([notifyJobId(again.errand, "start")]);
    expect(await follows(again)).toHaveLength(1);
  });

  test("waits for its turn with the claim in hand, where creates must leave at even intervals", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const moments: number[] = [];
    const waitForTurn = async (takenAtMs: number) => {
      expect(await stateOf(world)).toBe("claimed");
      expect(world.provider.books).toEqual([]);
      moments.push(takenAtMs);
    };
    await run(world, { ...depsOf(world), waitForTurn });
    expect(moments).toEqual([NOON]);
    expect(world.provider.books).toHaveLength(1);
  });

  test("that waited too long for its turn is given back unsent", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const waitForTurn = async () => {
      line.clock.forward(6_000);
    };
    expect(await run(world, { ...depsOf(world), waitForTurn })).toMatchObject({ kind: "snooze" });
    expect(world.provider.books).toEqual([]);
    expect(await stateOf(world)).toBe("waiting");
  });

  test("is given back by its own late refusal, even if another run called the item unclear meanwhile", async ({
    line,
  }) => {
    const world = await openWorld(line, answerNumber);
    const deps = depsOf(world);
    const provider: CreateDeps["provider"] = {
      create: async () => {
        await run(world);
        expect(await stateOf(world)).toBe("unclear");
        throw refused(429);
      },
    };
    expect(await run(world, { ...deps, provider })).toMatchObject({ kind: "rate-limit" });
    expect(await stateOf(world)).toBe("waiting");
    expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).toEqual([{ index: 0, attempt: 1 }]);
    expect(world.provider.books).toEqual([]);
  });

  test("finds the claim of another and sends nothing", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await line.ledger.move(world.errand, "claim", { nowMs: NOON, nonce: "another's" });
    expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([]);
    expect(await stateOf(world)).toBe("unclear");
  });

  test("that comes when a later attempt runs leaves that to its own errands", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const { move, redrive } = line.ledger;
    await move(world.errand, "claim", { nowMs: NOON, nonce: "n" });
    for (const step of ["refuse", "fail"] as const) await move(world.errand, step, { nowMs: NOON });
    const carry = { prediction: predictionId("later"), set: {} };
    await redrive({ id: world.batch, account: ACCOUNT }, [{ index: 0, ended: 1, carry }], NOON);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([]);
    expect(await follows(world), "nobody polls it twice").toEqual([]);
  });

  test("binds its answer even if another run called the item unclear meanwhile", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const deps = depsOf(world);
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        const made = await world.provider.create(request, aborted);
        await run(world);
        expect(await stateOf(world)).toBe("unclear");
        return made;
      },
    };
    await run(world, { ...deps, provider });
    expect(await stateOf(world)).toBe("running");
    expect(world.provider.books).toHaveLength(1);
    expect(await follows(world)).toHaveLength(1);
  });

  /** Sends, and lets somebody do something before the answer is bound. */
  async function interrupted(world: World, meanwhile: () => Promise<unknown>, badMoments = 0): Promise<PredictionId[]> {
    const surplus: PredictionId[] = [];
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        const made = await world.provider.create(request, aborted);
        await meanwhile();
        return made;
      },
    };
    let bad = badMoments;
    const bookDuplicate: CreateDeps["bookDuplicate"] = async (_ref, prediction) => {
      if (bad-- > 0) throw new Error("the bucket has a bad moment");
      surplus.push(prediction);
    };
    expect(await run(world, { ...depsOf(world), provider, bookDuplicate })).toEqual({ kind: "done" });
    return surplus;
  }

  test("books its prediction as a duplicate where the attempt holds another by now", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const other = { nowMs: NOON, predictionId: predictionId("other") };
    expect(await interrupted(world, () => line.ledger.move(world.errand, "bind", other))).toEqual(["p0"]);
    expect((await line.ledger.readItem(world.errand)).fields.prediction_id).toBe("other");
  });

  test("books it also where the bucket has a bad moment: nobody else knows of it", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const other = { nowMs: NOON, predictionId: predictionId("other") };
    const meanwhile = () => line.ledger.move(world.errand, "bind", other);
    expect(await interrupted(world, meanwhile, 3)).toEqual(["p0"]);
  });

  test("binds its prediction, however late, where the attempt was given up and has none", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const surplus = await interrupted(world, async () => {
      await line.ledger.move(world.errand, "doubt", { nowMs: NOON });
      await line.ledger.move(world.errand, "giveBack", { nowMs: NOON });
    });
    expect(surplus).toEqual([]);
    expect(await line.ledger.readItem(world.errand)).toMatchObject({
      state: "running",
      fields: { prediction_id: "p0" },
    });
    expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10), "and the feed doesn't give it out").toEqual([]);
    expect(await follows(world)).toHaveLength(1);
  });

  test("waits with its answer for a Redis that was emptied under it, and binds it there", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const { bucket, ledger, queues, clock } = line;
    const reopened = async () => {
      const nothing = { restoreLimits: async () => undefined, tell: () => undefined };
      await reopenAccount(ACCOUNT, { bucket, ledger, queues, restartLosesNothing: false, ...nothing, clock });
    };
    await noteWindow(bucket, world.batch, { first: 0, last: 1, notedAtMs: NOON });
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        const made = await world.provider.create(request, aborted);
        await line.redis.flushall();
        return made;
      },
    };
    const surplus: string[] = [];
    const bookDuplicate: CreateDeps["bookDuplicate"] = async (_ref, prediction) => {
      surplus.push(prediction);
    };
    expect(await run(world, { ...depsOf(world), provider, pause: reopened, bookDuplicate })).toEqual({ kind: "done" });
    expect(surplus).toEqual([]);
    expect(await ledger.readItem(world.errand)).toMatchObject({ state: "running", fields: { prediction_id: "p0" } });
    expect(await follows(world)).toHaveLength(1);
  });

  test("tells the prediction of an item that nobody comes to know again, and books nothing", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const told: unknown[] = [];
    const later = { ...world.errand, attempt: 1 };
    const move: CreateDeps["move"] = async (ref, step, options) =>
      step === "claim" ? line.ledger.move(later, step, options) : line.ledger.move(ref, step, options);
    const deps = { ...depsOf(world), move, warn: (fields: unknown) => told.push(fields) };
    const errand = { ...world.errand, attempt: 2 };
    await createPrediction(errand, deps, new AbortController().signal);
    expect(told).toEqual([{ item: errandId(errand), prediction: "p0" }]);
    expect((await line.ledger.standing(ACCOUNT, world.batch))?.duplicates).toBe(0);
  });

  test("tells the prediction that Redis won't take to the last, before its errand fails", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const told: unknown[] = [];
    const move: CreateDeps["move"] = async (ref, step, options) => {
      if (step === "bind") throw new Error("NOBATCH");
      return line.ledger.move(ref, step, options);
    };
    const deps = { ...depsOf(world), move, warn: (fields: unknown) => told.push(fields) };
    await expect(run(world, deps)).rejects.toThrow("NOBATCH");
    expect(told).toEqual([{ item: errandId(world.errand), prediction: "p0", err: expect.any(Error) }]);
  });

  test("is unclear where its twin got the prediction that its own answer names", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const twin = { ...world.errand, index: 1 };
    const surplus = await interrupted(world, async () => {
      await line.ledger.move(twin, "claim", { nowMs: NOON, nonce: "twin" });
      await line.ledger.move(twin, "bind", { nowMs: NOON, nonce: "twin", predictionId: predictionId("p0") });
    });
    expect(surplus).toEqual([]);
    expect([await stateOf(world), (await line.ledger.readItem(twin)).state]).toEqual(["unclear", "running"]);
  });

  test("gives its claim back, unsent, if the claim took too long or the process is stopping", async ({ line }) => {
    for (const trouble of ["slow", "stopping"] as const) {
      const world = await openWorld(line, answerNumber);
      const deps = depsOf(world);
      const stop = new AbortController();
      const move: CreateDeps["move"] = async (ref, step, options) => {
        const answer = await deps.move(ref, step, options);
        if (step === "claim" && trouble === "slow") line.clock.forward(5_001);
        if (step === "claim" && trouble === "stopping") stop.abort();
        return answer;
      };
      const outcome = await createPrediction(world.errand, { ...deps, move }, stop.signal);
      expect(outcome).toEqual({ kind: "snooze", untilMs: line.clock() + 1_000 });
      expect(world.provider.books, trouble).toEqual([]);
      expect(await stateOf(world)).toBe("waiting");
    }
  });

  test("is not made while the account is paused; the row goes back to the feed", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await line.ledger.pauseAccount(ACCOUNT, "credit");
    expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([]);
    expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).toEqual([{ index: 0, attempt: 1 }]);
  });

  test("is not made while its batch is paused; the row waits for the batch", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await line.ledger.pauseBatch({ account: ACCOUNT, id: world.batch }, "a person said so");
    expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([]);
    expect(await stateOf(world)).toBe("waiting");
    expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).toEqual([{ index: 0, attempt: 1 }]);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
  });

  test("of an item that has ended changes nothing", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    for (const step of ["claim", "refuse", "fail"] as const) {
      await line.ledger.move(world.errand, step, { nowMs: NOON, nonce: "n" });
    }
    const before = await line.look();
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await line.look()).toEqual(before);
    expect(world.provider.books).toEqual([]);
  });
});

describe("what a failed create leads to", () => {
  type Case = readonly [what: string, failure: Error, outcome: unknown, state: ItemState, paused: string | null];
  const again = { kind: "snooze", untilMs: NOON + 5_000 };
  test.for<Case>([
    ["never sent", notSent, again, "waiting", null],
    ["429 that names no time", refused(429), { kind: "rate-limit", forMs: 10_000 }, "waiting", null],
    ["429 that names a time", refused(429, 7_000), { kind: "rate-limit", forMs: 7_000 }, "waiting", null],
    ["401", refused(401), { kind: "done" }, "waiting", "401: says 401"],
    ["402", refused(402), { kind: "done" }, "waiting", "402: says 402"],
    ["400", refused(400), { kind: "done" }, "recording", null],
    ["404", refused(404), { kind: "done" }, "recording", null],
    ["422", refused(422), { kind: "done" }, "recording", null],
    ["unknown", unknown, { kind: "done" }, "unclear", null],
  ])("%s", async ([, failure, outcome, state, paused], { line }) => {
    const world = await openWorld(line, () => failure);
    expect(await run(world)).toEqual(outcome);
    expect(await stateOf(world)).toBe(state);
    expect(await line.ledger.pausedReason(ACCOUNT)).toBe(paused);
    expect(await follows(world)).toEqual([]);
    expect((await records(world)).length).toBe(state === "recording" ? 1 : 0);
    expect((await line.ledger.returnedRows(ACCOUNT, world.batch, 10)).length).toBe(paused === null ? 0 : 1);
    if (state === "recording") {
      const { fields } = await line.ledger.readItem(world.errand);
      const ending = await readEnding(line.bucket, world.errand, fields.ending ?? "");
      expect(ending).toEqual({
        end: "failed",
        error: failure instanceof ProviderError ? failure.detail : "",
        answer: null,
        copied: [],
      });
    }
  });

  test("a defect of ours is thrown, and the next run calls the item unclear", async ({ line }) => {
    const world = await openWorld(line, () => new TypeError("a defect"));
    await expect(run(world)).rejects.toThrow("a defect");
    await run(world);
    expect(await stateOf(world)).toBe("unclear");
    expect(world.provider.books).toHaveLength(1);
  });
});

describe("a prediction with a deadline of its own", () => {
  test.for<readonly [string, cancelAfterMs: number | null, waitedMs: number, sentMs: number]>([
    ["none", null, 10 * SECOND, DEFAULT_POLL_POLICY.deadlineMs],
    ["a minute", MINUTE, 0, MINUTE],
    ["a minute, of which some is over", MINUTE, 50 * SECOND, 10 * SECOND],
    ["more than is allowed to any", 24 * HOUR, 10 * SECOND, DEFAULT_POLL_POLICY.deadlineMs],
  ])("tells the provider what is left of it: %s", async ([, cancelAfterMs, waitedMs, sentMs], { line }) => {
    const world = await openSingle(line, answerNumber, { cancelAfterMs });
    line.clock.forward(waitedMs);
    await run(world);
    expect(world.provider.books).toEqual([{ target: MODEL, input: { prompt: "a" }, cancelAfterMs: sentMs }]);
    const deadlineAtMs = cancelAfterMs === null ? null : NOON + cancelAfterMs;
    expect(await follows(world)).toMatchObject([{ data: [ACCOUNT, "p0", NOON + waitedMs, deadlineAtMs] }]);
    const { fields } = await line.ledger.readItem(world.errand);
    expect(fields.deadline_at).toBe(deadlineAtMs === null ? undefined : String(deadlineAtMs));
  });

  test("that has passed is never sent: the item ends aborted, and its client is told", async ({ line }) => {
    const world = await openSingle(line, answerNumber, { cancelAfterMs: MINUTE });
    line.clock.forward(MINUTE);
    for (let runs = 0; runs < 2; runs++) expect(await run(world)).toEqual({ kind: "done" });
    expect(world.provider.books).toEqual([]);
    expect(await stateOf(world)).toBe("canceled");
    expect(await readReceipt(line.bucket, world.errand)).toMatchObject({
      status: "canceled",
      prediction_status: "aborted",
      prediction_id: null,
      error: "its deadline (2026-11-20T12:01:00.000Z) passed before it was bought",
    });
    expect(await told(world)).toEqual([notifyJobId(world.errand, "end")]);
    expect((await line.jobs(REPLIES)).map(({ id }) => id)).toEqual([itemId(world.batch, 0)]);
    expect((await line.ledger.standing(ACCOUNT, world.batch))?.counts).toMatchObject({ waiting: 0, canceled: 1 });
  });

  test("that passes while it waits for its turn is given back unsent, and ends aborted", async ({ line }) => {
    const world = await openSingle(line, answerNumber, { cancelAfterMs: 3 * SECOND });
    const waitForTurn = async () => {
      line.clock.forward(3 * SECOND);
    };
    expect(await run(world, { ...depsOf(world), waitForTurn })).toEqual({
      kind: "snooze",
      untilMs: NOON + 4 * SECOND,
    });
    expect(await stateOf(world)).toBe("waiting");
    line.clock.forward(SECOND);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await readReceipt(line.bucket, world.errand)).toMatchObject({ prediction_status: "aborted" });
    expect(world.provider.books).toEqual([]);
  });

  test("doesn't keep what a dead worker left from being taken up", async ({ line }) => {
    const world = await openSingle(line, answerNumber, { cancelAfterMs: MINUTE });
    await line.ledger.move(world.errand, "claim", { nowMs: NOON, nonce: "a dead worker's" });
    line.clock.forward(HOUR);
    await run(world);
    expect(await stateOf(world), "perhaps it was bought").toBe("unclear");

    const bound = await openSingle(line, answerNumber, { cancelAfterMs: MINUTE });
    await line.ledger.move(bound.errand, "claim", { nowMs: NOON, nonce: "a dead worker's" });
    await line.ledger.move(bound.errand, "bind", { nowMs: NOON, predictionId: predictionId("p0") });
    line.clock.forward(HOUR);
    await run(bound);
    expect(await stateOf(bound)).toBe("running");
    expect(await follows(bound)).toMatchObject([{ data: [ACCOUNT, "p0", NOON, NOON + MINUTE] }]);
  });
});

describe("what a person canceled", () => {
  const cancelBatch = ({ line, batch }: World) =>
    line.ledger.cancelBatch({ account: ACCOUNT, id: batch }, line.clock());

  test("as a batch is not bought, and the last of its items finishes it", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await cancelBatch(world);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await stateOf(world)).toBe("canceled");
    expect(await finishes(world), "another item is left").toEqual([]);
    const other = { ...world, errand: await line.createErrand(world.batch, 1) };
    expect(await run(other)).toEqual({ kind: "done" });
    expect(await finishes(world)).toEqual([world.batch]);
    expect(world.provider.books).toEqual([]);
    expect((await line.ledger.standing(ACCOUNT, world.batch))?.counts).toMatchObject({ waiting: 0, canceled: 2 });
  });

  test("is finished by the run that finds it canceled, if the one before died in between", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    await cancelBatch(world);
    await line.ledger.walkCancel(ACCOUNT, world.batch, null, 10);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await finishes(world)).toEqual([world.batch]);
  });

  const refusals: readonly (readonly [string, ProviderError, outcome: unknown])[] = [
    ["that never left", notSent, { kind: "done" }],
    ["that was told to slow down", refused(429), { kind: "rate-limit", forMs: 10_000 }],
    ["with a wrong token", refused(401), { kind: "done" }],
  ];
  test.for(refusals)(
    "during a request %s ends with the claim that is given back, and its client is told",
    async ([, failure, outcome], { line }) => {
      const world = await openSingle(line, () => failure);
      const deps = depsOf(world);
      const provider: CreateDeps["provider"] = {
        create: async (request, aborted) => {
          expect(await line.ledger.markItem(world.errand, "cancel")).toBe("claimed");
          return world.provider.create(request, aborted);
        },
      };
      expect(await run(world, { ...deps, provider })).toEqual(outcome);
      expect(await stateOf(world)).toBe("canceled");
      expect(await readReceipt(line.bucket, world.errand)).toMatchObject({
        status: "canceled",
        prediction_status: "canceled",
        error: "canceled before it was bought",
      });
      expect(await told(world)).toEqual([notifyJobId(world.errand, "end")]);
      expect(await line.jobs(REPLIES)).toHaveLength(1);
      expect(await finishes(world)).toEqual([world.batch]);
      expect(await line.ledger.returnedRows(ACCOUNT, world.batch, 10), "nobody gets it again").toEqual([]);
    },
  );

  test("as a batch, during a request that is refused, ends with the claim that is given back", async ({ line }) => {
    const world = await openWorld(line, () => refused(401));
    const deps = depsOf(world);
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        await cancelBatch(world);
        await line.ledger.walkCancel(ACCOUNT, world.batch, null, 10);
        return world.provider.create(request, aborted);
      },
    };
    expect(await run(world, { ...deps, provider })).toEqual({ kind: "done" });
    expect((await line.ledger.standing(ACCOUNT, world.batch))?.counts).toMatchObject({ canceled: 2, waiting: 0 });
    expect(await finishes(world)).toEqual([world.batch]);
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([]);
  });

  test("during a request that is accepted is bound, and its mark is kept for follow", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        await line.ledger.markItem(world.errand, "cancel");
        return world.provider.create(request, aborted);
      },
    };
    await run(world, { ...depsOf(world), provider });
    expect(await stateOf(world)).toBe("running");
    expect(await line.ledger.takeMarks(world.errand, "starting")).toEqual({
      woken: false,
      cancel: true,
      byList: false,
    });
  });
});

describe("killed after any effect and run again twice,", () => {
  test("a single that is past its deadline ends once", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: async () => {
        const world = await openSingle(line, answerNumber, { cancelAfterMs: MINUTE });
        line.clock.forward(MINUTE);
        return world;
      },
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      // The row's nonce is chance, and so is what follows from its length.
      look: async (world) => ({
        receipt: await readReceipt(line.bucket, world.errand),
        counts: (await line.ledger.standing(ACCOUNT, world.batch))?.counts,
        told: await told(world),
        replies: await line.jobs(REPLIES),
        books: world.provider.books,
      }),
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual(["readRow", "withdraw"]);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });

  const answers: readonly (readonly [string, (n: number) => Prediction | Error, effects: number])[] = [
    ["a create that succeeds", answerNumber, 6],
    ["a create that is refused", () => refused(422), 7],
    ["a create that is told to slow down", () => refused(429), 5],
    ["a create with a wrong token", () => refused(401), 6],
    ["a create that never left", () => notSent, 5],
    ["a create that nobody answered", () => unknown, 5],
  ];

  test.for(answers)(
    "%s is made at most once, and unclear exactly when nobody can know",
    async ([, answer, effects], { line }) => {
      const { undisturbed, crashes } = await everyCrash<World, Awaited<ReturnType<typeof lookAt>>>({
        open: () => openWorld(line, answer),
        run: (world, wrap) => run(world, wrap(depsOf(world))),
        look: lookAt,
      });
      expect(crashes).toHaveLength(effects);
      for (const { n, diedAfter, seen } of [{ n: -1, diedAfter: "nothing", seen: undisturbed }, ...crashes]) {
        expect(seen.books, `creates, died after ${diedAfter}`).toBeLessThanOrEqual(1);
        // The claim is effect 1; from there on until an answer is written down, nobody can know.
        const claimStood = ["create", "waitForTurn"].includes(diedAfter) || n === 1 || diedAfter === "keepEnding";
        if (claimStood) {
          expect(seen, `died after ${diedAfter}`).toMatchObject({
            state: "unclear",
            predictionId: null,
            open: 0,
            unclear: 1,
            follows: [],
            records: [],
          });
        } else {
          expect(seen, `died after ${diedAfter} (${n})`).toEqual(undisturbed);
        }
      }
    },
  );

  async function lookAt(world: World) {
    const { line, errand } = world;
    const item = await line.ledger.readItem(errand);
    const { nonce: _nonce, ...fields } = item.fields;
    return {
      books: world.provider.books.length,
      state: item.state,
      predictionId: fields.prediction_id ?? null,
      fields,
      follows: await follows(world),
      records: await records(world),
      open: await line.redis.zcard(REDIS_KEYS.open(ACCOUNT)),
      unclear: await line.redis.zcard(REDIS_KEYS.unclear(ACCOUNT)),
      counts: (await line.ledger.standing(ACCOUNT, errand.batch))?.counts,
      objects: Object.keys((await line.look()).objects),
    };
  }
});
