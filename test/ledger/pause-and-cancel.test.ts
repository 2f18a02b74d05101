/** What a person does to a batch or an item, as Redis holds it. That it adds up in any order: `ledger.test.ts`. */

import fc from "fast-check";
import { describe, expect } from "vitest";
import { type Batch, progressOf } from "../../src/core/batch.ts";
import type { ItemState, ItemStep } from "../../src/core/item.ts";
import { type AttemptRef, REDIS_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import type { Ledger } from "../../src/ledger/ledger.ts";
import { ACCOUNT, NOON, newBatch, openedAccount, refOf, test } from "../support/stages.ts";

async function opened(ledger: Pick<Ledger, "openBatch">, fields: Partial<Batch> = {}): Promise<Batch> {
  const batch = newBatch(fields);
  await ledger.openBatch(batch);
  return batch;
}

const claim = (ledger: Pick<Ledger, "move">, ref: AttemptRef, nonce = "n") =>
  ledger.move(ref, "claim", { nowMs: NOON, nonce });

/** Takes an item to where a test needs it. */
async function walk(ledger: Pick<Ledger, "move">, ref: AttemptRef, ...steps: readonly ItemStep[]): Promise<void> {
  for (const step of steps) {
    const own = predictionId(`p-${ref.batch}-${ref.index}`);
    const more = step === "claim" ? { nonce: "n" } : step === "bind" ? { predictionId: own } : {};
    expect((await ledger.move(ref, step, { nowMs: NOON, ...more })).answer, step).toBe("moved");
  }
}

/** Notes all its rows as fed. */
const feedAll = (ledger: Pick<Ledger, "advance">, batch: Batch) =>
  ledger.advance(batch.account, batch.id, { before: 0, after: batch.items }, allOf(batch), NOON);

const allOf = (batch: Batch) => Array.from({ length: batch.items }, (_, index) => refOf(batch, index));

const statesOf = async (ledger: Pick<Ledger, "readStates">, batch: Batch) =>
  (await ledger.readStates(batch.account, batch.id, 0, batch.items)).map(({ state }) => state);

/** The steps that lead from the beginning to a state. */
const WAY_TO = {
  waiting: [],
  claimed: ["claim"],
  running: ["claim", "bind"],
  copying: ["claim", "bind", "succeed"],
  recording: ["claim", "refuse"],
  saved: ["claim", "bind", "succeed", "finishCopy", "save"],
  failed: ["claim", "refuse", "fail"],
  canceled: ["withdraw"],
  unclear: ["claim", "doubt"],
} as const satisfies Record<ItemState, readonly ItemStep[]>;
const STATES = Object.keys(WAY_TO) as ItemState[];

// So many unclear items of earlier tests would turn claims away.
test.beforeEach(async ({ line: { redis } }) => {
  await redis.del(REDIS_KEYS.unclear(ACCOUNT));
});

describe("a paused batch", () => {
  test("turns claims away and isn't to be fed; resumed, the rows that were turned away are", async ({
    line: { ledger },
  }) => {
    const account = await openedAccount(ledger, "paused");
    const batch = await opened(ledger, { account });
    const other = await opened(ledger, { account });
    await feedAll(ledger, batch);
    await walk(ledger, refOf(batch, 0), "claim", "bind");

    expect(await ledger.pauseBatch(batch, "a person")).toBe("done");
    expect(await ledger.pauseBatch(batch, "another")).toBe("already");
    expect((await ledger.standing(account, batch.id))?.paused, "the first reason stays").toBe("a person");
    expect(await claim(ledger, refOf(batch, 1))).toMatchObject({ answer: "paused", state: "waiting" });
    expect(await claim(ledger, refOf(other, 1)), "the other one isn't paused").toMatchObject({ answer: "moved" });
    expect(await ledger.unfedBatches(account, 10)).toEqual([other.id]);
    expect(await ledger.returnedRows(account, batch.id, 10)).toEqual([{ index: 1, attempt: 1 }]);

    expect(await ledger.resumeBatch(batch)).toBe("done");
    expect(await ledger.resumeBatch(batch)).toBe("already");
    expect((await ledger.standing(account, batch.id))?.paused).toBeNull();
    expect(await ledger.unfedBatches(account, 10)).toEqual(expect.arrayContaining([batch.id, other.id]));
    expect(await claim(ledger, refOf(batch, 1))).toMatchObject({ answer: "moved" });
  });

  test.for<readonly [string, fed: number, turnedAway: boolean, unfed: boolean]>([
    ["of which rows haven't been fed", 2, false, true],
    ["of which a row was turned away", 3, true, true],
    ["of which nothing is left to feed", 3, false, false],
  ])("%s is put back by a resume exactly when something is left", async ([, fed, turnedAway, unfed], { line }) => {
    const { ledger } = line;
    const account = await openedAccount(ledger, `resumed-${fed}-${turnedAway}`);
    const batch = await opened(ledger, { account, openedAtMs: NOON + 7 });
    const refs = allOf(batch).slice(0, fed);
    await ledger.advance(account, batch.id, { before: 0, after: fed }, refs, NOON);
    await ledger.pauseBatch(batch, "a person");
    if (turnedAway) await claim(ledger, refOf(batch, 0));
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    await ledger.resumeBatch(batch);
    expect(await ledger.unfedBatches(account, 10)).toEqual(unfed ? [batch.id] : []);
    const score = await line.redis.zscore(REDIS_KEYS.unfed(account), batch.id);
    expect(score, "at its old place").toBe(unfed ? String(NOON + 7) : null);
  });

  test("of singles takes new parts, and feeds them when it is resumed", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "paused-singles");
    const batch = await opened(ledger, { account, kind: "singles", items: 0 });
    await ledger.pauseBatch(batch, "a person");
    await ledger.publishPart(batch, { part: 0, first: 0, rows: 2, voidIndexes: [] });
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    await ledger.resumeBatch(batch);
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
  });

  test("whose account is paused too waits for both", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "both");
    const batch = await opened(ledger, { account });
    await ledger.pauseAccount(account, "credit");
    await ledger.pauseBatch(batch, "a person");
    await ledger.resumeBatch(batch);
    expect(await claim(ledger, refOf(batch))).toMatchObject({ answer: "paused" });
    await ledger.pauseBatch(batch, "a person");
    await ledger.resumeAccount(account);
    expect(await claim(ledger, refOf(batch))).toMatchObject({ answer: "paused" });
    await ledger.resumeBatch(batch);
    expect(await claim(ledger, refOf(batch))).toMatchObject({ answer: "moved" });
  });
});

