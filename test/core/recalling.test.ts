/** Where items stand, by what the bucket alone says of them. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type ItemState, MAX_ATTEMPT, readItemByte } from "../../src/core/item.ts";
import {
  openRecall,
  type RecallFacts,
  type RecordedAttempt,
  type RecordedItem,
  recallItem,
} from "../../src/core/recalling.ts";

const LOST_BY = 10_000;

const BARE: RecallFacts = {
  items: 10,
  retryFailed: 0,
  fed: 0,
  boughtFromMs: () => 1_000,
  lostByMs: LOST_BY,
  redriven: new Map(),
  isVoid: () => false,
  canceled: new Set(),
  canceledAtMs: null,
  walkedAtMs: null,
  endedByMs: null,
};

const SAVED: RecordedAttempt = {
  attempt: 1,
  end: "saved",
  recordedAtMs: 5_000,
  failure: null,
  byProvider: false,
  billedMs: 1_500n,
  files: 1,
  fileBytes: 70_000n,
  notSaved: 0n,
};
const FAILED: RecordedAttempt = { ...SAVED, end: "failed", failure: "NSFW", files: 0, fileBytes: 0n };
const INTERRUPTED: RecordedAttempt = { ...FAILED, failure: "interrupted", byProvider: true };

/** How an item is written here: its state, and of an unclear one the span. */
function wordsOf(recorded: readonly RecordedAttempt[], facts: Partial<RecallFacts>): string {
  const { attempt, state, span } = recallItem(4, recorded, { ...BARE, ...facts });
  return `${attempt} ${state}${span === null ? "" : ` ${span.fromMs}-${span.toMs}`}`;
}

describe("an item", () => {
  test.for<readonly [string, readonly RecordedAttempt[], Partial<RecallFacts>, string]>([
    ["that wasn't given out waits", [], {}, "1 waiting"],
    ["that was given out may have been bought", [], { fed: 5 }, "1 unclear 1000-10000"],
    [
      "whose window was noted after Redis was lost",
      [],
      { fed: 5, boughtFromMs: () => 11_000 },
      "1 unclear 10000-10000",
    ],
    ["that came later than Redis was lost waits", [], { fed: 5, boughtFromMs: () => null }, "1 waiting"],
    ["that is void is canceled, given out or not", [], { fed: 5, isVoid: () => true }, "1 canceled"],
    ["without a receipt, of a batch that had ended", [], { fed: 5, endedByMs: 9_000 }, "1 canceled"],
    ["that a cancel of the batch will find waits", [], { canceledAtMs: 4_000 }, "1 waiting"],
    ["that a cancel had found, before others were redriven", [], { walkedAtMs: 4_000 }, "1 canceled"],
    ["that was given out before that cancel", [], { walkedAtMs: 4_000, fed: 5 }, "1 unclear 1000-10000"],
    ["with a receipt stands as that says", [SAVED], { fed: 5 }, "1 saved"],
    ["with a receipt, whatever was given out", [{ ...FAILED, end: "canceled" }], {}, "1 canceled"],
    ["that the model failed isn't retried", [FAILED], { retryFailed: 3 }, "1 failed"],
    ["that the provider failed isn't retried unasked", [INTERRUPTED], {}, "1 failed"],
    ["that the provider failed is retried", [INTERRUPTED], { retryFailed: 1 }, "2 unclear 5000-10000"],
    ["that was retried, and ended", [INTERRUPTED, { ...SAVED, attempt: 2 }], { retryFailed: 1 }, "2 saved"],
    ["whose retries are used up", [INTERRUPTED, { ...INTERRUPTED, attempt: 2 }], { retryFailed: 1 }, "2 failed"],
    ["that failed after its batch was canceled", [INTERRUPTED], { retryFailed: 1, canceledAtMs: 5_000 }, "1 failed"],
    ["that was retried before", [INTERRUPTED], { retryFailed: 1, canceledAtMs: 5_001 }, "2 unclear 5000-10000"],
    ["that failed before its batch had ended", [INTERRUPTED], { retryFailed: 1, endedByMs: 5_000 }, "1 failed"],
    ["that was redriven", [FAILED], { redriven: new Map([[4, { ended: 1, atMs: 7_000 }]]) }, "2 unclear 7000-10000"],
    [
      "that was redriven without a receipt",
      [],
      { redriven: new Map([[4, { ended: 1, atMs: 7_000 }]]) },
      "2 unclear 7000-10000",
    ],
    [
      "that was redriven, and ended",
      [FAILED, { ...SAVED, attempt: 2 }],
      { redriven: new Map([[4, { ended: 1, atMs: 7_000 }]]) },
      "2 saved",
    ],
    [
      "that was redriven when all had ended",
      [FAILED],
      { endedByMs: 6_000, redriven: new Map([[4, { ended: 1, atMs: 7_000 }]]) },
      "2 unclear 7000-10000",
    ],
  ])("%s", ([, recorded, facts, stands]) => {
    expect(wordsOf(recorded, facts)).toBe(stands);
  });
});

