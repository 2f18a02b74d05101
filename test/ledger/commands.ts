/**
 * What the property of the ledger (`model.test.ts`) does to a batch: single steps in any order, also by who comes late, and
 * whole acts of the stages, of people and of misfortune. Each is done to Redis and to the model, and what both answer must
 * be the same.
 */

import fc from "fast-check";
import { expect } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import { ITEM_STEPS, type ItemStep } from "../../src/core/item.ts";
import type { PredictionId } from "../../src/core/prediction.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { meaningOf } from "../../src/core/telling.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import type { HoldAnswer, Ledger, LostSpan, MoveAnswer, MoveOptions } from "../../src/ledger/ledger.ts";
import { NOON, refOf } from "../support/stages.ts";
import type { Hold, MarkName, Model, Move, Stretch } from "./model.ts";
import type { Witness } from "./witness.ts";

export type Pair = {
  readonly ledger: Ledger;
  readonly batch: Batch;
  readonly model: Model;
  /** Sees what the ledger answers, and knows nothing of the model. */
  readonly witness: Witness;
};

/** Of the item's own attempt mostly; else one off. */
type Off = 0 | 1 | -1;

/** `index`: of those that there are by then. */
export type Command =
  /** Any step at any time. `sends`: how often the client sends it. */
  | (Move & { readonly kind: "step"; readonly off: Off; readonly sends: number })
  /** A single comes. */
  | { readonly kind: "enqueue" }
  /** Whoever claimed it has died; the next run of its errand finds the intent. */
  | { readonly kind: "crash"; readonly index: number }
  /** The provider tells of a prediction, five times, under the item's nonce or another. */
  | {
      readonly kind: "webhook";
      readonly index: number;
      readonly off: Off;
      readonly isOwn: boolean;
      readonly of: PredictionId;
    }
  /** The provider is asked once. */
  | { readonly kind: "poll"; readonly index: number; readonly sees: "processing" | "succeeded" | "failed" }
  /** Its outputs are copied, and its receipt is written. */
  | {
      readonly kind: "record";
      readonly index: number;
      readonly step: "save" | "fail";
      readonly amount: bigint;
      readonly retryAtMs: number | null;
    }
  /** Its own deadline has passed. */
  | { readonly kind: "expire"; readonly index: number; readonly amount: bigint }
  | { readonly kind: "mark"; readonly index: number; readonly mark: MarkName }
  | { readonly kind: "redrive"; readonly index: number; readonly off: 0 | -1 }
  | { readonly kind: "hold"; readonly act: Hold }
  | (Stretch & { readonly kind: "walk" })
  /** Redis is another, and what may have been bought on the one before is unclear. */
  | { readonly kind: "lose" }
  | { readonly kind: "doubt"; readonly indexes: readonly number[]; readonly lost: LostSpan }
  | { readonly kind: "open"; readonly lost: LostSpan | null };

export const PREDICTIONS = ["p1", "p2", "p3"].map(predictionId);
const STEPS = Object.keys(ITEM_STEPS) as ItemStep[];
const HOLDS: readonly Hold[] = ["pause", "resume", "pause batch", "resume batch", "cancel batch"];
/** Some before and some after Redis is lost, also by more than clocks differ. */
const MOMENTS = [NOON - MINUTE, NOON, NOON + 20 * SECOND, NOON + MINUTE];
const REDRIVEN_AT_MS = NOON + 10 * SECOND;

const index = fc.nat(5);
const off = fc.oneof({ weight: 9, arbitrary: fc.constant<Off>(0) }, fc.constantFrom<Off>(1, -1));
const amount = fc.bigInt({ min: 0n, max: 10n ** 12n });
const moment = fc.constantFrom(...MOMENTS);
const lost = fc.tuple(moment, moment).map(([a, b]) => ({ fromMs: Math.min(a, b), toMs: Math.max(a, b) }));

const step = fc
  .record({
    kind: fc.constant("step" as const),
    index,
    off,
    // Early steps more often, or few items would get far.
    step: fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom<ItemStep>("claim", "bind") },
      { weight: 2, arbitrary: fc.constantFrom<ItemStep>("giveBack", "withdraw") },
      { weight: 5, arbitrary: fc.constantFrom(...STEPS) },
    ),
    nonce: fc.constantFrom("a", "b", undefined),
    prediction: fc.constantFrom(...PREDICTIONS),
    reuse: fc.boolean(),
    handBack: fc.boolean(),
    amount,
    retryAtMs: fc.option(moment),
    sends: fc.constantFrom(1, 2),
  })
  .map((drawn): Command => {
    const binds = drawn.step === "bind" || drawn.step === "adopt";
    return {
      ...drawn,
      nonce: drawn.nonce ?? (drawn.step === "claim" ? "c" : undefined),
      prediction: binds ? drawn.prediction : undefined,
      handBack: drawn.step === "giveBack" && drawn.handBack,
      retryAtMs: drawn.step === "fail" ? drawn.retryAtMs : null,
    };
  });

