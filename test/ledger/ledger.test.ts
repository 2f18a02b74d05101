import fc from "fast-check";
import { describe, expect } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import { ITEM_STATES, type ItemStep, writeItemByte } from "../../src/core/item.ts";
import { type AccountName, type AttemptRef, type BatchId, errandId, REDIS_KEYS } from "../../src/core/naming.ts";
import { type PredictionId, predictionId } from "../../src/core/prediction.ts";
import type { Ledger, MoveAnswer } from "../../src/ledger/ledger.ts";
import { ACCOUNT, accountName, batchNamed, NOON, newBatch, openedAccount, refOf, test } from "../support/stages.ts";

const P1 = predictionId("p1");
const P2 = predictionId("p2");

/** Takes an item to where a test needs it. */
async function walk(ledger: Ledger, ref: AttemptRef, ...steps: readonly ItemStep[]): Promise<MoveAnswer> {
  let answer: MoveAnswer | null = null;
  for (const step of steps) {
    const more =
      step === "claim" ? { nonce: "n" } : step === "bind" ? { predictionId: predictionId(`p-${ref.index}`) } : {};
    answer = await ledger.move(ref, step, { nowMs: NOON, ...more });
    expect(answer.answer, step).toBe("moved");
  }
  if (answer === null) throw new Error("no steps");
  return answer;
}

// ── the one transition; `model.test.ts` holds all of it against its model ──────

describe("a claim", () => {
  test("repeated with its own nonce is still its own; another's comes too late", async ({ line: { ledger } }) => {
    const batch = newBatch();
    await ledger.openBatch(batch);
    const ref = refOf(batch);
    const claim = (nonce: string) => ledger.move(ref, "claim", { nowMs: NOON, nonce, set: { row_id: nonce } });

    expect(await claim("mine")).toMatchObject({ answer: "moved", state: "claimed" });
    expect(await claim("mine")).toMatchObject({ answer: "moved", state: "claimed" });
    expect(await claim("yours")).toMatchObject({ answer: "lost", state: "claimed" });
    const { fields } = await ledger.readItem(ref);
    expect(fields).toEqual({ nonce: "mine", intent_at: String(NOON), row_id: "mine" });
  });

  test("is turned away while the account is paused, and the row goes back to the feed", async ({
    line: { ledger },
  }) => {
    const account = await openedAccount(ledger, "pausing");
    const batch = newBatch({ account, items: 1 });
    const ref = refOf(batch);
    await ledger.openBatch(batch);
    expect(await ledger.advance(account, batch.id, { before: 0, after: 1 }, [ref], NOON)).toBe(true);
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);

    expect(await ledger.pauseAccount(account, "no credit")).toBe(true);
    expect(await ledger.pauseAccount(account, "another reason")).toBe(false);
    expect(await ledger.pausedReason(account)).toBe("no credit");
    expect(await ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" })).toMatchObject({
      answer: "paused",
      state: "waiting",
    });
    expect(await ledger.untouched(account, NOON, 10)).toEqual([]);
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
    expect(await ledger.returnedRows(account, batch.id, 10)).toEqual([{ index: 0, attempt: 1 }]);

    expect(await ledger.resumeAccount(account)).toBe(true);
    expect(await ledger.resumeAccount(account)).toBe(false);
    expect(await ledger.advance(account, batch.id, { before: 1, after: 1 }, [ref], NOON)).toBe(true);
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
    expect(await ledger.untouched(account, NOON, 10)).toEqual([ref]);
    expect(await ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" })).toMatchObject({ answer: "moved" });
  });

  test("is given back by its nonce only, and leaves nothing behind", async ({ line: { ledger } }) => {
    const batch = newBatch();
    await ledger.openBatch(batch);
    const ref = refOf(batch);
    await ledger.move(ref, "claim", { nowMs: NOON, nonce: "mine" });
    expect(await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "yours" })).toMatchObject({ answer: "lost" });
    expect(await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "mine" })).toMatchObject({
      answer: "moved",
      state: "waiting",
    });
    expect((await ledger.readItem(ref)).fields).toEqual({});
    expect(await ledger.untouched(ACCOUNT, NOON, 100)).toContainEqual(ref);
    expect((await ledger.standing(ACCOUNT, batch.id))?.counts).toMatchObject({ waiting: 3, claimed: 0 });
  });
});