describe("a batch that isn't there, has ended, or was canceled", () => {
  test("is over for whoever wants to hold it", async ({ line: { ledger, redis } }) => {
    const gone = newBatch();
    const finished = await opened(ledger);
    await ledger.finishBatch(ACCOUNT, finished.id, NOON, 0);
    for (const batch of [gone, finished]) {
      expect(await ledger.pauseBatch(batch, "why")).toBe("over");
      expect(await ledger.resumeBatch(batch)).toBe("over");
      expect(await ledger.cancelBatch(batch, NOON)).toBe("over");
    }
    expect(await redis.exists(REDIS_KEYS.batch(ACCOUNT, gone.id)), "nothing was made of it").toBe(0);

    const canceled = await opened(ledger);
    await ledger.pauseBatch(canceled, "why");
    expect(await ledger.cancelBatch(canceled, NOON)).toBe("done");
    expect(await ledger.cancelBatch(canceled, NOON + 9)).toBe("already");
    expect(await ledger.pauseBatch(canceled, "why")).toBe("over");
    expect(await ledger.resumeBatch(canceled)).toBe("over");
    expect(await ledger.standing(ACCOUNT, canceled.id)).toMatchObject({ paused: null, canceledAtMs: NOON });
  });

  test("isn't walked, and a walk makes nothing of it", async ({ line: { ledger, redis } }) => {
    const batch = await opened(ledger);
    const gone = newBatch();
    for (const { id } of [batch, gone]) {
      await redis.zadd(REDIS_KEYS.canceling(ACCOUNT), NOON, id);
      expect(await ledger.walkCancel(ACCOUNT, id, null, 10)).toEqual({ next: 0, over: true, left: 0, running: [] });
      expect(await ledger.cancelingBatches(ACCOUNT, 10)).not.toContain(id);
    }
    expect(await statesOf(ledger, batch)).toEqual(["waiting", "waiting", "waiting"]);
    expect(await redis.exists(REDIS_KEYS.batch(ACCOUNT, gone.id))).toBe(0);
  });
});

