import fc from "fast-check";
import type { Redis } from "ioredis";
import { describe, expect } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import {
  ITEM_STATES,
  ITEM_STEPS,
  type ItemByte,
  type ItemState,
  type ItemStep,
  isEnd,
  MAX_ATTEMPT,
  stepItem,
  writeItemByte,
} from "../../src/core/item.ts";
import { type AccountName, type AttemptRef, type BatchId, errandId, REDIS_KEYS } from "../../src/core/naming.ts";
import { type PredictionId, predictionId } from "../../src/core/prediction.ts";
import type { HoldAnswer, Ledger, MoveAnswer, MoveOptions } from "../../src/ledger/ledger.ts";
import {
  ACCOUNT,
  accountName,
  batchNamed,
  NOON,
  newBatch,
  openAccount,
  openedAccount,
  refOf,
  test,
} from "../support/stages.ts";

const P1 = predictionId("p1");
const P2 = predictionId("p2");
const P3 = predictionId("p3");

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

// ── the one transition, against its model ─────────────────────────────────────

type Op = {
  readonly index: number;
  /** Of the item's own attempt mostly; else one off. */
  readonly off: 0 | 1 | -1;
  readonly step: ItemStep;
  readonly nonce: string | undefined;
  readonly prediction: PredictionId;
  readonly reuse: boolean;
  readonly handBack: boolean;
  readonly amount: bigint;
  /** With `fail`: the provider's own failure. */
  readonly retry: boolean;
  /** How often the client sends it. */
  readonly sends: 1 | 2;
};

/** What is done to the account, or to the batch as a whole. */
type Whole = "pause" | "resume" | "pause batch" | "resume batch" | "cancel batch" | "replace Redis" | "open";

/** `isNext`: from where the last stretch ended, as a feed that lives does; else from where the walk stands. */
type Stretch = { readonly limit: number; readonly isNext: boolean };

type Mark = { readonly marked: number };

/** `off`: as with a step. */
type Redrive = { readonly redriven: number; readonly off: 0 | -1 };

/** What a batch of the property says of failures of the provider's own. */
const RETRY_FAILED = 3;

type ModelItem = {
  byte: ItemByte;
  nonce: string | null;
  prediction: PredictionId | null;
  place: "open" | "unclear" | null;
  returned: boolean;
  marked: boolean;
};

/** What the scripts promise, written down once more without Redis. All rows of the batch have been fed. */
class Model {
  readonly items: ModelItem[];
  opened = true;
  paused = false;
  batchPaused = false;
  canceled = false;
  unfed = false;
  walked = 0;
  next = 0;
  walkOver = false;
  sum = 0n;
  files = 0;
  /** Who has which prediction, also after its end. */
  readonly held = new Map<PredictionId, { readonly index: number; readonly attempt: number }>();

  constructor(attempts: readonly number[]) {
    this.items = attempts.map((attempt) => ({
      byte: { attempt, state: "waiting" },
      nonce: null,
      prediction: null,
      place: null,
      returned: false,
      marked: false,
    }));
  }

  move(op: Op, attempt: number): MoveAnswer["answer"] {
    const item = this.at(op.index);
    const claim = op.step === "claim";
    const { answer, item: next } = stepItem(item.byte, attempt, op.step);
    if (item.byte.attempt !== attempt) return "lost";
    if (claim && item.byte.state === "claimed" && item.nonce === op.nonce) return "moved";
    if (!claim && op.nonce !== undefined && item.nonce !== op.nonce) return "lost";
    if (answer === "already") {
      return claim || (binds(op) && item.prediction !== op.prediction) ? "lost" : "already";
    }
    if (answer === "lost") return "lost";
    if ((claim || op.step === "withdraw") && !this.opened) return "unopened";
    const waitsAgain = next.state === "waiting";
    if ((claim && this.canceled) || (waitsAgain && (this.canceled || item.marked))) {
      this.end(item, "canceled");
      return "canceled";
    }
    if (claim && (this.paused || this.batchPaused)) {
      this.giveToFeed(item);
      return "paused";
    }
    const holder = binds(op) ? this.held.get(op.prediction) : undefined;
    const isAnothers = holder?.index !== op.index || (holder.attempt !== attempt && !op.reuse);
    if (holder !== undefined && isAnothers) return "taken";
    if (isEnd(next.state)) {
      const retries = op.step === "fail" && op.retry && !this.canceled && !item.marked && attempt <= RETRY_FAILED;
      this.end(item, next.state);
      if (retries && this.opened) this.openAttempt(item);
      if (retries && !this.opened) this.doubtNext(item);
      if (ENDS.includes(op.step)) Object.assign(this, { sum: this.sum + op.amount, files: this.files + 1 });
      return retries ? "retried" : "moved";
    }
    const was = item.byte.state;
    item.byte = next;
    item.place = next.state === "unclear" ? "unclear" : "open";
    if (claim) item.nonce = op.nonce ?? null;
    if (binds(op)) {
      item.prediction = op.prediction;
      this.held.set(op.prediction, { index: op.index, attempt });
    }
    if (was === "waiting" && !claim) this.takeFromFeed(item);
    if (waitsAgain) Object.assign(item, { nonce: null, prediction: null });
    if (waitsAgain && (op.handBack || was === "unclear")) this.giveToFeed(item);
    return "moved";
  }