// ── any batch ─────────────────────────────────────────────────────────────────

const ITEMS = 40;

const anyAttempt: fc.Arbitrary<Omit<RecordedAttempt, "attempt">> = fc
  .record({
    end: fc.constantFrom("saved" as const, "failed" as const, "canceled" as const),
    recordedAtMs: fc.integer({ min: 1_000, max: LOST_BY }),
    byProvider: fc.boolean(),
    group: fc.constantFrom("NSFW", "interrupted", "out of memory"),
    billedMs: fc.bigInt({ min: 0n, max: 10n ** 9n }),
    files: fc.nat(3),
    fileBytes: fc.bigInt({ min: 0n, max: 10n ** 12n }),
    notSaved: fc.constantFrom(-1n, 0n, 1n),
  })
  .map(({ group, ...attempt }) => ({
    ...attempt,
    byProvider: attempt.end === "failed" && attempt.byProvider,
    failure: attempt.end === "failed" ? group : null,
  }));

const anyItem = fc.tuple(fc.nat(ITEMS - 1), fc.array(anyAttempt, { maxLength: 3 }), fc.boolean()).map(
  ([index, ends, firstLeftNone]): RecordedItem => ({
    index,
    attempts: ends.map((end, at) => ({ ...end, attempt: at + 1 })).slice(firstLeftNone ? 1 : 0),
  }),
);

const anyRecorded = fc
  .uniqueArray(anyItem, { selector: ({ index }) => index })
  .map((items) => items.toSorted((a, b) => a.index - b.index));

const anyMs = fc.option(fc.integer({ min: 0, max: 2 * LOST_BY }));
const someIndexes = fc.uniqueArray(fc.nat(ITEMS - 1)).map((indexes) => new Set(indexes));

const anyFacts: fc.Arbitrary<RecallFacts> = fc
  .record({
    retryFailed: fc.nat(3),
    fed: fc.nat(ITEMS),
    late: fc.nat(ITEMS),
    fromMs: fc.integer({ min: 0, max: 2 * LOST_BY }),
    redriven: fc.dictionary(
      fc.nat(ITEMS - 1).map(String),
      fc.record({ ended: fc.integer({ min: 1, max: 3 }), atMs: fc.nat(LOST_BY) }),
    ),
    voids: someIndexes,
    canceled: someIndexes,
    canceledAtMs: anyMs,
    walkedAtMs: anyMs,
    endedByMs: anyMs,
  })
  .map(({ late, fromMs, redriven, voids, ...facts }) => ({
    ...facts,
    items: ITEMS,
    lostByMs: LOST_BY,
    boughtFromMs: (index) => (index >= late ? null : fromMs),
    redriven: new Map(Object.entries(redriven).map(([index, act]) => [Number(index), act])),
    isVoid: (index) => voids.has(index),
  }));

function recall(recorded: readonly RecordedItem[], facts: RecallFacts) {
  const open = openRecall(facts);
  for (const item of recorded) open.take(item);
  const recalled = open.end();
  const states = [...recalled.bytes].map((byte) => readItemByte(byte));
  return { ...recalled, states };
}

const attemptsOf = (recorded: readonly RecordedItem[], index: number) =>
  recorded.find((item) => item.index === index)?.attempts ?? [];

const sum = (numbers: readonly bigint[]) => numbers.reduce((total, one) => total + one, 0n);