describe("a canceled batch", () => {
  test("cancels whoever claims, and counts down what is left", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "canceled");
    const batch = await opened(ledger, { account, items: 2 });
    await ledger.pauseAccount(account, "credit");
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
    await ledger.cancelBatch(batch, NOON);
    expect(await ledger.unfedBatches(account, 10), "nothing more of it is fed").toEqual([]);
    expect(await claim(ledger, refOf(batch, 0)), "a pause of the account holds nothing back").toMatchObject({
      answer: "canceled",
      state: "canceled",
      left: 1,
    });
    expect(await claim(ledger, refOf(batch, 0)), "sent again").toMatchObject({ answer: "lost", state: "canceled" });
    expect(await claim(ledger, refOf(batch, 1))).toMatchObject({ answer: "canceled", left: 0 });
    expect(await ledger.untouched(account, NOON, 10)).toEqual([]);
    expect((await ledger.readItem(refOf(batch))).fields).toEqual({});
  });

  test("is walked in stretches: what waits ends, what runs is named, the rest is left alone", async ({ line }) => {
    const { ledger, redis } = line;
    const account = await openedAccount(ledger, "walked");
    const batch = await opened(ledger, { account, items: 2 * STATES.length + 2 });
    await feedAll(ledger, batch);
    for (const [at, state] of [...STATES, ...STATES].entries()) await walk(ledger, refOf(batch, at), ...WAY_TO[state]);
    await ledger.cancelBatch(batch, NOON);
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    expect(await ledger.cancelingBatches(account, 10)).toEqual([batch.id]);

    const running = [STATES.indexOf("running"), STATES.length + STATES.indexOf("running")];
    const first = await ledger.walkCancel(account, batch.id, null, 9);
    expect(first).toEqual({ next: 9, over: false, left: 13, running: [refOf(batch, running[0])] });
    const half = await line.look();
    expect(await ledger.walkCancel(account, batch.id, null, 9), "walked again").toEqual(first);
    expect(await line.look()).toEqual(half);

    expect(await ledger.walkCancel(account, batch.id, first.next, 9)).toEqual({
      next: 18,
      over: false,
      left: 12,
      running: [refOf(batch, running[1])],
    });
    expect(await ledger.walkCancel(account, batch.id, 18, 9)).toEqual({
      next: 20,
      over: false,
      left: 10,
      running: [],
    });
    expect(await ledger.cancelingBatches(account, 10)).toEqual([batch.id]);
    expect(await ledger.walkCancel(account, batch.id, 20, 9)).toEqual({ next: 20, over: true, left: 10, running: [] });
    expect(await ledger.cancelingBatches(account, 10)).toEqual([]);

    const after = STATES.map((state) => (state === "waiting" ? "canceled" : state));
    expect(await statesOf(ledger, batch)).toEqual([...after, ...after, "canceled", "canceled"]);
    const standing = await ledger.standing(account, batch.id);
    expect(standing).toMatchObject({
      cursor: batch.items,
      counts: { waiting: 0, canceled: 6, running: 2, unclear: 2 },
    });
    expect(await redis.zrange(REDIS_KEYS.open(account), 0, "-1"), "nobody works on what ended").toHaveLength(8);
  });

  test("of a row that was turned away before is walked like any other", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "turned-away");
    const batch = await opened(ledger, { account, items: 2 });
    await feedAll(ledger, batch);
    await ledger.pauseBatch(batch, "a person");
    await claim(ledger, refOf(batch, 0));
    await ledger.cancelBatch(batch, NOON);
    await ledger.walkCancel(account, batch.id, null, 10);
    await ledger.walkCancel(account, batch.id, 2, 10);
    expect(await ledger.standing(account, batch.id)).toMatchObject({ returned: 0, counts: { canceled: 2 } });
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
  });

  test("keeps the late attempts of what it cancels, and names those that run", async ({ line: { ledger, redis } }) => {
    const batch = await opened(ledger, { items: 2 });
    await redis.setrange(REDIS_KEYS.bytes(ACCOUNT, batch.id), 0, Buffer.from([0x90, 0xf0]));
    await walk(ledger, refOf(batch, 0, 9), "claim", "bind");
    await ledger.cancelBatch(batch, NOON);
    expect((await ledger.walkCancel(ACCOUNT, batch.id, null, 10)).running).toEqual([refOf(batch, 0, 9)]);
    expect(await ledger.readStates(ACCOUNT, batch.id, 0, 2)).toEqual([
      { attempt: 9, state: "running" },
      { attempt: 15, state: "canceled" },
    ]);
  });

  test("loses no item between its walk and claims that race it, and buys none that it canceled", async ({ line }) => {
    const { ledger } = line;
    const batch = await opened(ledger, { items: 60 });
    await feedAll(ledger, batch);
    const indexes = Array.from({ length: 60 }, (_, index) => index);
    const claims = indexes.slice(0, 40).map((index) => claim(ledger, refOf(batch, index)));
    const canceled = ledger.cancelBatch(batch, NOON);
    const more = indexes.slice(40).map((index) => claim(ledger, refOf(batch, index)));
    const walks = [0, 10, 20, 30, 40, 50, 60].map((from) => ledger.walkCancel(ACCOUNT, batch.id, from, 10));
    const answers = (await Promise.all([...claims, ...more])).map(({ answer }) => answer);
    await Promise.all([canceled, ...walks]);

    const states = await statesOf(ledger, batch);
    for (const [index, answer] of answers.entries()) {
      expect(states[index], `item ${index}, whose claim was ${answer}`).toBe(
        answer === "moved" ? "claimed" : "canceled",
      );
    }
    expect(answers.slice(0, 40).every((answer) => answer === "moved")).toBe(true);
    const counts = (await ledger.standing(ACCOUNT, batch.id))?.counts;
    expect(counts).toMatchObject({ waiting: 0, claimed: 40, canceled: 20 });
  });

  test.for<readonly [string, handBack: boolean, doubted: boolean]>([
    ["a claim given back", false, false],
    ["a claim handed back, as with a wrong token", true, false],
    ["a claim given back late, of an item that is unclear by then", false, true],
  ])("ends %s after the walk, and gives it to nobody", async ([, handBack, doubted], { line: { ledger } }) => {
    const account = await openedAccount(ledger, `late-${handBack}-${doubted}`);
    const batch = await opened(ledger, { account, items: 1 });
    await feedAll(ledger, batch);
    await claim(ledger, refOf(batch));
    if (doubted) await ledger.move(refOf(batch), "doubt", { nowMs: NOON });
    await ledger.cancelBatch(batch, NOON);
    expect(await ledger.walkCancel(account, batch.id, null, 10)).toMatchObject({ left: 1 });
    await ledger.walkCancel(account, batch.id, 1, 10);
    expect(await ledger.move(refOf(batch), "giveBack", { nowMs: NOON, nonce: "n", handBack })).toMatchObject({
      answer: "canceled",
      state: "canceled",
      left: 0,
    });
    expect(await ledger.standing(account, batch.id)).toMatchObject({
      returned: 0,
      counts: { canceled: 1, unclear: 0 },
    });
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    expect(await ledger.untouched(account, NOON, 10)).toEqual([]);
  });

  test("adds up after any stretches, in any order and however often", async ({ line: { ledger, redis } }) => {
    const world = fc.record({
      states: fc.array(fc.constantFrom(...STATES), { minLength: 1, maxLength: 12 }),
      walks: fc.array(fc.record({ from: fc.option(fc.nat(12)), limit: fc.integer({ min: 1, max: 5 }) }), {
        maxLength: 12,
      }),
    });
    await fc.assert(
      fc.asyncProperty(world, async ({ states, walks }) => {
        await redis.del(REDIS_KEYS.unclear(ACCOUNT));
        const batch = await opened(ledger, { items: states.length });
        for (const [index, state] of states.entries()) await walk(ledger, refOf(batch, index), ...WAY_TO[state]);
        await ledger.cancelBatch(batch, NOON);
        for (const { from, limit } of walks) {
          // Nobody says that he has woken what he never saw.
          const { next } = await ledger.walkCancel(ACCOUNT, batch.id, null, limit);
          await ledger.walkCancel(ACCOUNT, batch.id, Math.min(from ?? 0, next), limit);
        }
        for (let from: number | null = null, over = false; !over; ) {
          ({ next: from, over } = await ledger.walkCancel(ACCOUNT, batch.id, from, 4));
        }
        const { counts } = (await ledger.standing(ACCOUNT, batch.id)) ?? raise();
        const after = states.map((state) => (state === "waiting" ? "canceled" : state));
        expect(await statesOf(ledger, batch)).toEqual(after);
        for (const state of STATES) expect(counts[state]).toBe(after.filter((one) => one === state).length);
        expect(progressOf(counts).items).toBe(states.length);
      }),
      { numRuns: 40 },
    );
  });
});