  /** What the ledger answers. */
  hold(act: Whole): HoldAnswer | boolean {
    switch (act) {
      case "replace Redis":
      case "open":
        this.opened = act === "open";
        return true;
      case "pause":
      case "resume": {
        const changes = this.paused !== (act === "pause");
        this.paused = act === "pause";
        return changes;
      }
      case "cancel batch":
        if (this.canceled) return "already";
        Object.assign(this, { canceled: true, batchPaused: false, unfed: false });
        return "done";
      case "pause batch":
        if (this.canceled) return "over";
        if (this.batchPaused) return "already";
        Object.assign(this, { batchPaused: true, unfed: false });
        return "done";
      case "resume batch":
        if (this.canceled) return "over";
        if (!this.batchPaused) return "already";
        Object.assign(this, { batchPaused: false, unfed: this.items.some((item) => item.returned) });
        return "done";
      default:
        return act satisfies never;
    }
  }

  /** Answers the running items of the stretch. */
  walk({ limit, isNext }: Stretch): readonly number[] {
    if (!this.canceled) return [];
    this.walked = Math.max(this.walked, isNext ? this.next : 0);
    this.next = Math.min(this.walked + limit, this.items.length);
    const stretch = this.items.slice(this.walked, this.next);
    for (const item of stretch) {
      if (item.byte.state === "waiting")
        Object.assign(item, { byte: { ...item.byte, state: "canceled" }, place: null });
    }
    if (this.walked === this.items.length) {
      for (const item of this.items) item.returned = false;
      this.walkOver = true;
    }
    return stretch.flatMap((item, at) => (item.byte.state === "running" ? [this.walked + at] : []));
  }

  mark(index: number): ItemState {
    const item = this.at(index);
    // What was recalled without a prediction has no hash to leave the word in.
    const hasHash = item.nonce !== null || item.prediction !== null;
    item.marked ||= hasHash && item.byte.state !== "waiting" && !isEnd(item.byte.state);
    return item.byte.state;
  }

  /** Answers how many were opened; null while the batch is being canceled. */
  redrive({ redriven, off }: Redrive): number | null {
    if (this.canceled && (!this.walkOver || this.left > 0)) return null;
    // It takes the cancel back, and another one walks anew.
    if (this.canceled) Object.assign(this, { canceled: false, walked: 0, next: 0, walkOver: false });
    const item = this.at(redriven);
    if (off !== 0 || !isEnd(item.byte.state) || item.byte.attempt === MAX_ATTEMPT) return 0;
    this.openAttempt(item);
    return 1;
  }

  /** Redis may have lost that the next attempt was bought. */
  doubtNext(item: ModelItem): void {
    const byte = { attempt: item.byte.attempt + 1, state: "unclear" } as const;
    Object.assign(item, { byte, place: "unclear", nonce: `lost-${NOON}` });
  }

  openAttempt(item: ModelItem): void {
    item.byte = { attempt: item.byte.attempt + 1, state: "waiting" };
    this.giveToFeed(item);
  }

  at(index: number): ModelItem {
    const item = this.items[index];
    if (item === undefined) throw new Error("no such item");
    return item;
  }

  end(item: ModelItem, state: ItemState): void {
    const byte = { ...item.byte, state };
    Object.assign(item, { byte, nonce: null, prediction: null, place: null, marked: false });
    this.takeFromFeed(item);
  }

  takeFromFeed(item: ModelItem): void {
    const wasReturned = item.returned;
    item.returned = false;
    if (wasReturned && !this.items.some((one) => one.returned)) this.unfed = false;
  }

  giveToFeed(item: ModelItem): void {
    Object.assign(item, { place: null, returned: true });
    this.unfed = !this.batchPaused;
  }

  count(state: ItemState): number {
    return this.items.filter((item) => item.byte.state === state).length;
  }

  get left(): number {
    return this.items.filter((item) => !isEnd(item.byte.state)).length;
  }
}

const binds = ({ step }: Op) => step === "bind" || step === "adopt";

const STEPS = Object.keys(ITEM_STEPS) as ItemStep[];
const ENDS: readonly ItemStep[] = ["save", "fail", "cancel"];

