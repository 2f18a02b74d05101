import { describe, expect } from "vitest";
import { openExpectations } from "../../src/batches/expect-runs.ts";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import type { ItemState } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, errandId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { copyPriority } from "../../src/core/outputs.ts";
import { DEFAULT_POLL_POLICY, type PollKind } from "../../src/core/polling.ts";
import { type Prediction, predictionId } from "../../src/core/prediction.ts";
import { bucketOf, upperBoundMs } from "../../src/core/run-times.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { ProviderAnswerError, ProviderError } from "../../src/providers/provider.ts";
import type { FollowErrand } from "../../src/queues/queues.ts";
import { type FollowDeps, followPrediction } from "../../workers/follow-prediction.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, NOON, predictionOf, test } from "../support/stages.ts";

const { deadlineMs, graceMs } = DEFAULT_POLL_POLICY;
const FILE = "https://replicate.delivery/a/out.png";

type World = {
  readonly line: Line;
  readonly batch: BatchId;
  readonly errand: FollowErrand;
  readonly answer: () => Prediction;
  readonly canceled: string[];
  readonly warnings: string[];
  readonly polls: PollKind[];
};

/** An item whose prediction p1 was created at noon, `ageMs` ago; `ownDeadlineMs`: its client's limit, from then on. */
async function openWorld(
  line: Line,
  answer: Prediction | Error,
  ageMs = 10 * SECOND,
  ownDeadlineMs: number | null = null,
): Promise<World> {
  await line.clear();
  const batch = await line.submit([{ prompt: "a" }]);
  const ref: AttemptRef = { account: ACCOUNT, batch, index: 0, attempt: 1 };
  await line.ledger.advance(ACCOUNT, batch, { before: 0, after: 1 }, [ref], NOON);
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  await line.ledger.move(ref, "bind", { nowMs: NOON, predictionId: predictionId("p1") });
  line.clock.forward(ageMs);
  return {
    line,
    batch,
    errand: {
      ...ref,
      predictionId: predictionId("p1"),
      startedAtMs: NOON,
      deadlineAtMs: ownDeadlineMs === null ? null : NOON + ownDeadlineMs,
      told: false,
    },
    answer: () => {
      if (answer instanceof Error) throw answer;
      return answer;
    },
    canceled: [],
    warnings: [],
    polls: [],
  };
}

function depsOf({ line, answer, canceled, warnings, polls }: World): FollowDeps {
  return {
    provider: {
      get: async () => answer(),
      cancel: async (id) => {
        canceled.push(id);
        return answer();
      },
    },
    move: line.ledger.move,
    takeMarks: line.ledger.takeMarks,
    incompleteSince: (ref) => line.ledger.incompleteSince(ref, line.clock()),
    keepEnding: (ref, ending) => keepEnding(line.bucket, ref, ending),
    enqueueCopy: line.queues.copy,
    filesKeptMs: HOUR,
    enqueueRecord: line.queues.record,
    pauseAccount: async (reason) => {
      await line.ledger.pauseAccount(ACCOUNT, reason);
    },
    expect: openExpectations(ACCOUNT, line).expect,
    countPoll: (kind) => void polls.push(kind),
    learnRun: (model, runMs) => line.ledger.learnRun(ACCOUNT, model, runMs, line.clock()),
    warn: (message) => warnings.push(message),
    warnOfStatus: (_word, message) => warnings.push(message),
    clock: line.clock,
    random: () => 0.5,
    policy: DEFAULT_POLL_POLICY,
  };
}

const signal = new AbortController().signal;
const run = (world: World, deps = depsOf(world)) => followPrediction(world.errand, deps, signal);

async function stand({ line, errand }: World) {
  const { state, fields } = await line.ledger.readItem(errand);
  const ending = fields.ending === undefined ? null : await readEnding(line.bucket, errand, fields.ending);
  return {
    state,
    ending,
    copies: await line.jobs(QUEUE_NAMES.copy),
    records: (await line.jobs(QUEUE_NAMES.record)).map(({ id }) => id),
  };
}

const succeeded = (output: unknown, fields: Partial<Prediction> = {}) =>
  predictionOf("p1", { status: "succeeded", output, metrics: { predict_time: 1.5 }, ...fields });

