/** Whose the predictions on the list are, and which attempts have surely none. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { couldBe, scalarsOf, shows, showsExactly } from "../../src/core/matching.ts";
import { predictionId } from "../../src/core/prediction.ts";
import {
  type Evidence,
  type Intent,
  type ListedPrediction,
  type Resolution,
  resolveUnclear,
} from "../../src/core/resolving.ts";

const MINUTE = 60_000;
const at = (minutes: number) => minutes * MINUTE;

function intent(key: string, prompt: string, minutes = 0): Intent<string> {
  return { key, digest: prompt, input: { prompt }, fromMs: at(minutes), toMs: at(minutes) };
}

function listed(id: string, input: unknown, minutes = 0.1): ListedPrediction {
  return { id: predictionId(id), input, createdAtMs: at(minutes) };
}

function evidence(fields: Partial<Evidence<string>>): Evidence<string> {
  return {
    unclear: [],
    unanswered: [],
    unbound: [],
    isClean: () => true,
    mayBeClean: () => true,
    earliestMs: at(1),
    latestMs: at(11),
    ...fields,
  };
}

describe("unclear attempts", () => {
  test("get the prediction that can only be theirs", () => {
    const resolved = resolveUnclear(
      evidence({
        unclear: [intent("a", "fox"), intent("b", "crow")],
        unbound: [listed("p1", { prompt: "crow" }), listed("p2", { prompt: "whale" })],
      }),
    );
    expect(resolved).toEqual({ bound: [{ key: "b", prediction: "p1" }], absent: ["a"] });
  });

  test("are bound at once, but absent only where the sweep is clean", () => {
    const facts = { unclear: [intent("a", "fox"), intent("b", "crow")], unbound: [listed("p1", { prompt: "crow" })] };
    expect(resolveUnclear(evidence({ ...facts, isClean: () => false }))).toEqual({
      bound: [{ key: "b", prediction: "p1" }],
      absent: [],
    });
  });

  test("of one input are resolved together, the oldest first", () => {
    const unclear = [intent("late", "fox", 2), intent("early", "fox", 1), intent("last", "fox", 3)];
    const unbound = [listed("p2", { prompt: "fox" }, 3), listed("p1", { prompt: "fox" }, 2)];
    expect(resolveUnclear(evidence({ unclear, unbound }))).toEqual({
      bound: [
        { key: "early", prediction: "p1" },
        { key: "late", prediction: "p2" },
      ],
      absent: ["last"],
    });
  });

  test("wait while a twin's answer is on its way", () => {
    const facts = evidence({
      unclear: [intent("a", "fox")],
      unanswered: [intent("twin", "fox")],
      unbound: [listed("p1", { prompt: "fox" })],
    });
    expect(resolveUnclear(facts)).toEqual({ bound: [], absent: [] });
  });

  test("aren't given what could be another's, and aren't absent while it is there", () => {
    const facts = evidence({
      unclear: [intent("a", "fox"), intent("b", "crow")],
      unbound: [listed("p1", {})],
    });
    expect(resolveUnclear(facts)).toEqual({ bound: [], absent: [] });
  });

  test("aren't given a stranger's that shows nothing of theirs, and aren't absent while it is there", () => {
    const unclear = [{ ...intent("a", "speech"), input: { text: "a", seed: 242 } }];
    expect(resolveUnclear(evidence({ unclear, unbound: [listed("p1", { prompt: "b" })] }))).toEqual({
      bound: [],
      absent: [],
    });
  });

  test("aren't held up by predictions of another time", () => {
    const unclear = [intent("a", "fox", 60)];
    const unbound = [listed("p1", { prompt: "fox" }, 50), listed("p2", { prompt: "fox" }, 75)];
    expect(resolveUnclear(evidence({ unclear, unbound }))).toEqual({ bound: [], absent: ["a"] });
  });

  test("none is both bound and absent, no prediction is bound twice, and what could be ours is never passed over", () => {
    const prompt = fc.constantFrom("fox", "crow", "whale");
    const shown = fc.oneof(
      prompt.map((text) => ({ prompt: text })),
      fc.constant({}),
    );
    const facts = fc.record({
      unclear: fc.array(fc.tuple(prompt, fc.nat({ max: 5 })), { maxLength: 6 }),
      unanswered: fc.array(prompt, { maxLength: 2 }),
      unbound: fc.array(fc.tuple(shown, fc.nat({ max: 20 })), { maxLength: 6 }),
      clean: fc.boolean(),
    });
    fc.assert(
      fc.property(facts, ({ unclear, unanswered, unbound, clean }) => {
        const all = evidence({
          unclear: unclear.map(([text, minutes], n) => intent(`u${n}`, text, minutes)),
          unanswered: unanswered.map((text, n) => intent(`w${n}`, text)),
          unbound: unbound.map(([input, minutes], n) => listed(`p${n}`, input, minutes)),
          isClean: () => clean,
        });
        const { bound, absent } = resolveUnclear(all);
        const keys = [...bound.map(({ key }) => key), ...absent];
        expect(new Set(keys).size).toBe(keys.length);
        expect(new Set(bound.map(({ prediction }) => prediction)).size).toBe(bound.length);
        for (const key of absent) {
          expect(clean).toBe(true);
          const own = all.unclear.find((one) => one.key === key);
          const left = all.unbound.filter(({ id }) => !bound.some(({ prediction }) => prediction === id));
          const possible = left.filter(({ input, createdAtMs }) => {
            const age = createdAtMs - (own?.fromMs ?? 0);
            return couldBe(own?.input, input) && age >= -all.earliestMs && age <= all.latestMs;
          });
          expect(possible).toEqual([]);
        }
      }),
    );
  });
});

describe("rows that differ by a file alone", () => {
  const row = (key: string, url: string): Intent<string> => ({
    ...intent(key, url),
    input: { image: `https://files.example/${url}`, scale: 4 },
  });
  const unclear = [row("a", "1.png"), row("b", "2.png"), row("c", "3.png")];

  test("get those that show their very files, and the rest is absent", () => {
    const unbound = [listed("p2", row("b", "2.png").input), listed("p1", row("a", "1.png").input)];
    expect(resolveUnclear(evidence({ unclear, unbound }))).toEqual({
      bound: [
        { key: "a", prediction: "p1" },
        { key: "b", prediction: "p2" },
      ],
      absent: ["c"],
    });
  });

  test("are held where a file was moved", () => {
    const unbound = [listed("p1", { image: "https://provider.example/x", scale: 4 })];
    expect(resolveUnclear(evidence({ unclear, unbound }))).toEqual({ bound: [], absent: [] });
    expect(resolveUnclear(evidence({ unclear: unclear.slice(0, 1), unbound })), "nor is one alone given it").toEqual({
      bound: [],
      absent: [],
    });
  });

  test("aren't excluded by a match that shows less than theirs", () => {
    const plain = { ...intent("plain", "plain"), input: { scale: 4 } };
    const unbound = [listed("p1", { image: "https://provider.example/x", scale: 4 })];
    expect(resolveUnclear(evidence({ unclear: [plain, row("a", "1.png")], unbound }))).toEqual({
      bound: [],
      absent: [],
    });
  });

  test("aren't excluded by a match of another time", () => {
    const late = { ...row("late", "1.png"), fromMs: at(60), toMs: at(60) };
    const unbound = [listed("p1", late.input)];
    expect(resolveUnclear(evidence({ unclear: [late, row("b", "2.png")], unbound }))).toEqual({
      bound: [],
      absent: ["late"],
    });
  });
});

describe("twins of which one can't be known to be absent any more", () => {
  const old = intent("old", "fox", 0);
  const fresh = intent("fresh", "fox", 8);
  const facts = { unclear: [old, fresh], mayBeClean: (one: Intent<string>) => one !== old };

  test("leave what there is to the other", () => {
    const unbound = [listed("p1", { prompt: "fox" }, 9)];
    expect(resolveUnclear(evidence({ ...facts, unbound, isClean: (one) => one !== old }))).toEqual({
      bound: [{ key: "fresh", prediction: "p1" }],
      absent: [],
    });
  });

  test("get what the other leaves", () => {
    const unbound = [listed("p1", { prompt: "fox" }, 9), listed("p2", { prompt: "fox" }, 1)];
    expect(resolveUnclear(evidence({ ...facts, unbound, isClean: () => false })).bound).toHaveLength(2);
  });
});

/** The same by definition, pair by pair. */
function resolvedPlainly(facts: Evidence<string>): Resolution<string> {
  const all = [...facts.unclear, ...facts.unanswered];
  const pathsOf = ({ input }: Intent<string>) => [...scalarsOf(input).keys()];
  const possible = new Map(
    facts.unbound.map((prediction) => {
      const inTime = all.filter(
        ({ fromMs, toMs }) =>
          !(prediction.createdAtMs < fromMs - facts.earliestMs) && !(prediction.createdAtMs > toMs + facts.latestMs),
      );
      const exact = inTime.filter(({ input }) => showsExactly(prediction.input, input));
      const open = inTime.filter((one) => {
        if (!couldBe(one.input, prediction.input)) return false;
        if (exact.some(({ digest }) => digest === one.digest)) return true;
        return !exact.some((other) => pathsOf(one).every((path) => pathsOf(other).includes(path)));
      });
      return [prediction, new Set(open.map(({ digest }) => digest))] as const;
    }),
  );
  const bound: { key: string; prediction: ListedPrediction["id"] }[] = [];
  const absent: string[] = [];
  for (const [digest, twins] of Map.groupBy(facts.unclear, (one) => one.digest)) {
    if (facts.unanswered.some((one) => one.digest === digest)) continue;
    const theirs = facts.unbound.filter((prediction) => possible.get(prediction)?.has(digest));
    const own = theirs.filter(
      (prediction) => possible.get(prediction)?.size === 1 && shows(prediction.input, twins[0]?.input),
    );
    const inTurn = [
      ...twins.filter((one) => facts.mayBeClean(one)).toSorted((a, b) => a.toMs - b.toMs || a.fromMs - b.fromMs),
      ...twins.filter((one) => !facts.mayBeClean(one)).toSorted((a, b) => a.toMs - b.toMs || a.fromMs - b.fromMs),
    ];
    const oldestFirst = own.toSorted((a, b) => a.createdAtMs - b.createdAtMs);
    const count = Math.min(own.length, inTurn.length);
    for (let n = 0; n < count; n++) {
      bound.push({
        key: (inTurn[n] as Intent<string>).key,
        prediction: (oldestFirst[n] as ListedPrediction).id,
      });
    }
    if (theirs.length > count) continue;
    for (const one of inTurn.slice(count)) if (facts.isClean(one)) absent.push(one.key);
  }
  return { bound, absent };
}