test("an unclear item binds the late answer of its own intent, and no second prediction", async ({
  line: { ledger, redis },
}) => {
  const batch = newBatch();
  await ledger.openBatch(batch);
  const ref = refOf(batch);
  await walk(ledger, ref, "claim");
  await ledger.move(ref, "doubt", { nowMs: NOON + 5 });
  expect(await redis.zscore(REDIS_KEYS.unclear(ACCOUNT), errandId(ref)), "stands there by its intent").toBe(
    String(NOON),
  );

  const bind = (nonce: string, prediction: PredictionId) =>
    ledger.move(ref, "bind", { nowMs: NOON, nonce, predictionId: prediction });
  expect(await bind("another's", P2)).toMatchObject({ answer: "lost", state: "unclear" });
  expect(await bind("n", P1)).toMatchObject({ answer: "moved", state: "running", predictionId: P1 });
  expect(await bind("n", P1)).toMatchObject({ answer: "already" });
  expect(await bind("n", P2)).toMatchObject({ answer: "lost", predictionId: P1 });
  expect(await redis.zscore(REDIS_KEYS.unclear(ACCOUNT), errandId(ref))).toBeNull();
});

test("an end adds its sums once, closes the item, and counts down what is left", async ({ line: { ledger } }) => {
  const batch = newBatch({ items: 2 });
  await ledger.openBatch(batch);
  const ref = refOf(batch);
  await walk(ledger, ref, "claim", "bind", "succeed", "finishCopy");
  const huge = 9_007_199_254_740_993n; // no double holds it
  const save = () =>
    ledger.move(ref, "save", { nowMs: NOON, sums: { predict_time_ms: huge, output_bytes: 1n, output_files: 1n } });
  expect(await save()).toMatchObject({ answer: "moved", state: "saved", predictionId: null, left: 1 });
  expect(await save()).toMatchObject({ answer: "already", left: 1 });
  expect(await ledger.move(ref, "fail", { nowMs: NOON })).toMatchObject({ answer: "lost", state: "saved" });

  const standing = await ledger.standing(ACCOUNT, batch.id);
  expect(standing?.sums).toMatchObject({ predict_time_ms: huge, output_bytes: 1n, output_files: 1n });
  expect((await ledger.readItem(ref)).fields).toEqual({});
});

test("fields come back as they were written, whatever characters they hold", async ({ line: { ledger } }) => {
  const batch = newBatch({ items: 1 });
  await ledger.openBatch(batch);
  const ref = refOf(batch);
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: "grapheme", maxLength: 60 }), fc.json(), async (id, json) => {
      const ending = JSON.stringify({ text: json, odd: "\u0000\ud800\u2028" });
      await ledger.move(ref, "claim", { nowMs: NOON, nonce: "n", set: { row_id: id, ending } });
      expect((await ledger.readItem(ref)).fields).toMatchObject({ row_id: id, ending });
      await ledger.move(ref, "giveBack", { nowMs: NOON, nonce: "n" });
    }),
    { numRuns: 50 },
  );
});

// ── batches ───────────────────────────────────────────────────────────────────