describe("whatever the bucket holds,", () => {
  test("counts add up to the items, and equal the bytes", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        const { counts, states } = recall(recorded, facts);
        expect(states).toHaveLength(ITEMS);
        const counted = new Map<ItemState, number>();
        for (const { state } of states) counted.set(state, (counted.get(state) ?? 0) + 1);
        expect(counts).toEqual(counted);
      }),
    );
  });

  test("sums are those of all receipts, earlier attempts' too", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        const all = recorded.flatMap(({ attempts }) => attempts);
        expect(recall(recorded, facts).sums).toEqual({
          predict_time_ms: sum(all.map(({ billedMs }) => billedMs)),
          output_bytes: sum(all.map(({ fileBytes }) => fileBytes)),
          output_files: sum(all.map(({ files }) => BigInt(files))),
          not_saved: sum(all.map(({ notSaved }) => notSaved)),
        });
      }),
    );
  });

  test("an item whose last attempt has a receipt, and that nobody bought again, stands as the receipt says", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        const { states } = recall(recorded, { ...facts, retryFailed: 0 });
        for (const { index, attempts } of recorded) {
          const last = attempts.at(-1);
          if (last === undefined || (facts.redriven.get(index)?.ended ?? 0) >= last.attempt) continue;
          expect(states[index]).toEqual({ attempt: last.attempt, state: last.end });
        }
      }),
    );
  });

  test("nothing waits that may have been bought, and nothing is unclear that wasn't given out or opened again", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        for (const [index, { state, attempt }] of recall(recorded, facts).states.entries()) {
          const mayBeBought = index < facts.fed && facts.boughtFromMs(index) !== null;
          if (state === "waiting") {
            expect([attempt, mayBeBought, facts.redriven.has(index), attemptsOf(recorded, index).length]).toEqual([
              1,
              false,
              false,
              0,
            ]);
          }
          if (state === "unclear" && attempt === 1) expect(mayBeBought).toBe(true);
          if (state === "unclear" && attempt > 1) {
            expect(facts.redriven.has(index) || attemptsOf(recorded, index).some(({ byProvider }) => byProvider)).toBe(
              true,
            );
          }
          expect(attempt).toBeLessThanOrEqual(MAX_ATTEMPT);
        }
      }),
    );
  });

  test("a void row is never bought; it is canceled", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        for (const [index, { state }] of recall(recorded, facts).states.entries()) {
          const isUntouched = attemptsOf(recorded, index).length === 0 && !facts.redriven.has(index);
          if (facts.isVoid(index) && isUntouched) expect(state).toBe("canceled");
        }
      }),
    );
  });

  test("every unclear item is listed once, with a span that ends when Redis was lost and doesn't begin later", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        const { states, unclear } = recall(recorded, facts);
        expect(unclear.map(({ index, attempt }) => ({ index, attempt }))).toEqual(
          states.flatMap(({ state, attempt }, index) => (state === "unclear" ? [{ index, attempt }] : [])),
        );
        for (const { index, fromMs, toMs, cancel } of unclear) {
          expect(toMs).toBe(LOST_BY);
          expect(fromMs).toBeLessThanOrEqual(toMs);
          if (facts.canceled.has(index)) expect(cancel).toBe(true);
        }
      }),
    );
  });

  test("groups of failures count the failed items, and the latest are the newest saved ones with files", () => {
    fc.assert(
      fc.property(anyRecorded, anyFacts, (recorded, facts) => {
        const { counts, failures, latest, states } = recall(recorded, facts);
        const counted = [...failures.values()].reduce((total, { count }) => total + count, 0);
        expect(counted).toBe(counts.get("failed") ?? 0);
        for (const { example } of failures.values()) expect(states[example]?.state).toBe("failed");
        expect(latest.length).toBeLessThanOrEqual(24);
        const times = latest.map((index) => attemptsOf(recorded, index).at(-1)?.recordedAtMs ?? 0);
        expect(times).toEqual(times.toSorted((a, b) => b - a));
        for (const index of latest) {
          expect(states[index]?.state).toBe("saved");
          expect(attemptsOf(recorded, index).at(-1)?.files).toBeGreaterThan(0);
        }
      }),
    );
  });
});

test("a thousand kinds of failures make a hundred groups, as they would have one after another", () => {
  const kinds = Array.from({ length: 1_000 }, (_, n) => `error ${n}`);
  const recorded = kinds.map((failure, index) => ({ index, attempts: [{ ...FAILED, failure }] }));
  const { failures } = recall(recorded, { ...BARE, items: 1_000 });
  expect(failures.size).toBe(100);
  expect(failures.get("other errors")).toEqual({ count: 901, example: 99 });
});
