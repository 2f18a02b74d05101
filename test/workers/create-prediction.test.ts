import { describe, expect } from "vitest";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import { readRow } from "../../src/bucket/input-parts.ts";
import type { ItemState } from "../../src/core/item.ts";
import { type BatchId, errandId, QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { DEFAULT_POLL_POLICY } from "../../src/core/polling.ts";
import { type Prediction, predictionId } from "../../src/core/prediction.ts";
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

let nonces = 0;
function depsOf({ line, provider }: World): CreateDeps {
  const { bucket, ledger, queues, clock } = line;
  return {
    readRow: (errand) => readRow(bucket, errand.batch, errand.place),
    move: ledger.move,
    provider,
    pauseAccount: async (reason) => {
      await ledger.pauseAccount(ACCOUNT, reason);
    },
    keepEnding: (ref, ending) => keepEnding(bucket, ref, ending),
    enqueueFollow: queues.follow,
    enqueueRecord: queues.record,
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
      { id: errandId(world.errand), data: [ACCOUNT, "p0", NOON], delay: 2_000, priority: 0 },
    ]);
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

  test("says so loudly when its answer has no place any more", async ({ line }) => {
    const world = await openWorld(line, answerNumber);
    const deps = depsOf(world);
    const provider: CreateDeps["provider"] = {
      create: async (request, aborted) => {
        const made = await world.provider.create(request, aborted);
        await line.ledger.move(world.errand, "bind", { nowMs: NOON, predictionId: predictionId("other") });
        return made;
      },
    };
    const outcome = await run(world, { ...deps, provider });
    expect(outcome).toMatchObject({ kind: "unrecoverable", reason: expect.stringContaining("p0") });
    expect((await line.ledger.readItem(world.errand)).fields.prediction_id).toBe("other");
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

describe("killed after any effect and run again twice,", () => {
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
        const claimStood =
          ["create", "waitForTurn"].includes(diedAfter) ||
          n === 1 ||
          diedAfter === "keepEnding" ||
          diedAfter === "pauseAccount";
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