describe("a mark", () => {
  test.for(STATES)(
    "says where the item stands, and is kept where somebody works on it: %s",
    async (state, { line }) => {
      const { ledger, redis } = line;
      const batch = await opened(ledger, { items: 1 });
      await walk(ledger, refOf(batch), ...WAY_TO[state]);
      const isWorkedOn = (await redis.exists(REDIS_KEYS.item(ACCOUNT, batch.id, 0))) === 1;
      expect(isWorkedOn).toBe(!["waiting", "saved", "failed", "canceled"].includes(state));
      for (const mark of ["cancel", "wake"] as const) {
        expect(await ledger.markItem(refOf(batch), mark)).toBe(state);
        expect((await ledger.readItem(refOf(batch))).fields).toEqual(
          isWorkedOn ? expect.objectContaining({ [mark]: "1" }) : {},
        );
      }
      expect(await ledger.markItem(refOf(batch, 0, 2), "cancel"), "another attempt's").toBeNull();
      expect(await statesOf(ledger, batch), "it moves nothing").toEqual([state]);
    },
  );

  test("to wake is taken once; one to cancel stays until the item ends", async ({ line: { ledger } }) => {
    const batch = await opened(ledger);
    const ref = refOf(batch);
    await walk(ledger, ref, "claim", "bind");
    const take = () => ledger.takeMarks(ref, "processing");
    expect(await take()).toEqual({ woken: false, cancel: false, byList: false });
    await ledger.markItem(ref, "wake");
    expect(await take()).toEqual({ woken: true, cancel: false, byList: false });
    expect(await take()).toEqual({ woken: false, cancel: false, byList: false });
    await ledger.markItem(ref, "cancel");
    await ledger.markItem(ref, "wake");
    expect(await take()).toEqual({ woken: true, cancel: true, byList: false });
    expect(await take()).toEqual({ woken: false, cancel: true, byList: false });
    await walk(ledger, ref, "conclude", "cancel");
    expect(await take()).toEqual({ woken: false, cancel: false, byList: false });
    expect((await ledger.readItem(ref)).fields, "nothing is left of it").toEqual({});
  });

  test("to cancel is the whole batch's, once that is canceled", async ({ line: { ledger } }) => {
    const batch = await opened(ledger);
    await walk(ledger, refOf(batch), "claim", "bind");
    await ledger.cancelBatch(batch, NOON);
    expect(await ledger.takeMarks(refOf(batch), "starting")).toEqual({ woken: false, cancel: true, byList: false });
  });

  test("is taken together with the status that the poll saw, if it saw one", async ({ line: { ledger } }) => {
    const batch = await opened(ledger);
    const ref = refOf(batch);
    const status = async () => (await ledger.readItem(ref)).fields.status;
    await ledger.takeMarks(ref, "starting");
    expect((await ledger.readItem(ref)).fields, "an item that nobody works on gets none").toEqual({});
    await walk(ledger, ref, "claim", "bind");
    for (const [seen, kept] of [
      [null, undefined],
      ["starting", "starting"],
      ["processing", "processing"],
      [null, "processing"],
      ["pondering", "pondering"],
    ] as const) {
      await ledger.takeMarks(ref, seen);
      expect(await status()).toBe(kept);
    }
    const startedAt = new Date(NOON).toISOString();
    await ledger.markItem(ref, "wake", "sweep");
    const late = await ledger.takeMarks({ ...ref, attempt: ref.attempt + 1 }, "processing", startedAt);
    expect(late, "another attempt's poll").toMatchObject({ woken: false });
    expect((await ledger.readItem(ref)).fields).toMatchObject({ status: "pondering", wake: "sweep" });
    for (const told of [startedAt, null]) {
      await ledger.takeMarks(ref, "processing", told);
      expect((await ledger.readItem(ref)).fields.started_at).toBe(startedAt);
    }
  });

  test("to cancel ends a claim that is given back, and no other step", async ({ line: { ledger } }) => {
    const batch = await opened(ledger);
    for (const doubted of [false, true]) {
      const ref = refOf(batch, doubted ? 1 : 0);
      await walk(ledger, ref, ...WAY_TO[doubted ? "unclear" : "claimed"]);
      await ledger.markItem(ref, "cancel");
      expect(await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "another's" })).toMatchObject({ answer: "lost" });
      expect(await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "n" })).toMatchObject({ answer: "canceled" });
      expect(await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "n" }), "sent again").toMatchObject({
        answer: "lost",
        state: "canceled",
      });
    }
    const bound = refOf(batch, 2);
    await walk(ledger, bound, "claim");
    await ledger.markItem(bound, "cancel");
    await walk(ledger, bound, "bind");
    expect(await ledger.takeMarks(bound, "starting")).toMatchObject({ cancel: true });
    expect((await ledger.standing(ACCOUNT, batch.id))?.counts).toMatchObject({ canceled: 2, running: 1, unclear: 0 });
  });
});

describe("a withdrawal", () => {
  test.for(STATES)("ends an item that waits, and no other: %s", async (state, { line: { ledger } }) => {
    const batch = await opened(ledger, { items: 1 });
    await walk(ledger, refOf(batch), ...WAY_TO[state]);
    const answer = { waiting: "moved", canceled: "already" }[state as string] ?? "lost";
    expect(await ledger.move(refOf(batch), "withdraw", { nowMs: NOON })).toMatchObject({
      answer,
      state: state === "waiting" ? "canceled" : state,
    });
  });

  test("of the last row that was to be given out again leaves nothing to feed", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "withdrawn");
    const batch = await opened(ledger, { account, items: 2 });
    await feedAll(ledger, batch);
    await ledger.pauseAccount(account, "credit");
    for (const index of [0, 1]) await claim(ledger, refOf(batch, index));
    await ledger.move(refOf(batch, 0), "withdraw", { nowMs: NOON });
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
    await ledger.move(refOf(batch, 1), "withdraw", { nowMs: NOON });
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    expect(await ledger.standing(account, batch.id)).toMatchObject({ returned: 0, counts: { canceled: 2 } });
  });
});

function raise(): never {
  throw new Error("Redis knows no such batch");
}