export const anyCommand: fc.Arbitrary<Command> = fc.oneof(
  { weight: 14, arbitrary: step },
  { weight: 1, arbitrary: fc.constant({ kind: "enqueue" as const }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("crash" as const), index }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("webhook" as const),
      index,
      off,
      isOwn: fc.boolean(),
      of: fc.constantFrom(...PREDICTIONS),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("poll" as const),
      index,
      sees: fc.constantFrom("processing", "succeeded", "failed"),
    }),
  },
  {
    weight: 2,
    arbitrary: fc
      .record({
        kind: fc.constant("record" as const),
        index,
        step: fc.constantFrom("save", "fail"),
        amount,
        retryAtMs: fc.option(moment),
      })
      .map((drawn) => ({ ...drawn, retryAtMs: drawn.step === "fail" ? drawn.retryAtMs : null })),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("expire" as const), index, amount }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("mark" as const),
      index,
      mark: fc.constantFrom<MarkName>("wake", "cancel", "redriven"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("redrive" as const), index, off: fc.constantFrom(0, 0, -1) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("hold" as const), act: fc.constantFrom(...HOLDS) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("walk" as const),
      limit: fc.integer({ min: 1, max: 3 }),
      isNext: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: "lose" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("doubt" as const),
      indexes: fc.uniqueArray(index, { minLength: 1 }),
      lost,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("open" as const), lost: fc.option(lost) }) },
);

export async function carryOut(pair: Pair, drawn: Command): Promise<void> {
  const { ledger, batch, model } = pair;
  const { account } = batch;
  const command = amongThoseThere(drawn, model.items.length);
  switch (command.kind) {
    case "step": {
      const attempt = attemptOf(pair, command) + command.off;
      for (let send = 0; send < command.sends; send++) await move(pair, command, attempt);
      return;
    }
    case "enqueue":
      return enqueue(pair);
    case "crash":
      return crash(pair, command.index);
    case "webhook":
      return tell(pair, command);
    case "poll": {
      const ref = refOf(batch, command.index, attemptOf(pair, command));
      const marks = await ledger.takeMarks(ref, command.sees);
      expect(marks, "marks").toEqual(model.takeMarks(command.index));
      if (command.sees === "processing") return;
      await move(pair, { ...command, step: command.sees === "succeeded" ? "succeed" : "conclude" }, ref.attempt);
      return;
    }
    case "record": {
      const attempt = attemptOf(pair, command);
      await move(pair, { index: command.index, step: "finishCopy" }, attempt);
      // As after a crash between its effects.
      for (let times = 0; times < 2; times++) await move(pair, command, attempt);
      return;
    }
    case "expire": {
      const attempt = attemptOf(pair, command);
      await move(pair, { index: command.index, step: "withdraw" }, attempt);
      await move(pair, { index: command.index, step: "conclude" }, attempt);
      await move(pair, { ...command, step: "cancel" }, attempt);
      return;
    }
    case "mark": {
      const ref = refOf(batch, command.index, attemptOf(pair, command));
      const value = command.mark === "redriven" ? REDRIVEN_AT_MS : 1;
      const late = await ledger.markItem({ ...ref, attempt: ref.attempt + 1 }, command.mark, String(value));
      expect(late, "another attempt's").toBeNull();
      const marked = await ledger.markItem(ref, command.mark, String(value));
      expect(marked).toBe(model.mark(command.index, command.mark, value));
      return;
    }
    case "redrive": {
      const items = [{ index: command.index, ended: attemptOf(pair, command) + command.off }];
      const opened = await ledger.redrive(batch, items, NOON);
      // As a client sends it again that heard no answer.
      const again = await ledger.redrive(batch, items, NOON);
      if (opened !== null) expect(again).toBe(0);
      expect(opened).toBe(model.redrive(command.index, attemptOf(pair, command) + command.off));
      return;
    }
    case "hold":
      expect(await hold(pair, command.act)).toBe(model.hold(command.act));
      return;
    case "walk":
      return walk(pair, command);
    case "lose":
      await ledger.noteOpened(account, "another", null);
      model.lose();
      return;
    case "doubt": {
      const stands = { fed: model.items.length, cursor: model.items.length };
      const expected = model.doubtLost(command.indexes, command.lost);
      for (let times = 0; times < 2; times++) {
        expect(await ledger.doubtLost(batch, stands, command.indexes, command.lost)).toBe(expected);
      }
      return;
    }
    case "open":
      await ledger.noteOpened(account, await ledger.readIdentity(account), command.lost);
      model.open(command.lost);
      return;
    default:
      command satisfies never;
  }
}

function amongThoseThere(command: Command, items: number): Command {
  if ("indexes" in command) return { ...command, indexes: [...new Set(command.indexes.map((one) => one % items))] };
  return "index" in command ? { ...command, index: command.index % items } : command;
}

