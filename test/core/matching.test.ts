/** Whose a listed prediction is: never called another's where it could be ours, never given away on a guess. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  couldBe,
  type Evidence,
  type Intent,
  type ListedPrediction,
  resolveUnclear,
  shows,
} from "../../src/core/matching.ts";
import { predictionId } from "../../src/core/prediction.ts";

const text =
  "a text so long that a list may well cut it off somewhere, as lists do with the prompts that people write ".repeat(4);

describe("a listed input", () => {
  test.each<[string, unknown, unknown, boolean]>([
    ["the same", { prompt: "a fox", seed: 7 }, { seed: 7, prompt: "a fox" }, true],
    ["keys that the provider added", { prompt: "a fox" }, { prompt: "a fox", steps: 28, go_fast: true }, true],
    ["keys that it left out", { prompt: "a fox", seed: 7 }, { prompt: "a fox" }, true],
    ["emptied", { prompt: "a fox" }, {}, true],
    ["removed", { prompt: "a fox" }, null, true],
    ["another prompt", { prompt: "a fox" }, { prompt: "a crow" }, false],
    ["another seed", { prompt: "a fox", seed: 7 }, { prompt: "a fox", seed: 8 }, false],
    ["another flag", { go_fast: true }, { go_fast: false }, false],
    ["a number as text", { seed: 7 }, { seed: "7" }, true],
    ["a number in single precision", { strength: 0.8 }, { strength: 0.800000011920929 }, true],
    ["a text trimmed", { prompt: " a fox\n" }, { prompt: "a fox" }, true],
    ["a text in another normal form", { prompt: "caf\u00e9" }, { prompt: "cafe\u0301" }, true],
    ["a long text cut off", { prompt: text }, { prompt: `${text.slice(0, 256)}…` }, true],
    ["a short text that begins the same", { prompt: "a fox asleep" }, { prompt: "a fox" }, false],
    ["another URL", { image: "https://a.example/1.png" }, { image: "https://b.example/2.png" }, true],
    [
      "a URL in a data URL's place",
      { image: "data:image/png;base64,AAAA" },
      { image: "https://b.example/2.png" },
      true,
    ],
    ["a text in a URL's place", { image: "https://a.example/1.png" }, { image: "1.png" }, true],
    ["a hidden secret", { token: "hf_abcdef" }, { token: "[REDACTED]" }, true],
    ["null in our text's place", { prompt: "a fox" }, { prompt: null }, true],
    ["another text deep inside", { messages: [{ content: "hi" }] }, { messages: [{ content: "ho" }] }, false],
    ["a longer list that begins the same", { sizes: [1, 2] }, { sizes: [1, 2, 3] }, true],
    ["a list that differs", { sizes: [1, 2] }, { sizes: [1, 9] }, false],
    ["an object in a list's place", { sizes: [1, 2] }, { sizes: { 0: 1 } }, true],
  ])("with %s could be ours: %o, %o: %s", (_what, ours, listed, could) => {
    expect(couldBe(ours, listed)).toBe(could);
  });

  test.each<[string, unknown, unknown, boolean]>([
    ["the same", { prompt: "a fox", seed: 7 }, { seed: 7, prompt: "a fox" }, true],
    ["keys that the provider added", { prompt: "a fox" }, { prompt: "a fox", steps: 28 }, true],
    ["a text cut off", { prompt: text }, { prompt: `${text.slice(0, 256)}…` }, true],
    [
      "a URL that was changed",
      { prompt: "a fox", image: "https://a.example/1" },
      { prompt: "a fox", image: "https://b.example/2" },
      true,
    ],
    ["nothing but a URL, unchanged", { image: "https://a.example/1" }, { image: "https://a.example/1" }, true],
    ["nothing but a URL, changed", { image: "https://a.example/1" }, { image: "https://b.example/2" }, false],
    ["a part of ours", { prompt: "a fox", seed: 7 }, { prompt: "a fox" }, false],
    ["nothing", { prompt: "a fox" }, {}, false],
    ["no keys of ours", { text: "a", seed: 7 }, { prompt: "b" }, false],
    ["a longer list", { sizes: [1, 2] }, { sizes: [1, 2, 3] }, false],
    ["null in our text's place", { prompt: "a fox", seed: 7 }, { prompt: null, seed: 7 }, false],
  ])("with %s shows all of ours: %o, %o: %s", (_what, ours, listed, all) => {
    expect(shows(listed, ours)).toBe(all);
  });

  test("that shows all of ours could be ours", () => {
    fc.assert(
      fc.property(inputs, inputs, (ours, listed) => {
        if (shows(listed, ours)) expect(couldBe(ours, listed)).toBe(true);
      }),
    );
  });

  test("that the provider changed in any way it may is never called another's", () => {
    fc.assert(
      fc.property(inputs, fc.array(fc.nat({ max: 6 }), { minLength: 40, maxLength: 40 }), (input, chances) => {
        const next = chances.values();
        expect(
          couldBe(
            input,
            changed(input, () => next.next().value ?? 0),
          ),
        ).toBe(true);
      }),
    );
  });

  test("that is another's, by one scalar that can't be changed, is known", () => {
    fc.assert(
      fc.property(inputs, fc.string({ minLength: 1, maxLength: 20 }), (input, word) => {
        expect(couldBe({ ...input, own: `mine ${word}` }, { ...input, own: `theirs ${word}` })).toBe(false);
      }),
    );
  });
});

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

const inputs = fc.dictionary(
  fc.stringMatching(/^[a-z]{1,6}$/),
  fc.oneof(
    fc.string({ maxLength: 30 }),
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.constant(null),
    fc.webUrl(),
    fc.array(fc.integer(), { maxLength: 3 }),
  ),
  { maxKeys: 6 },
);

/** An input as a provider may show it: keys in another order, some gone, some added, files moved, texts trimmed. */
function changed(input: Readonly<Record<string, unknown>>, chance: () => number): Record<string, unknown> {
  const entries = Object.entries(input).flatMap(([key, value]): [string, unknown][] => {
    const drawn = chance();
    if (drawn === 0) return [];
    if (typeof value === "string" && /^https?:/.test(value)) return [[key, `https://files.example/${drawn}`]];
    if (typeof value === "string" && drawn === 1) return [[key, value.trim()]];
    if (typeof value === "number" && drawn === 2) return [[key, String(value)]];
    return [[key, value]];
  });
  return { added_by_provider: chance(), ...Object.fromEntries(entries.toReversed()) };
}