describe("a batch", () => {
  test("opens once; opening it again changes nothing", async ({ line: { ledger } }) => {
    const batch = newBatch({ name: "first: 你好" });
    expect(await ledger.standing(ACCOUNT, batch.id)).toBeNull();
    expect(await ledger.accountOf(batch.id)).toBeNull();
    expect(await ledger.openBatch(batch)).toBe(true);
    await walk(ledger, refOf(batch), "claim");
    const before = await ledger.standing(ACCOUNT, batch.id);
    expect(await ledger.openBatch({ ...batch, name: "second", items: 9 })).toBe(false);
    expect(await ledger.standing(ACCOUNT, batch.id)).toEqual(before);
    expect(before).toMatchObject({ batch, cursor: 0, parts: 1, finishedAtMs: null });
    expect(before?.counts).toMatchObject({ waiting: 2, claimed: 1 });
    expect(await ledger.accountOf(batch.id)).toBe(ACCOUNT);
    expect(await ledger.partOf(ACCOUNT, batch.id, 2)).toEqual({ part: 0, first: 0 });
  });

  test("is listed newest first, and oldest first where it is still to be fed and finished", async ({ line }) => {
    await line.clear();
    const { ledger } = line;
    const [old, young] = [newBatch({ openedAtMs: NOON }), newBatch({ openedAtMs: NOON + 1 })];
    await ledger.openBatch(young);
    await ledger.openBatch(old);
    expect(await ledger.listBatches(10)).toEqual([young.id, old.id]);
    expect(await ledger.listBatches(1)).toEqual([young.id]);
    expect(await ledger.unfedBatches(ACCOUNT, 10)).toEqual([old.id, young.id]);
    expect(await ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([old.id, young.id]);
    await ledger.finishBatch(ACCOUNT, old.id, NOON + 9, 0);
    await ledger.finishBatch(ACCOUNT, old.id, NOON + 9, 0);
    expect(await ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([young.id]);
    expect((await ledger.standing(ACCOUNT, old.id))?.finishedAtMs).toBe(NOON + 9);
  });

  test("is finished only as it stood, and goes on with a part that comes after all", async ({ line: { ledger } }) => {
    const batch = newBatch({ kind: "singles", items: 0 });
    await ledger.openBatch(batch);
    const part = (n: number) => ledger.publishPart(batch, { part: n, first: n, rows: 1, voidIndexes: [] });
    const stands = () => ledger.standing(ACCOUNT, batch.id);
    await part(0);
    expect(await ledger.finishBatch(ACCOUNT, batch.id, NOON, 0)).toBe(false);
    expect(await stands()).toMatchObject({ openings: 1, finishedAtMs: null });
    expect(await ledger.finishBatch(ACCOUNT, batch.id, NOON, 1)).toBe(true);
    expect(await ledger.unfedBatches(ACCOUNT, 1_000)).not.toContain(batch.id);
    await part(1);
    await part(1);
    expect(await stands()).toMatchObject({ openings: 2, finishedAtMs: null });
    expect(await ledger.unfedBatches(ACCOUNT, 1_000)).toContain(batch.id);
    expect(await ledger.unfinishedBatches(ACCOUNT, 1_000)).toContain(batch.id);
    expect(await ledger.finishBatch(ACCOUNT, newBatch().id, NOON, 0), "a batch that nobody knows").toBe(false);
  });

  test("of a million items costs Redis nothing untouched, and a byte an item once the last was touched", async ({
    line,
  }) => {
    const { ledger, redis } = line;
    const items = 1_000_000;
    const batch = newBatch({ items });
    const used = async (key: string) => Number((await redis.memory("USAGE", key, "SAMPLES", 0)) ?? 0);
    const bytes = REDIS_KEYS.bytes(ACCOUNT, batch.id);
    await ledger.openBatch(batch);
    expect(await used(bytes)).toBe(0);
    expect(await used(REDIS_KEYS.batch(ACCOUNT, batch.id))).toBeLessThan(2_000);

    await walk(ledger, refOf(batch, items - 1), "claim", "bind");
    expect(await used(bytes)).toBeLessThan(1.35 * items);
    expect((await ledger.standing(ACCOUNT, batch.id))?.counts).toMatchObject({ waiting: items - 1, running: 1 });
    const states = await ledger.readStates(ACCOUNT, batch.id, items - 70_000, 100_000);
    expect(states).toHaveLength(65_536);
    expect(states.every(({ attempt, state }) => attempt === 1 && state === "waiting")).toBe(true);
    expect(await ledger.readStates(ACCOUNT, batch.id, items - 2, 2)).toEqual([
      { attempt: 1, state: "waiting" },
      { attempt: 1, state: "running" },
    ]);
    expect(await ledger.readStates(ACCOUNT, batch.id, 0, 0)).toEqual([]);
  });

  test("keeps its late attempts, whose bytes are 0x80 and above", async ({ line: { ledger, redis } }) => {
    const batch = newBatch({ items: 16 * 9 });
    const all = Array.from({ length: 15 }, (_, at) => at + 1).flatMap((attempt) =>
      ITEM_STATES.map((state) => ({ attempt, state })),
    );
    await ledger.openBatch(batch);
    await redis.setrange(REDIS_KEYS.bytes(ACCOUNT, batch.id), 0, Buffer.from(all.map(writeItemByte)));
    expect(await ledger.readStates(ACCOUNT, batch.id, 0, all.length)).toEqual(all);
    for (const [index, { attempt, state }] of all.entries()) {
      const { fields: _fields, ...item } = await ledger.readItem({ account: ACCOUNT, batch: batch.id, index });
      expect(item).toEqual({ attempt, state });
      if (state !== "waiting") continue;
      const answer = await ledger.move(refOf(batch, index, attempt), "claim", { nowMs: NOON, nonce: "n" });
      expect(answer).toMatchObject({ answer: "moved", state: "claimed" });
      expect(await ledger.readStates(ACCOUNT, batch.id, index, 1)).toEqual([{ attempt, state: "claimed" }]);
    }
  });
});

describe("a batch of singles", () => {
  const open = async (ledger: Ledger): Promise<Batch> => {
    const batch = newBatch({ kind: "singles", items: 0 });
    await ledger.openBatch(batch);
    return batch;
  };
  const part = (n: number, first: number, rows: number, voidIndexes: readonly number[] = []) => ({
    part: n,
    first,
    rows,
    voidIndexes,
  });

  test("grows by parts, each published once and in order", async ({ line: { ledger } }) => {
    const batch = await open(ledger);
    expect(await ledger.unfedBatches(ACCOUNT, 1_000)).not.toContain(batch.id);
    expect(await ledger.publishPart(batch, part(1, 3, 2))).toBe("missing");
    expect(await ledger.publishPart(batch, part(0, 0, 3))).toBe("published");
    expect(await ledger.publishPart(batch, part(0, 0, 3))).toBe("already");
    expect(await ledger.publishPart(batch, part(1, 3, 2, [4]))).toBe("published");
    expect(await ledger.publishPart(batch, part(1, 3, 2, [4]))).toBe("already");
    const standing = await ledger.standing(ACCOUNT, batch.id);
    expect(standing).toMatchObject({ parts: 2, batch: { items: 5 }, counts: { waiting: 4, canceled: 1 } });
    const states = await ledger.readStates(ACCOUNT, batch.id, 0, 5);
    expect(states.map(({ state }) => state)).toEqual(["waiting", "waiting", "waiting", "waiting", "canceled"]);
    for (const [index, found] of [
      [0, 0],
      [2, 0],
      [3, 1],
      [4, 1],
    ] as const) {
      expect(await ledger.partOf(ACCOUNT, batch.id, index)).toEqual({ part: found, first: found * 3 });
    }
    expect(await ledger.unfedBatches(ACCOUNT, 1_000)).toContain(batch.id);
    expect(await ledger.unfinishedBatches(ACCOUNT, 1_000)).toContain(batch.id);
  });

  test("adds up however its parts are published", async ({ line: { ledger } }) => {
    const published = fc.record({
      parts: fc.array(fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }), { minLength: 1, maxLength: 5 }),
      order: fc.array(fc.nat(4), { minLength: 5, maxLength: 40 }),
    });
    await fc.assert(
      fc.asyncProperty(published, async ({ parts, order }) => {
        const batch = await open(ledger);
        const firsts = parts.map((_, n) => parts.slice(0, n).flat().length);
        let next = 0;
        for (const n of [...order, ...parts.keys()]) {
          const rows = parts[n];
          if (rows === undefined) continue;
          const first = firsts[n] ?? 0;
          const voids = rows.flatMap((isVoid, at) => (isVoid ? [first + at] : []));
          const expected = n < next ? "already" : n === next ? "published" : "missing";
          expect(await ledger.publishPart(batch, part(n, first, rows.length, voids))).toBe(expected);
          if (expected === "published") next++;
        }
        const standing = await ledger.standing(ACCOUNT, batch.id);
        const voids = parts.flat().filter(Boolean).length;
        expect(standing?.batch.items).toBe(parts.flat().length);
        expect(standing?.counts).toMatchObject({ waiting: parts.flat().length - voids, canceled: voids });
        const states = await ledger.readStates(ACCOUNT, batch.id, 0, parts.flat().length);
        expect(states.map(({ state }) => state === "canceled")).toEqual(parts.flat());
      }),
      { numRuns: 25 },
    );
  });
});