function attemptOf({ model }: Pair, { index: of }: { readonly index: number }): number {
  return model.at(of).byte.attempt;
}

async function move(pair: Pair, told: Move, attempt: number): Promise<MoveAnswer["answer"]> {
  const { ledger, batch, model, witness } = pair;
  const ref = refOf(batch, told.index, attempt);
  const expected = model.move(told, attempt);
  const item = model.at(told.index);
  const moved = await ledger.move(ref, told.step, optionsOf(told));
  witness.hear(ref, told, moved.answer);
  expect(moved, told.step).toMatchObject({
    answer: expected,
    state: item.byte.state,
    predictionId: item.prediction,
    left: model.left,
    intentAtMs: item.intent?.toMs ?? null,
  });
  return moved.answer;
}

function optionsOf({ step: of, nonce, prediction, reuse, handBack, amount: paid, retryAtMs }: Move): MoveOptions {
  const isEnding = of === "save" || of === "fail" || of === "cancel";
  return {
    nowMs: NOON,
    ...(nonce !== undefined && { nonce }),
    ...(prediction !== undefined && { predictionId: prediction, reuse: reuse === true }),
    ...(handBack === true && { handBack }),
    ...(retryAtMs != null && { retry: { recordedAtMs: retryAtMs } }),
    ...(isEnding &&
      paid !== undefined && {
        sums: { predict_time_ms: paid, output_bytes: 2n * paid, output_files: 1n, not_saved: 1n },
      }),
  };
}

async function enqueue({ ledger, batch, model }: Pair): Promise<void> {
  const first = model.items.length;
  const part = { part: first, first, rows: 1, voidIndexes: [] };
  expect(await ledger.publishPart(batch, part)).toBe("published");
  expect(await ledger.publishPart(batch, part)).toBe("already");
  await ledger.advance(batch.account, batch.id, { before: first, after: first + 1 }, [], NOON);
  model.enqueue();
}

async function crash(pair: Pair, of: number): Promise<void> {
  const attempt = attemptOf(pair, { index: of });
  await move(pair, { index: of, step: "claim", nonce: "of the dead" }, attempt);
  const next = await move(pair, { index: of, step: "claim", nonce: "of the next" }, attempt);
  if (next === "lost" && pair.model.at(of).byte.state === "claimed")
    await move(pair, { index: of, step: "doubt" }, attempt);
}

/** As `take-webhook.ts` does it. */
async function tell(
  pair: Pair,
  { index: of, off: by, isOwn, of: prediction }: Command & { kind: "webhook" },
): Promise<void> {
  const { ledger, batch, model } = pair;
  const attempt = attemptOf(pair, { index: of }) + by;
  const ref = refOf(batch, of, attempt);
  const nonce = isOwn ? (model.at(of).nonce ?? "none") : "another";
  let bound = 0;
  for (let times = 0; times < 5; times++) {
    const { fields, ...byte } = await ledger.readItem(ref);
    const stands = { ...byte, prediction: fields.prediction_id ?? null, nonce: fields.nonce ?? null };
    const meaning = meaningOf({ attempt, nonce, prediction }, stands);
    if (meaning.kind === "bind") {
      const own = meaning.step === "bind" ? { nonce } : {};
      const answer = await move(pair, { index: of, step: meaning.step, prediction, ...own }, attempt);
      bound += answer === "moved" ? 1 : 0;
    }
    if (meaning.kind === "wake") {
      expect(await ledger.markItem(ref, "wake")).toBe("running");
      model.mark(of, "wake", 1);
    }
  }
  expect(bound, "it gives the item its prediction once").toBeLessThan(2);
}

function hold({ ledger, batch }: Pair, act: Hold): Promise<HoldAnswer | boolean> {
  switch (act) {
    case "pause":
      return ledger.pauseAccount(batch.account, "why");
    case "resume":
      return ledger.resumeAccount(batch.account);
    case "pause batch":
      return ledger.pauseBatch(batch, "why");
    case "resume batch":
      return ledger.resumeBatch(batch);
    case "cancel batch":
      return ledger.cancelBatch(batch, NOON);
    default:
      return act satisfies never;
  }
}

async function walk({ ledger, batch, model }: Pair, stretch: Stretch): Promise<void> {
  const from = stretch.isNext ? model.next : null;
  const running = model.walk(stretch);
  const walked = await ledger.walkCancel(batch.account, batch.id, from, stretch.limit);
  // As a client sends it again that heard no answer.
  expect(await ledger.walkCancel(batch.account, batch.id, from, stretch.limit)).toEqual(walked);
  const expected = {
    next: model.next,
    over: model.walked === model.items.length,
    left: model.left,
    running: running.map((of) => refOf(batch, of, model.at(of).byte.attempt)),
  };
  expect(walked).toEqual(model.canceled ? expected : { next: 0, over: true, left: 0, running: [] });
}