describe("a prediction that", () => {
  test("runs is polled again, later and later", async ({ line }) => {
    const seen: unknown[] = [];
    for (const ageMs of [1 * SECOND, 10 * SECOND, MINUTE, HOUR]) {
      const world = await openWorld(line, predictionOf("p1", { status: "processing" }), ageMs);
      const outcome = await run(world);
      seen.push(outcome.kind === "snooze" ? outcome.untilMs - line.clock() : outcome);
      expect(await stand(world)).toEqual({ state: "running", ending: null, copies: [], records: [] });
    }
    expect(seen).toEqual([1_000, 3_334, 20_000, 30_000]);
  });

  test("runs is polled by what its model's runs take, and hardly at all where something else tells of its end", async ({
    line,
  }) => {
    const polledIn = async (told: boolean, sweptToMs: number) => {
      const world = await openWorld(line, predictionOf("p1", { status: "processing" }), 2 * SECOND);
      for (let runs = 0; runs < 10; runs++) await line.ledger.learnRun(ACCOUNT, "outlast/text", 20 * SECOND, NOON);
      const nowMs = line.clock();
      if (sweptToMs > 0) {
        await line.ledger.noteSwept(ACCOUNT, { untilMs: nowMs + 1, toAgeMs: sweptToMs, pauseMs: 1, pages: 1 }, 0);
      }
      const outcome = await followPrediction({ ...world.errand, told }, depsOf(world), signal);
      return outcome.kind === "snooze" ? outcome.untilMs - NOON : outcome;
    };
    const ofRunsMs = upperBoundMs(bucketOf(20 * SECOND));
    expect(await polledIn(false, 0)).toBe(ofRunsMs);
    expect(await polledIn(true, 0)).toBe(2 * ofRunsMs);
    expect(await polledIn(false, MINUTE)).toBe(2 * ofRunsMs);
    expect(await polledIn(false, 30 * SECOND)).toBe(30 * SECOND);
    expect(await polledIn(false, SECOND), "too old for sweeps").toBe(ofRunsMs);
  });

  test.for<readonly [string, Partial<Prediction>, number]>([
    ["succeeded", { status: "succeeded", output: "text" }, 1],
    ["succeeded with files", { status: "succeeded", output: [FILE] }, 1],
    ["failed", { status: "failed", error: "no" }, 1],
    ["was canceled", { status: "canceled" }, 0],
    ["names no model", { status: "succeeded", model: null }, 0],
    ["names no time of its end", { status: "succeeded", completedAt: null }, 0],
  ])("%s teaches how long its model takes, once", async ([, fields, runs], { line }) => {
    const times = { createdAt: "2026-11-20T12:00:01.5Z", completedAt: "2026-11-20T12:00:09.5Z" };
    const world = await openWorld(line, predictionOf("p1", { ...times, ...fields }));
    await run(world);
    await run(world);
    expect(await line.ledger.runCounts(ACCOUNT, line.clock())).toEqual(
      new Map(runs === 0 ? [] : [["outlast/text", new Map([[bucketOf(8 * SECOND), runs]])]]),
    );
  });

  test("has a status nobody knows is followed on, and told", async ({ line }) => {
    const world = await openWorld(line, predictionOf("p1", { status: "unknown", statusWord: "pondering" }));
    expect(await run(world)).toMatchObject({ kind: "snooze" });
    expect(world.warnings).toEqual([expect.stringContaining('"pondering"')]);
  });

  test("succeeded with files is copied, by the expiry of its files", async ({ line }) => {
    const createdAt = new Date(NOON + 3 * MINUTE).toISOString();
    const world = await openWorld(line, succeeded([FILE, "words"], { createdAt }));
    expect(await run(world)).toEqual({ kind: "done" });
    const expiresAtMs = NOON + 3 * MINUTE + HOUR;
    expect(await stand(world)).toMatchObject({
      state: "copying",
      ending: {
        end: "saved",
        error: null,
        copied: [],
        answer: { output: [FILE, "words"], metrics: { predict_time: 1.5 } },
      },
      copies: [{ id: errandId(world.errand), data: [ACCOUNT, expiresAtMs, "p1"], priority: copyPriority(expiresAtMs) }],
      records: [],
    });
  });

  test("names no time of creation, or nonsense, is copied by the time of its intent", async ({ line }) => {
    for (const createdAt of [null, "yesterday"]) {
      const world = await openWorld(line, succeeded(FILE, { createdAt }));
      await run(world);
      expect((await stand(world)).copies).toMatchObject([{ data: [ACCOUNT, NOON + HOUR, "p1"] }]);
    }
  });

  test("succeeded without files goes straight to the record", async ({ line }) => {
    for (const output of ["plain text", "", {}, { score: 0.5, note: "Data: first, second" }, []]) {
      const world = await openWorld(line, succeeded(output));
      await run(world);
      expect(await stand(world)).toMatchObject({
        state: "recording",
        ending: { end: "saved", answer: { output } },
        copies: [],
        records: [errandId(world.errand)],
      });
    }
  });

  test("succeeded with no output is polled again for a minute, and is then a failure with that name", async ({
    line,
  }) => {
    const world = await openWorld(line, succeeded(null));
    for (let polls = 0; polls < 12; polls++) {
      expect(await run(world)).toEqual({ kind: "snooze", untilMs: line.clock() + 5 * SECOND });
      expect((await stand(world)).state).toBe("running");
      line.clock.forward(5 * SECOND);
    }
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({
      state: "recording",
      ending: { end: "failed", error: "succeeded with no output", answer: { status: "succeeded" } },
      copies: [],
      records: [errandId(world.errand)],
    });
    // A late poll of it ends, too.
    line.clock.forward(MINUTE);
    expect(await run(world)).toEqual({ kind: "done" });
  });

  test("shows its output a moment later is saved with it", async ({ line }) => {
    const world = await openWorld(line, succeeded(null));
    expect(await run(world)).toMatchObject({ kind: "snooze" });
    const get = async () => succeeded([FILE]);
    expect(await run(world, { ...depsOf(world), provider: { get } })).toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({ state: "copying", ending: { end: "saved", error: null } });
  });

  test("succeeded with holes in its list of files is polled again for a minute; then what there is is copied, and it has failed", async ({
    line,
  }) => {
    const world = await openWorld(line, succeeded([FILE, null, `${FILE}?2`, null]));
    expect(await run(world)).toMatchObject({ kind: "snooze" });
    line.clock.forward(MINUTE);
    expect(await run(world)).toEqual({ kind: "done" });
    const { state, ending, copies, records } = await stand(world);
    expect({ state, copies: copies.length, records }).toEqual({ state: "copying", copies: 1, records: [] });
    expect(ending).toMatchObject({ end: "failed", error: expect.stringMatching(/2 of its 4 files are missing/) });
  });

  test.for<readonly [Prediction["status"], string]>([
    ["failed", "failed"],
    ["canceled", "canceled"],
    ["aborted", "failed"],
  ])("%s after it had made files is copied, and ends as %s all the same", async ([status, end], { line }) => {
    const partial = predictionOf("p1", { status, output: [FILE, null], error: "out of memory" });
    const world = await openWorld(line, partial);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await run(world), "a late poll").toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({
      state: "copying",
      ending: { end, error: "out of memory", answer: { status, output: [FILE, null] }, copied: [] },
      copies: [{ id: errandId(world.errand) }],
      records: [],
    });
    const removed = await openWorld(line, { ...partial, dataRemoved: true });
    await run(removed);
    expect(await stand(removed)).toMatchObject({ state: "recording", ending: { end }, copies: [] });
  });

  test("has an answer too long for Redis leaves it in the bucket", async ({ line }) => {
    const output = { text: "x".repeat(9_000), lone: "\ud800" };
    const world = await openWorld(line, succeeded(output));
    await run(world);
    expect((await line.ledger.readItem(world.errand)).fields.ending?.length).toBeLessThan(100);
    expect(await stand(world)).toMatchObject({ state: "recording", ending: { answer: { output } } });
  });

  test.for<readonly [string, Prediction, string | null]>([
    ["failed", predictionOf("p1", { status: "failed", error: "NSFW" }), "NSFW"],
    ["failed without a word", predictionOf("p1", { status: "failed" }), null],
    ["was aborted", predictionOf("p1", { status: "aborted", error: "too old" }), "too old"],
    [
      "is nested too deeply to be kept",
      succeeded(Array.from({ length: 100 }).reduce((inner: unknown) => [inner], "x")),
      "succeeded, but its output holds too many files, or is nested too deeply",
    ],
    [
      "lost its data",
      succeeded(null, { dataRemoved: true }),
      "succeeded, but the provider has removed its data already",
    ],
  ])("%s is recorded as failed", async ([, prediction, error], { line }) => {
    const world = await openWorld(line, prediction);
    expect(await run(world)).toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({
      state: "recording",
      ending: { end: "failed", error, copied: [] },
      records: [errandId(world.errand)],
    });
    expect(world.canceled).toEqual([]);
  });

  test("was canceled is recorded as canceled, and as failed where our deadline did it", async ({ line }) => {
    for (const [ageMs, end] of [
      [deadlineMs - 1, "canceled"],
      [deadlineMs, "failed"],
    ] as const) {
      const world = await openWorld(line, predictionOf("p1", { status: "canceled" }), ageMs);
      expect(await run(world)).toEqual({ kind: "done" });
      const error = "the prediction was canceled at the provider";
      expect(await stand(world)).toMatchObject({ state: "recording", ending: { end, error }, copies: [] });
    }
  });

  test("is past its deadline is canceled and followed on, and in the end given up", async ({ line }) => {
    const running = predictionOf("p1", { status: "processing" });
    const overdue = await openWorld(line, running, deadlineMs);
    expect(await run(overdue), "what became of it is asked soon").toEqual({
      kind: "snooze",
      untilMs: NOON + deadlineMs + SECOND,
    });
    expect(overdue.canceled).toEqual(["p1"]);
    expect((await stand(overdue)).state).toBe("running");

    const hopeless = await openWorld(line, running, deadlineMs + graceMs);
    expect(await run(hopeless)).toEqual({ kind: "done" });
    expect(await stand(hopeless)).toMatchObject({ state: "recording", ending: { end: "failed", answer: null } });
    expect((await stand(hopeless)).ending?.error).toMatch(/105 minutes.*may still run/);
  });

  test("can't be canceled, or not now, is followed on all the same", async ({ line }) => {
    const world = await openWorld(line, predictionOf("p1", { status: "processing" }), deadlineMs);
    const deps = depsOf(world);
    const { get } = deps.provider;
    expect(await run(world, { ...deps, provider: { get } })).toMatchObject({ kind: "snooze" });
    const cancel = () => Promise.reject(new ProviderError("no", { kind: "unknown" }));
    expect(await run(world, { ...deps, provider: { get, cancel } })).toMatchObject({ kind: "snooze" });
    expect(world.warnings).toHaveLength(1);
  });
});

