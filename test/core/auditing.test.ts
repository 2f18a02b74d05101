/** Three books held against one another: nothing is counted twice or left out, and nothing is given away on a guess. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type AuditTotals,
  auditExitCode,
  type ItemFacts,
  judgeItem,
  openTally,
  probablyAlive,
  type Standing,
} from "../../src/core/auditing.ts";
import { ITEM_STATES, type ItemByte, type ItemEnd } from "../../src/core/item.ts";
import { indexByText, LIST_GROUPS, type ListedRun, openListBook, whyUnlisted } from "../../src/core/list-book.ts";
import { couldBe } from "../../src/core/matching.ts";
import { predictionId } from "../../src/core/prediction.ts";
import type { Receipt } from "../../src/core/receipt.ts";
import { DEFAULT_SWEEP_POLICY } from "../../src/core/sweeping.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const FILE = "batches/b/items/00000000/output-0.png";

function receipt(status: ItemEnd, fields: Partial<Receipt> = {}): Receipt {
  const outputs = status === "saved" ? [{ key: FILE, url: "", bytes: 7, sha256: "", content_type: "image/png" }] : [];
  return {
    index: 0,
    item: "",
    id: null,
    status,
    prediction_id: "p1",
    output: null,
    outputs,
    error: status === "saved" ? null : "it broke after 12 s",
    metrics: {},
    attempts: [],
    batch: "",
    account: "",
    model: null,
    version: null,
    logs: null,
    claimed_at: null,
    created_at: null,
    started_at: null,
    completed_at: null,
    recorded_at: "",
    prediction_status: null,
    reply_to: null,
    webhook_events: [],
    ...fields,
  };
}

type Given = {
  readonly receipts?: Readonly<Record<number, Receipt>>;
  readonly bound?: Readonly<Record<number, string>>;
  readonly files?: Readonly<Record<string, number>>;
};

function judge(state: ItemByte["state"], attempt: number, { receipts = {}, bound = {}, files = { [FILE]: 7 } }: Given) {
  const byNumber = <T>(record: Readonly<Record<number, T>>) =>
    new Map(Object.entries(record).map(([key, value]) => [Number(key), value]));
  return judgeItem({
    byte: { attempt, state },
    receipts: byNumber(receipts),
    bound: byNumber(bound),
    files: new Map(Object.entries(files)),
  });
}

describe("an item", () => {
  test.each<[string, ReturnType<typeof judge>, readonly string[], number]>([
    ["nobody touched", judge("waiting", 1, {}), ["not-bought"], 0],
    ["being sent", judge("claimed", 1, {}), ["sending"], 0],
    ["unclear", judge("unclear", 1, {}), ["unclear"], 0],
    ["running", judge("running", 1, { bound: { 1: "p1" } }), ["in-flight"], 0],
    ["refused, and being recorded", judge("recording", 1, {}), ["not-bought"], 0],
    ["recorded this moment", judge("recording", 1, { receipts: { 1: receipt("saved") } }), ["saved"], 0],
    ["saved", judge("saved", 1, { receipts: { 1: receipt("saved") } }), ["saved"], 0],
    ["canceled with its batch", judge("canceled", 1, {}), ["not-bought"], 0],
    ["refused", judge("failed", 1, { receipts: { 1: receipt("failed", { prediction_id: null }) } }), ["not-bought"], 0],
    ["bought, and failed", judge("failed", 1, { receipts: { 1: receipt("failed") } }), ["not-saved"], 0],
    [
      "bought again after a failure",
      judge("saved", 2, { receipts: { 1: receipt("failed"), 2: receipt("saved", { prediction_id: "p2" }) } }),
      ["not-saved", "saved"],
      0,
    ],
    [
      "saved later from the same prediction",
      judge("saved", 2, { receipts: { 1: receipt("failed"), 2: receipt("saved") } }),
      ["carried", "saved"],
      0,
    ],
    [
      "redriven, and waiting",
      judge("waiting", 2, { receipts: { 1: receipt("failed") } }),
      ["not-saved", "not-bought"],
      0,
    ],
    ["whose receipt is gone", judge("saved", 1, { bound: { 1: "p1" } }), ["not-saved"], 1],
    ["whose file is gone", judge("saved", 1, { receipts: { 1: receipt("saved") }, files: {} }), ["not-saved"], 0],
    [
      "whose file is short",
      judge("saved", 1, { receipts: { 1: receipt("saved") }, files: { [FILE]: 6 } }),
      ["not-saved"],
      0,
    ],
    ["whose byte is another's", judge("waiting", 1, { receipts: { 1: receipt("saved") } }), ["saved"], 1],
    [
      "whose byte forgot an attempt",
      judge("saved", 1, { receipts: { 1: receipt("saved"), 2: receipt("failed", { prediction_id: "p2" }) } }),
      ["saved", "not-saved"],
      1,
    ],
    ["that waits, and is bought", judge("waiting", 1, { bound: { 1: "p1" } }), ["not-saved"], 1],
    ["that runs nothing", judge("running", 1, {}), ["not-saved"], 1],
  ])("%s", (_what, { attempts, disagreements }, kinds, contradictions) => {
    expect(attempts.map(({ kind }) => kind)).toEqual(kinds);
    expect(disagreements).toHaveLength(contradictions);
  });

  test("has one word for each attempt, and counts each of its predictions once, whatever the books say", () => {
    fc.assert(
      fc.property(itemFacts, (facts) => {
        const { attempts } = judgeItem(facts);
        expect(attempts.map(({ attempt }) => attempt)).toEqual(attempts.map((_, at) => at + 1));
        expect(attempts.length).toBeGreaterThanOrEqual(facts.byte.attempt);
        const counted = attempts.flatMap((one) =>
          "predictionId" in one && one.kind !== "carried" && one.predictionId !== null ? one.predictionId : [],
        );
        expect(new Set(counted).size).toBe(counted.length);
        const known = [...facts.receipts.values()].flatMap((one) => one?.prediction_id ?? []);
        for (const id of known) expect(counted).toContain(id);
      }),
    );
  });

  test("is called saved only where its receipt says so and every file is there, as long as it says", () => {
    fc.assert(
      fc.property(itemFacts, (facts) => {
        for (const { kind, receipt: of } of judgeItem(facts).attempts) {
          if (kind !== "saved") continue;
          expect(of?.status).toBe("saved");
          for (const { key, bytes } of of?.outputs ?? []) expect(facts.files.get(key)).toBe(bytes);
        }
      }),
    );
  });
});

const attemptNumbers = fc.integer({ min: 1, max: 4 });
const ids = fc.constantFrom("p1", "p2", "p3", "p4");
const itemFacts: fc.Arbitrary<ItemFacts> = fc.record({
  byte: fc.record({ attempt: attemptNumbers, state: fc.constantFrom(...ITEM_STATES) }),
  receipts: fc
    .array(fc.tuple(attemptNumbers, fc.constantFrom("saved", "failed", "canceled", null), fc.option(ids)))
    .map(
      (some) =>
        new Map(
          some.map(([n, status, id]) => [
            n,
            status === null ? null : receipt(status, { prediction_id: status === "saved" ? (id ?? "p1") : id }),
          ]),
        ),
    ),
  bound: fc.array(fc.tuple(attemptNumbers, ids)).map((some) => new Map(some)),
  files: fc.constantFrom(new Map(), new Map([[FILE, 7]]), new Map([[FILE, 8]])),
});

// ── the list ──────────────────────────────────────────────────────────────────

const words = fc.constantFrom("fox", "crow ", "crow", "7", "https://a.example/1.png", "x".repeat(250), "x".repeat(210));
const values = fc.oneof(words, fc.constantFrom(7, 0.5, true, null), fc.array(words, { maxLength: 2 }));
const inputs = fc.dictionary(fc.constantFrom("prompt", "seed", "image"), values, { maxKeys: 3 });
const listedInputs = fc.oneof(
  { weight: 5, arbitrary: inputs as fc.Arbitrary<unknown> },
  { weight: 1, arbitrary: fc.constantFrom(null, undefined, {}, "gone") },
);

function run(id: string, fields: Partial<ListedRun>): ListedRun {
  return {
    id: predictionId(id),
    status: "succeeded",
    dataRemoved: false,
    createdAtMs: 10 * MINUTE,
    predictTimeMs: 1n,
    input: undefined,
    holder: null,
    ...fields,
  };
}

const runs = fc
  .array(
    fc.record({
      input: listedInputs,
      createdAtMs: fc.constantFrom(0, 10 * MINUTE, Number.NaN),
      predictTimeMs: fc.bigInt({ min: 0n, max: 9n }),
      holder: fc.constantFrom(null, null, null, "elsewhere"),
    }),
    { maxLength: 12 },
  )
  .map((some) => some.map((fields, at) => run(`r${at}`, fields)));

describe("the provider's list", () => {
  test("has each prediction in exactly one group, the sums add up, and none is called another's that could be ours", () => {
    fc.assert(
      fc.property(
        runs,
        fc.array(inputs, { maxLength: 6 }),
        fc.array(fc.nat(15)),
        fc.array(fc.nat(15)),
        fc.boolean(),
        (listed, rows, held, booked, readable) => {
          const fromMs = 5 * MINUTE;
          const book = openListBook(listed);
          for (const at of held) book.hold(`r${at}`, "item");
          for (const at of booked) book.book(`r${at}`);
          if (rows.length > 0) {
            if (book.open("batch", fromMs))
              for (const [at, input] of rows.entries()) book.compare(`i${at}`, input, fromMs);
            if (!readable) book.suspect("batch", fromMs);
          }
          const tally = openTally();
          const seen = [...book.groups()];
          for (const { group, predictTimeMs } of seen) tally.listed(group, predictTimeMs);
          expect(seen.map(({ id }) => id)).toEqual(listed.map(({ id }) => id));
          const { list } = tally.totals();
          const sum = <T>(of: (group: (typeof LIST_GROUPS)[number]) => T, plus: (a: T, b: T) => T) =>
            LIST_GROUPS.map(of).reduce(plus);
          expect(
            sum(
              (group) => list[group].count,
              (a, b) => a + b,
            ),
          ).toBe(listed.length);
          expect(
            sum(
              (group) => list[group].predictTimeMs,
              (a, b) => a + b,
            ),
          ).toBe(listed.reduce((total, { predictTimeMs }) => total + predictTimeMs, 0n));
          for (const one of seen) {
            const number = Number(one.id.slice(1));
            expect(one.group === "held").toBe(held.includes(number));
            expect(one.group === "duplicate").toBe(booked.includes(number) && !held.includes(number));
            if (one.group === "matching") expect(rows.some((row) => couldBe(row, one.input))).toBe(true);
            if (one.group !== "foreign") continue;
            if (one.createdAtMs < fromMs) continue;
            expect(readable || rows.length === 0).toBe(true);
            for (const row of rows) expect(couldBe(row, one.input), JSON.stringify([row, one.input])).toBe(false);
          }
        },
      ),
    );
  });

  test("is searched by text without losing what a comparison of all would find", () => {
    fc.assert(
      fc.property(fc.array(listedInputs), inputs, (listed, row) => {
        const find = indexByText(listed.entries(), ([, input]) => input);
        const found = new Set(find(row).map(([at]) => at));
        for (const [at, input] of listed.entries()) if (couldBe(row, input)) expect(found).toContain(at);
      }),
    );
  });

  test("names who held a prediction before, and lets Redis say who holds it now", () => {
    const book = openListBook([run("a", {}), run("b", {})]);
    expect(book.hold("a", "item 1")).toBeNull();
    expect(book.hold("a", "item 2")).toBe("item 1");
    expect(book.hold("not listed", "item 3")).toBeNull();
    expect(book.loose().map(({ id }) => id)).toEqual(["b"]);
    book.bind(predictionId("b"), "another batch's errand");
    expect(book.loose()).toEqual([]);
    expect([...book.groups()].map(({ group }) => group)).toEqual(["held", "elsewhere"]);
  });

  test("calls matching what shows one of our scalars, silent what shows nothing", () => {
    const book = openListBook([
      run("same", { input: { prompt: "fox", steps: 4 } }),
      run("emptied", { input: {} }),
      run("of-other-keys", { input: { text: "crow" } }),
      run("other", { input: { prompt: "crow" } }),
      run("too-old", { input: { prompt: "fox" }, createdAtMs: 0 }),
    ]);
    expect(book.open("batch", MINUTE)).toBe(true);
    book.compare("item", { prompt: "fox" }, MINUTE);
    expect([...book.groups()].map(({ group, couldBe: owners }) => [group, owners])).toEqual([
      ["matching", ["item"]],
      ["silent", ["batch"]],
      ["silent", ["item"]],
      ["foreign", []],
      ["foreign", []],
    ]);
  });

  test.each([
    ["created before what was asked for", 0, {}, "unread"],
    ["created after it", 200 * MINUTE, { readAtMs: 300 * MINUTE }, "unread"],
    ["created just now", 95 * MINUTE, {}, "young"],
    ["of an unknown time", null, {}, "unread"],
    ["that should be there", 50 * MINUTE, {}, "vanished"],
    ["older than the last page", 50 * MINUTE, { complete: false, oldestMs: 60 * MINUTE }, "unread"],
    ["newer than the last page", 70 * MINUTE, { complete: false, oldestMs: 60 * MINUTE }, "vanished"],
    [
      "of a list that wasn't read at all",
      50 * MINUTE,
      { complete: false, oldestMs: Number.POSITIVE_INFINITY },
      "unread",
    ],
  ] as const)("doesn't show a prediction %s: %s", (_what, createdAtMs, fields, why) => {
    const span = {
      afterMs: 10 * MINUTE,
      beforeMs: 110 * MINUTE,
      readAtMs: 100 * MINUTE,
      complete: true,
      oldestMs: 10 * MINUTE,
      ...fields,
    };
    expect(whyUnlisted(createdAtMs, span, DEFAULT_SWEEP_POLICY)).toBe(why);
  });
});

test.each([
  ["young and succeeded", { createdAtMs: 1, status: "succeeded" }, true],
  ["young, and nobody knows how it ended", { createdAtMs: 1, status: null }, true],
  ["an hour old", { createdAtMs: 0, status: "succeeded" }, false],
  ["emptied", { createdAtMs: 1, status: "succeeded", dataRemoved: true }, false],
  ["failed", { createdAtMs: 1, status: "failed" }, false],
  ["of an unknown time", { createdAtMs: null, status: "succeeded" }, false],
])("files of a prediction that is %s are alive: %o, %s", (_what, fields, alive) => {
  expect(probablyAlive({ dataRemoved: false, nowMs: HOUR, ...fields })).toBe(alive);
});

describe("the totals", () => {
  const standings = fc.oneof(
    fc.constantFrom<Standing>(
      { kind: "saved", predictionId: "p" },
      { kind: "in-flight", predictionId: "p" },
      { kind: "unclear" },
      { kind: "not-bought" },
    ),
    fc.nat(300).map((n): Standing => ({ kind: "not-saved", predictionId: "p", why: `cause ${n}`, error: null })),
  );

  test("hold every attempt and every millisecond once, and the causes add up however many they are", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(standings, fc.bigInt({ min: 0n, max: 1_000n })), { maxLength: 400 }), (seen) => {
        const tally = openTally();
        for (const [standing, ms] of seen) tally.attempt(standing, ms);
        const { attempts, causes } = tally.totals();
        const shares = Object.values(attempts);
        expect(shares.reduce((sum, { count }) => sum + count, 0)).toBe(seen.length);
        expect(shares.reduce((sum, { predictTimeMs }) => sum + predictTimeMs, 0n)).toBe(
          seen.reduce((sum, [, ms]) => sum + ms, 0n),
        );
        expect(causes.size).toBeLessThanOrEqual(100);
        expect([...causes.values()].reduce((sum, { count }) => sum + count, 0)).toBe(attempts["not-saved"].count);
        expect([...causes.values()].reduce((sum, { predictTimeMs }) => sum + predictTimeMs, 0n)).toBe(
          attempts["not-saved"].predictTimeMs,
        );
      }),
    );
  });

  test("decide the exit code, the highest that applies", () => {
    type Tally = ReturnType<typeof openTally>;
    const codeAfter = (...acts: readonly ((tally: Tally) => void)[]): number => {
      const tally = openTally();
      for (const act of acts) act(tally);
      const totals: AuditTotals = tally.totals();
      return auditExitCode(totals);
    };
    expect(codeAfter((tally) => tally.attempt({ kind: "saved", predictionId: "p" }, 1n))).toBe(0);
    expect(
      codeAfter(
        (tally) => tally.listed("foreign", 1n),
        (tally) => tally.listed("silent", 1n),
      ),
    ).toBe(0);
    expect(codeAfter((tally) => tally.unsavedItem())).toBe(2);
    expect(codeAfter((tally) => tally.duplicate(1n))).toBe(2);
    expect(codeAfter((tally) => tally.disagreement())).toBe(2);
    expect(
      codeAfter(
        (tally) => tally.disagreement(),
        (tally) => tally.attempt({ kind: "unclear" }, 0n),
      ),
    ).toBe(4);
    expect(codeAfter((tally) => tally.listed("matching", 1n))).toBe(4);
  });
});