const LONG = "a very long prompt, of which a list may show the beginning alone ".repeat(4);
const values = fc.constantFrom<unknown>(
  "fox",
  "a crow on a wire, at dusk",
  LONG,
  `${LONG}, and its end`,
  `${LONG.slice(0, 230)}…`,
  `other ${LONG}`,
  7,
  "7",
  7.000_001,
  7.000_14,
  7.000_139_9,
  70_000,
  70_000.06,
  -7,
  0,
  true,
  "true",
  "https://a.example/1.png",
  "https://b.example/2.png",
  "data:image/png;base64,AAAA",
  "[REDACTED]",
  null,
  [1, 2],
  [1, "https://a.example/1.png"],
  [1],
  { 0: 1 },
  {},
);
const someInput = fc.dictionary(fc.constantFrom("prompt", "image", "seed", "list"), values, { maxKeys: 4 });

test("is decided without comparing each, as if each had been compared", () => {
  const times = fc.record({ from: fc.nat({ max: 30 }), length: fc.nat({ max: 5 }) });
  const facts = fc.array(someInput, { minLength: 1, maxLength: 5 }).chain((inputs) =>
    fc.record({
      inputs: fc.constant(inputs),
      unclear: fc.array(fc.tuple(fc.nat({ max: inputs.length - 1 }), times), { maxLength: 8 }),
      unanswered: fc.array(fc.tuple(fc.nat({ max: inputs.length - 1 }), times), { maxLength: 1 }),
      unbound: fc.array(
        fc.tuple(
          fc.oneof(
            { weight: 3, arbitrary: fc.constantFrom(...inputs) },
            { weight: 1, arbitrary: someInput },
            {
              weight: 2,
              arbitrary: fc.tuple(fc.constantFrom(...inputs), someInput).map(([own, other]) => ({ ...own, ...other })),
            },
          ),
          fc.oneof(fc.nat({ max: 45 }), fc.constant(Number.NaN)),
        ),
        { maxLength: 8 },
      ),
      clean: fc.nat({ max: 40 }),
      lost: fc.nat({ max: 10 }),
    }),
  );
  fc.assert(
    fc.property(facts, ({ inputs, unclear, unanswered, unbound, clean, lost }) => {
      const sent = (key: string, which: number, { from, length }: { from: number; length: number }) => ({
        key,
        digest: JSON.stringify(inputs[which]),
        input: inputs[which] as Readonly<Record<string, unknown>>,
        fromMs: at(from),
        toMs: at(from + length),
      });
      const all = evidence({
        unclear: unclear.map(([which, time], n) => sent(`u${n}`, which, time)),
        unanswered: unanswered.map(([which, time], n) => sent(`w${n}`, which, time)),
        unbound: unbound.map(([input, minutes], n) => listed(`p${n}`, input, minutes)),
        isClean: ({ toMs }) => toMs <= at(clean),
        mayBeClean: ({ fromMs }) => fromMs >= at(lost),
      });
      expect(resolveUnclear(all)).toEqual(resolvedPlainly(all));
    }),
    { numRuns: 2_000 },
  );
});

test("of inputs with hundreds of numbers are told apart as quickly as others", () => {
  const vector = (seed: number) => Array.from({ length: 300 }, (_, n) => (n === 299 ? seed : (n + 1) / 7));
  const of = (key: string, seed: number) => ({ ...intent(key, key), digest: key, input: { vector: vector(seed) } });
  const facts = {
    unclear: [of("a", 1), of("b", 2)],
    unbound: [listed("p1", { vector: vector(2).map((one) => one * (1 + 5e-7)) }), listed("p2", { vector: vector(3) })],
  };
  expect(resolveUnclear(evidence(facts))).toEqual({ bound: [{ key: "b", prediction: "p1" }], absent: ["a"] });
});