const WHOLES = [
  "pause",
  "resume",
  "pause batch",
  "resume batch",
  "cancel batch",
  "replace Redis",
  "open",
  "open",
] as const satisfies readonly Whole[];

const anyOp = (items: number): fc.Arbitrary<Op | Whole | Stretch | Mark | Redrive> =>
  fc.oneof(
    {
      weight: 12,
      arbitrary: fc.record({
        index: fc.nat(items - 1),
        off: fc.oneof({ weight: 9, arbitrary: fc.constant(0 as const) }, fc.constantFrom(1 as const, -1 as const)),
        // Early steps more often, or few items would get far.
        step: fc.oneof(
          { weight: 3, arbitrary: fc.constantFrom<ItemStep>("claim", "bind") },
          { weight: 2, arbitrary: fc.constantFrom<ItemStep>("giveBack", "withdraw") },
          { weight: 5, arbitrary: fc.constantFrom(...STEPS) },
        ),
        nonce: fc.constantFrom("a", "b", undefined),
        prediction: fc.constantFrom(P1, P2, P3),
        reuse: fc.boolean(),
        handBack: fc.boolean(),
        amount: fc.bigInt({ min: 0n, max: 10n ** 12n }),
        retry: fc.boolean(),
        sends: fc.constantFrom(1 as const, 2 as const),
      }),
    },
    { weight: 3, arbitrary: fc.constantFrom(...WHOLES) },
    { weight: 3, arbitrary: fc.record({ limit: fc.integer({ min: 1, max: 3 }), isNext: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ marked: fc.nat(items - 1) }) },
    {
      weight: 2,
      arbitrary: fc.record({ redriven: fc.nat(items - 1), off: fc.constantFrom(0 as const, 0 as const, -1 as const) }),
    },
  );

/** Carries out what isn't a step of one item; answers what the ledger answered, and what the model did. */
async function carryOut(
  ledger: Ledger,
  batch: Batch,
  model: Model,
  op: Whole | Stretch | Mark | Redrive,
): Promise<{ readonly answered: unknown; readonly expected: unknown }> {
  if (typeof op === "string") {
    const calls: Record<Whole, () => Promise<HoldAnswer | boolean>> = {
      "replace Redis": () => ledger.noteOpened(batch.account, "another", null).then(() => true),
      open: () => openAccount(ledger, batch.account).then(() => true),
      pause: () => ledger.pauseAccount(batch.account, "why"),
      resume: () => ledger.resumeAccount(batch.account),
      "pause batch": () => ledger.pauseBatch(batch, "why"),
      "resume batch": () => ledger.resumeBatch(batch),
      "cancel batch": () => ledger.cancelBatch(batch, NOON),
    };
    return { answered: await calls[op](), expected: model.hold(op) };
  }
  if ("marked" in op) {
    const ref = refOf(batch, op.marked, model.at(op.marked).byte.attempt);
    expect(await ledger.markItem({ ...ref, attempt: ref.attempt + 1 }, "cancel"), "another attempt's").toBeNull();
    return { answered: await ledger.markItem(ref, "cancel"), expected: model.mark(op.marked) };
  }
  if ("redriven" in op) {
    const { byte } = model.at(op.redriven);
    const items = [{ index: op.redriven, ended: byte.attempt + op.off }];
    const answered = await ledger.redrive(batch, items, NOON);
    // As a client sends it again that heard no answer.
    const again = await ledger.redrive(batch, items, NOON);
    if (answered !== null) expect(again).toBe(0);
    return { answered, expected: model.redrive(op) };
  }
  const from = op.isNext ? model.next : null;
  const running = model.walk(op);
  const walked = await ledger.walkCancel(batch.account, batch.id, from, op.limit);
  // As a client sends it again that heard no answer.
  expect(await ledger.walkCancel(batch.account, batch.id, from, op.limit)).toEqual(walked);
  const expected = {
    next: model.next,
    over: model.walked === batch.items,
    left: model.left,
    running: running.map((index) => refOf(batch, index, model.at(index).byte.attempt)),
  };
  return { answered: walked, expected: model.canceled ? expected : { next: 0, over: true, left: 0, running: [] } };
}

function optionsOf(op: Op): MoveOptions {
  const nonce = op.nonce ?? (op.step === "claim" ? "c" : undefined);
  return {
    nowMs: NOON,
    ...(nonce !== undefined && { nonce }),
    ...(binds(op) && { predictionId: op.prediction, reuse: op.reuse }),
    ...(op.step === "giveBack" && op.handBack && { handBack: true }),
    ...(op.step === "fail" && op.retry && { retry: { recordedAtMs: NOON } }),
    ...(ENDS.includes(op.step) && {
      sums: { predict_time_ms: op.amount, output_bytes: 2n * op.amount, output_files: 1n },
    }),
  };
}