// ── feeding and what stands still ─────────────────────────────────────────────

describe("the cursor", () => {
  test("is moved by whoever read it last, and by nobody else", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "cursor");
    const batch = newBatch({ account, items: 3 });
    await ledger.openBatch(batch);
    const refs = [0, 1, 2].map((index) => refOf(batch, index));
    const move = (before: number, after: number) =>
      ledger.advance(account, batch.id, { before, after }, refs.slice(before, after), NOON);
    expect(await Promise.all([move(0, 2), move(0, 2)])).toEqual([true, false]);
    expect(await ledger.untouched(account, NOON, 10)).toEqual(refs.slice(0, 2));
    expect((await ledger.standing(account, batch.id))?.cursor).toBe(2);
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
    expect(await move(0, 3)).toBe(false);
    expect(await move(2, 3)).toBe(true);
    expect(await ledger.unfedBatches(account, 10)).toEqual([]);
  });

  test("doesn't open an item that a fast worker has ended by then", async ({ line: { ledger } }) => {
    const account = await openedAccount(ledger, "fast");
    const batch = newBatch({ account, items: 2 });
    await ledger.openBatch(batch);
    await walk(ledger, refOf(batch, 0), "claim", "refuse", "fail");
    await ledger.advance(account, batch.id, { before: 0, after: 2 }, [refOf(batch, 0), refOf(batch, 1)], NOON);
    expect(await ledger.untouched(account, NOON, 10)).toEqual([refOf(batch, 1)]);
  });

  test("leaves the next attempt to the feed, where one that stood still says late that it gave out the first", async ({
    line: { ledger },
  }) => {
    const account = await openedAccount(ledger, "late");
    const batch = newBatch({ account, items: 1 });
    await ledger.openBatch(batch);
    const first = refOf(batch, 0);
    await ledger.advance(account, batch.id, { before: 0, after: 1 }, [first], NOON);
    await walk(ledger, first, "claim", "refuse", "fail");
    expect(await ledger.redrive(batch, [{ index: 0, ended: 1 }], NOON)).toBe(1);

    expect(await ledger.advance(account, batch.id, { before: 1, after: 1 }, [first], NOON)).toBe(true);
    expect(await ledger.returnedRows(account, batch.id, 10)).toEqual([{ index: 0, attempt: 2 }]);
    expect(await ledger.unfedBatches(account, 10)).toEqual([batch.id]);
    expect(await ledger.untouched(account, NOON, 10)).toEqual([]);
  });
});