describe("a running prediction", () => {
  const running = predictionOf("p1", { status: "processing" });
  const canceled = predictionOf("p1", { status: "canceled", metrics: { predict_time: 0.5 } });
  const cancelItem = async ({ line, errand }: World) => {
    expect(await line.ledger.markItem(errand, "cancel")).toBe("running");
  };
  const cancelBatch = async ({ line, batch }: World) => {
    expect(await line.ledger.cancelBatch({ account: ACCOUNT, id: batch }, line.clock())).toBe("done");
  };
  /** The provider's, with another answer to a cancel. */
  const provides = (world: World, cancel: () => Promise<Prediction>): FollowDeps["provider"] => ({
    get: async () => world.answer(),
    cancel: (id) => {
      world.canceled.push(id);
      return cancel();
    },
  });

  test.for([
    ["item", cancelItem],
    ["batch", cancelBatch],
  ] as const)(
    "whose %s a person canceled is canceled upstream, and that answer ends it",
    async ([, cancel], { line }) => {
      const world = await openWorld(line, running);
      await cancel(world);
      const deps = { ...depsOf(world), provider: provides(world, async () => canceled) };
      expect(await run(world, deps)).toEqual({ kind: "done" });
      expect(world.canceled).toEqual(["p1"]);
      expect(await stand(world)).toMatchObject({
        state: "recording",
        ending: {
          end: "canceled",
          error: "the prediction was canceled at the provider",
          answer: { status: "canceled" },
        },
        records: [errandId(world.errand)],
      });
    },
  );

  test("that nobody canceled isn't", async ({ line }) => {
    const world = await openWorld(line, running);
    await run(world);
    expect(world.canceled).toEqual([]);
  });

  test("that was canceled, and isn't over yet, is polled in a second, and canceled again while it runs", async ({
    line,
  }) => {
    const world = await openWorld(line, running, MINUTE);
    await cancelItem(world);
    for (let polls = 1; polls <= 2; polls++) {
      expect(await run(world)).toEqual({ kind: "snooze", untilMs: line.clock() + SECOND });
      expect(world.canceled).toHaveLength(polls);
    }
    expect((await stand(world)).state).toBe("running");
  });

  test("that succeeded before the cancel reached it is kept, with the output that a poll shows", async ({ line }) => {
    const world = await openWorld(line, running);
    await cancelItem(world);
    // Without its output: what the cancel of a finished prediction answers isn't documented.
    const deps = { ...depsOf(world), provider: provides(world, async () => succeeded(null)) };
    expect(await run(world, deps)).toEqual({ kind: "snooze", untilMs: line.clock() + SECOND });
    expect((await stand(world)).state).toBe("running");
    const get = async () => succeeded([FILE]);
    expect(await run(world, { ...deps, provider: { ...deps.provider, get } })).toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({ state: "copying", ending: { answer: { output: [FILE] } } });
    expect(world.canceled, "no more than once").toEqual(["p1"]);
  });

  test("whose cancel is answered with another prediction isn't ended by that", async ({ line }) => {
    const world = await openWorld(line, running);
    await cancelItem(world);
    const deps = { ...depsOf(world), provider: provides(world, async () => ({ ...canceled, id: predictionId("p2") })) };
    expect(await run(world, deps)).toMatchObject({ kind: "snooze" });
    expect((await stand(world)).state).toBe("running");
  });

  test.for<readonly [string, Error]>([
    ["refused", new ProviderError("no", { kind: "refused", status: 422 })],
    ["slowed down", new ProviderError("no", { kind: "refused", status: 429 })],
    ["not answered", new ProviderError("no", { kind: "unknown" })],
    ["answered with nonsense", new ProviderAnswerError("what is this", { status: 200 })],
  ])("whose cancel is %s is polled on, as late as ever, and canceled again", async ([, failure], { line }) => {
    const world = await openWorld(line, running, MINUTE);
    await cancelItem(world);
    const deps = { ...depsOf(world), provider: provides(world, () => Promise.reject(failure)) };
    for (let polls = 1; polls <= 2; polls++) {
      expect(await run(world, deps)).toEqual({ kind: "snooze", untilMs: line.clock() + 20 * SECOND });
      expect(world.canceled).toHaveLength(polls);
      expect(world.warnings).toHaveLength(polls);
    }
    expect((await stand(world)).state).toBe("running");
  });

  test("whose cancel isn't sent, since no read is left, is canceled soon, though webhooks tell of its end", async ({
    line,
  }) => {
    const world = await openWorld(line, running, MINUTE);
    for (let runs = 0; runs < 10; runs++) await line.ledger.learnRun(ACCOUNT, "outlast/text", 20 * MINUTE, NOON);
    await cancelItem(world);
    const spent = new ProviderError("no read is left", { kind: "not-sent", retryAfterMs: SECOND });
    const deps = { ...depsOf(world), provider: provides(world, () => Promise.reject(spent)) };
    const outcome = await followPrediction({ ...world.errand, told: true }, deps, signal);
    expect(outcome).toEqual({ kind: "snooze", untilMs: line.clock() + DEFAULT_POLL_POLICY.longestPauseMs });
  });

  test("of a provider that cancels nothing is polled on, no more often than any other, and saved", async ({ line }) => {
    const world = await openWorld(line, running, MINUTE);
    await cancelBatch(world);
    const { get } = depsOf(world).provider;
    expect(await run(world, { ...depsOf(world), provider: { get } })).toEqual({
      kind: "snooze",
      untilMs: line.clock() + 20 * SECOND,
    });
    const done = async () => succeeded("words");
    expect(await run(world, { ...depsOf(world), provider: { get: done } })).toEqual({ kind: "done" });
    expect(await stand(world)).toMatchObject({ state: "recording", ending: { end: "saved" } });
  });

  test("that was woken while it was polled is polled again in a second, once", async ({ line }) => {
    const world = await openWorld(line, running, MINUTE);
    expect(await line.ledger.markItem(world.errand, "wake")).toBe("running");
    expect(await run(world)).toEqual({ kind: "snooze", untilMs: line.clock() + SECOND });
    expect(await run(world)).toEqual({ kind: "snooze", untilMs: line.clock() + 20 * SECOND });
    expect(world.canceled).toEqual([]);
  });

  test("is counted by why it was polled, at each poll that is answered", async ({ line }) => {
    const unanswered = () => Promise.reject(new ProviderError("no", { kind: "unknown" }));
    for (const by of ["webhook", "sweep", undefined] as const) {
      for (const told of [false, true]) {
        const world = await openWorld(line, running);
        const errand = { ...world.errand, told };
        const poll = (get: FollowDeps["provider"]["get"]) =>
          followPrediction(errand, { ...depsOf(world), provider: { get } }, signal);
        if (by !== undefined) await line.ledger.markItem(errand, "wake", by);
        const unwoken = told ? "net" : "single";
        await poll(unanswered);
        await poll(async () => running);
        // The mark was taken by the poll that nobody answered: what it was for is repeated as any other.
        expect(world.polls).toEqual([unwoken]);
        if (by !== undefined) await line.ledger.markItem(errand, "wake", by);
        await poll(async () => running);
        if (by !== undefined) await line.ledger.markItem(errand, "wake", by);
        await poll(async () => succeeded("words"));
        expect(world.polls, `${by} ${told}`).toEqual([unwoken, by ?? unwoken, by ?? unwoken]);
      }
    }
    const swept = await openWorld(line, running, 30 * SECOND);
    await line.ledger.noteSwept(ACCOUNT, { untilMs: line.clock() + 1, toAgeMs: MINUTE, pauseMs: 1, pages: 1 }, 0);
    await run(swept);
    line.clock.forward(HOUR);
    await run(swept);
    expect(swept.polls, "too old for sweeps").toEqual(["net", "single"]);
  });

  test("leaves the provider's word for where it stands; a poll that sees none leaves the last one", async ({
    line,
  }) => {
    const world = await openWorld(line, running);
    const status = async () => (await line.ledger.readItem(world.errand)).fields.status;
    await run(world);
    expect(await status()).toBe("processing");
    const get = () => Promise.reject(new ProviderError("no", { kind: "unknown" }));
    await run(world, { ...depsOf(world), provider: { get } });
    expect(await status()).toBe("processing");
  });

  test("is canceled when its client's deadline has passed, and has failed then, as ours does", async ({ line }) => {
    const early = await openWorld(line, running, 30 * SECOND, MINUTE);
    expect(await run(early), "never polled past it").toEqual({ kind: "snooze", untilMs: NOON + 40 * SECOND });
    expect(early.canceled).toEqual([]);

    const late = await openWorld(line, running, MINUTE, MINUTE);
    const deps = { ...depsOf(late), provider: provides(late, async () => canceled) };
    expect(await run(late, deps)).toEqual({ kind: "done" });
    expect(late.canceled).toEqual(["p1"]);
    expect(await stand(late)).toMatchObject({ state: "recording", ending: { end: "failed" } });

    const hopeless = await openWorld(line, running, MINUTE + graceMs, MINUTE);
    expect(await run(hopeless)).toEqual({ kind: "done" });
    expect((await stand(hopeless)).ending?.error).toMatch(/hadn't ended 16 minutes.*may still run/);

    const generous = await openWorld(line, running, deadlineMs, 24 * HOUR);
    await run(generous);
    expect(generous.canceled, "ours is a bound for all").toEqual(["p1"]);
  });
});

describe("a poll that fails", () => {
  const error = (status: number | null, retryAfterMs: number | null = null) =>
    new ProviderError("no", {
      kind: status === null || status >= 500 ? "unknown" : "refused",
      status,
      retryAfterMs,
      detail: "words",
    });

  test.for<readonly [string, Error, ageMs: number, outcome: object, ItemState]>([
    ["with 429 slows the queue down", error(429, 12_000), 10_000, { kind: "rate-limit", forMs: 12_000 }, "running"],
    ["with 401 pauses the account", error(401), 10_000, { kind: "snooze", untilMs: NOON + 40_000 }, "running"],
    ["with 500 is repeated", error(500), 10_000, { kind: "snooze", untilMs: NOON + 13_334 }, "running"],
    ["without an answer is repeated", error(null), 10_000, { kind: "snooze", untilMs: NOON + 13_334 }, "running"],
    ["with an early 404 is repeated", error(404), 10_000, { kind: "snooze", untilMs: NOON + 13_334 }, "running"],
    ["with a 404 while it may still run is repeated", error(404), HOUR, { kind: "snooze" }, "running"],
    ["with a 404 past its deadline fails the item", error(404), deadlineMs, { kind: "done" }, "recording"],
  ])("%s", async ([, failure, ageMs, outcome, state], { line }) => {
    const world = await openWorld(line, failure, ageMs);
    expect(await run(world)).toMatchObject(outcome);
    expect((await stand(world)).state).toBe(state);
    expect(await line.ledger.pausedReason(ACCOUNT)).toBe(
      failure instanceof ProviderError && failure.status === 401 ? "401: words" : null,
    );
  });

  test("because the provider's answer can't be read is told, and tried again like any other", async ({ line }) => {
    const world = await openWorld(line, new ProviderAnswerError("what is this", { status: 200 }));
    const told: string[] = [];
    const outcome = await run(world, { ...depsOf(world), warn: (message) => told.push(message) });
    expect(outcome).toMatchObject({ kind: "snooze" });
    expect(told).toEqual([expect.stringMatching(/what is this/)]);
    expect((await stand(world)).state).toBe("running");
  });

  test("past the deadline still cancels, so that nobody pays on", async ({ line }) => {
    const world = await openWorld(line, error(500), deadlineMs + SECOND);
    const deps = depsOf(world);
    await run(world, {
      ...deps,
      provider: {
        ...deps.provider,
        cancel: async (id) => {
          world.canceled.push(id);
          return predictionOf(id);
        },
      },
    });
    expect(world.canceled).toEqual(["p1"]);
  });
});

describe("killed after any effect and run again twice,", () => {
  const long = "x".repeat(9_000);
  test.for<readonly [string, Prediction | Error, ageMs: number, effects: number]>([
    ["a success with files", succeeded([FILE]), 10_000, 4],
    ["a success with a long answer and files", succeeded([FILE, long]), 10_000, 4],
    ["a success without files", succeeded("text"), 10_000, 4],
    ["a failure", predictionOf("p1", { status: "failed", error: "no" }), 10_000, 4],
    ["a poll of a running prediction", predictionOf("p1"), 10_000, 2],
    ["a poll past the deadline", predictionOf("p1"), deadlineMs, 3],
    ["a prediction given up", predictionOf("p1"), deadlineMs + graceMs, 4],
  ])("%s ends as if nothing had happened", async ([, answer, ageMs, effects], { line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: () => openWorld(line, answer, ageMs),
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      look: ({ line: { look } }) => look(),
    });
    expect(crashes).toHaveLength(effects);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });

  test("a poll that cancels ends as if nothing had happened, and pays no longer for it", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: async () => {
        const world = await openWorld(line, predictionOf("p1", { status: "processing" }));
        await line.ledger.markItem(world.errand, "cancel");
        return world;
      },
      run: (world, wrap) => {
        const deps = depsOf(world);
        const over = predictionOf("p1", { status: "canceled" });
        // From the cancel on, whoever asks hears that it is over.
        const cancel = async () => {
          world.canceled.push("p1");
          return over;
        };
        const get = async () => (world.canceled.length > 0 ? over : world.answer());
        return run(world, wrap({ ...deps, provider: { get, cancel } }));
      },
      look: ({ line: { look } }) => look(),
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual([
      "get",
      "takeMarks",
      "cancel",
      "keepEnding",
      "move",
      "enqueueRecord",
    ]);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });

  test("a follow that comes back late changes nothing of what copy and record made of a long answer", async ({
    line,
  }) => {
    const world = await openWorld(line, succeeded([FILE, long]));
    await run(world);
    const { ending } = await stand(world);
    if (ending === null) throw new Error("no ending");
    const copied = [{ from: FILE, key: "k", url: "u", bytes: 1, sha256: "s", content_type: "image/png" }];
    await line.ledger.move(world.errand, "finishCopy", {
      nowMs: NOON,
      set: { ending: await keepEnding(line.bucket, world.errand, { ...ending, copied }, "copied") },
    });
    await run(world);
    expect(await stand(world)).toMatchObject({ state: "recording", ending: { end: "saved", copied } });
  });
});