test("the script moves items exactly as the model does, whatever comes in whatever order and however often", {
  timeout: 120_000,
}, async ({ line }) => {
  const { ledger, redis } = line;
  let run = 0;
  const world = fc
    .array(fc.integer({ min: 1, max: 15 }), { minLength: 1, maxLength: 4 })
    .chain((attempts) =>
      fc.tuple(fc.constant(attempts), fc.array(anyOp(attempts.length), { minLength: 1, maxLength: 50, size: "max" })),
    );

  await fc.assert(
    fc.asyncProperty(world, async ([attempts, ops]) => {
      const account = await openedAccount(ledger, `property-${run++}`);
      const batch = newBatch({ account, items: attempts.length, retryFailed: RETRY_FAILED });
      await ledger.openBatch(batch);
      const bytes = Buffer.from(attempts.map((attempt) => writeItemByte({ attempt, state: "waiting" })));
      await redis.setrange(REDIS_KEYS.bytes(account, batch.id), 0, bytes);
      await ledger.advance(account, batch.id, { before: 0, after: batch.items }, [], NOON);
      const model = new Model(attempts);

      for (const op of ops) {
        if (typeof op === "string" || !("step" in op)) {
          const { answered, expected } = await carryOut(ledger, batch, model, op);
          expect(answered, JSON.stringify(op)).toEqual(expected);
          continue;
        }
        const { nonce, ...more } = optionsOf(op);
        const told: Op = { ...op, nonce, handBack: more.handBack ?? false };
        const attempt = model.at(op.index).byte.attempt + op.off;
        for (let send = 0; send < op.sends; send++) {
          const ref = refOf(batch, op.index, attempt);
          const expected = model.move(told, attempt);
          const item = model.items[op.index];
          expect(await ledger.move(ref, op.step, { ...optionsOf(op) })).toMatchObject({
            answer: expected,
            state: item?.byte.state,
            predictionId: item?.prediction,
            left: model.left,
          });
        }
      }
      await compare(ledger, redis, batch, model);
    }),
    { numRuns: 400 },
  );
});

async function compare(ledger: Ledger, redis: Redis, batch: Batch, model: Model): Promise<void> {
  const { account, id } = batch;
  const states = await ledger.readStates(account, id, 0, batch.items);
  expect(states).toEqual(model.items.map((item) => item.byte));

  // Counters equal the bytes, and so add up to the items.
  const standing = await ledger.standing(account, id);
  expect(standing?.counts).toEqual(Object.fromEntries(ITEM_STATES.map((state) => [state, model.count(state)])));
  expect(standing?.batch.items).toBe(batch.items);
  expect(standing?.sums).toEqual({
    predict_time_ms: model.sum,
    output_bytes: 2n * model.sum,
    output_files: BigInt(model.files),
    not_saved: 0n,
  });
  expect(standing?.paused).toBe(model.batchPaused ? "why" : null);
  expect(standing?.canceledAtMs).toBe(model.canceled ? NOON : null);

  const members = (of: (item: ModelItem) => boolean) =>
    model.items
      .flatMap((item, index) => (of(item) ? [errandId({ batch: id, index, attempt: item.byte.attempt })] : []))
      .toSorted();
  expect(await zset(redis, REDIS_KEYS.open(account))).toEqual(members((item) => item.place === "open"));
  expect(await zset(redis, REDIS_KEYS.unclear(account))).toEqual(members((item) => item.place === "unclear"));

  expect(await zset(redis, REDIS_KEYS.claimed(account))).toEqual(members((item) => item.byte.state === "claimed"));

  const returned = model.items.flatMap((item, index) => (item.returned ? [String(index)] : []));
  expect((await redis.smembers(REDIS_KEYS.returned(account, id))).toSorted()).toEqual(returned);
  expect(await ledger.unfedBatches(account, 10)).toEqual(model.unfed ? [id] : []);
  expect(await ledger.cancelingBatches(account, 10)).toEqual(model.canceled && !model.walkOver ? [id] : []);

  for (const [index, item] of model.items.entries()) {
    const { fields } = await ledger.readItem({ account, batch: id, index });
    expect(fields.nonce ?? null).toBe(item.nonce);
    expect(fields.prediction_id ?? null).toBe(item.prediction);
    expect("cancel" in fields).toBe(item.marked);
  }
}

async function zset(redis: Redis, key: string): Promise<string[]> {
  return (await redis.zrange(key, 0, "-1")).toSorted();
}

// ── the same, told as stories ─────────────────────────────────────────────────

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
    await ledger.finishBatch(ACCOUNT, old.id, NOON + 9);
    await ledger.finishBatch(ACCOUNT, old.id, NOON + 9);
    expect(await ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([young.id]);
    expect((await ledger.standing(ACCOUNT, old.id))?.finishedAtMs).toBe(NOON + 9);
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