test("what nobody touched is found, the longest untouched first; a touch and a close take effect", async ({
  line: { ledger },
}) => {
  const account = await openedAccount(ledger, "still");
  const batch = newBatch({ account, items: 3 });
  await ledger.openBatch(batch);
  const refs = [0, 1, 2].map((index) => refOf(batch, index));
  for (const [at, ref] of refs.entries()) await ledger.move(ref, "claim", { nowMs: NOON + 10 - at, nonce: "n" });
  const found = async (beforeMs: number, limit = 10) =>
    (await ledger.untouched(account, beforeMs, limit)).map(({ index }) => index);
  expect(await found(NOON + 10)).toEqual([2, 1, 0]);
  expect(await found(NOON + 9)).toEqual([2, 1]);
  expect(await found(NOON + 10, 1)).toEqual([2]);
  await ledger.touch(refOf(batch, 2), NOON + 20);
  expect(await found(NOON + 10)).toEqual([1, 0]);
  await ledger.close(refOf(batch, 1));
  await ledger.touch(refOf(batch, 1), NOON);
  expect(await found(NOON + 30), "a touch opens nothing").toEqual([0, 2]);
});

test("a rate from the configuration is taken once, until the configuration changes", async ({ line: { ledger } }) => {
  const account = await openedAccount(ledger, "rates");
  expect(await ledger.takeConfiguredRate(account, "creates", "600 true")).toBe(true);
  expect(await ledger.takeConfiguredRate(account, "creates", "600 true")).toBe(false);
  expect(await ledger.takeConfiguredRate(account, "reads", "600 true")).toBe(true);
  expect(await ledger.takeConfiguredRate(account, "creates", "300 true")).toBe(true);
  expect(await ledger.takeConfiguredRate(account, "creates", "600 true")).toBe(true);
});

test("every key of an account carries its hash tag, so that one script may touch them all", () => {
  const account: AccountName = accountName("tagged");
  const batch: BatchId = batchNamed("tagged");
  const keys = [
    REDIS_KEYS.account(account),
    REDIS_KEYS.epoch(account),
    REDIS_KEYS.unfed(account),
    REDIS_KEYS.unfinished(account),
    REDIS_KEYS.canceling(account),
    REDIS_KEYS.open(account),
    REDIS_KEYS.unclear(account),
    REDIS_KEYS.batch(account, batch),
    REDIS_KEYS.bytes(account, batch),
    REDIS_KEYS.returned(account, batch),
    REDIS_KEYS.failures(account, batch),
    REDIS_KEYS.latest(account, batch),
    REDIS_KEYS.parts(account, batch),
    REDIS_KEYS.item(account, batch, 7),
  ];
  expect(new Set(keys.map((key) => /\{([^}]*)\}/.exec(key)?.[1]))).toEqual(new Set([account]));
  expect(new Set(keys).size).toBe(keys.length);
});
