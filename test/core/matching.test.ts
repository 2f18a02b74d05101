/** Whose a listed prediction is: never called another's where it could be ours, never given away on a guess. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { couldBe, SHORTEST_PROMPT, shows, showsExactly } from "../../src/core/matching.ts";

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
      "a URL that was changed, and a prompt",
      { prompt: "a fox asleep in the snow", image: "https://a.example/1" },
      { prompt: "a fox asleep in the snow", image: "https://b.example/2" },
      true,
    ],
    [
      "a URL that was changed, and a few words",
      { prompt: "a fox", image: "https://a.example/1" },
      { prompt: "a fox", image: "https://b.example/2" },
      false,
    ],
    [
      "another URL and common numbers",
      { image: "https://a.example/1", scale: 4, width: 1024 },
      { image: "https://b.example/2", scale: 4, width: 1024 },
      false,
    ],
    [
      "another URL and a seed",
      { image: "https://a.example/1", scale: 4, seed: 174 },
      { image: "https://b.example/2", scale: 4, seed: 174 },
      true,
    ],
    [
      "another URL and no seed to speak of",
      { image: "https://a.example/1", seed: 0 },
      { image: "https://b.example/2", seed: 0 },
      false,
    ],
    [
      "the same URL and a common number",
      { image: "https://a.example/1", scale: 4 },
      { image: "https://a.example/1", scale: 4 },
      true,
    ],
    [
      "a URL in a data URL's place, and a common number",
      { image: "data:image/png;base64,AAAA", scale: 4 },
      { image: "https://b.example/2", scale: 4 },
      false,
    ],
    [
      "a data URL that begins the same",
      { image: `data:image/png;base64,${"A".repeat(300)}B` },
      { image: `data:image/png;base64,${"A".repeat(300)}` },
      false,
    ],
    ["a hidden secret and a few words", { prompt: "a fox", token: "hf_a" }, { prompt: "a fox", token: "***" }, false],
    ["nothing but a hidden text", { prompt: "***" }, { prompt: "***" }, false],
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

  test("of which anything but a file differs is never taken for ours, nor of another file without our very prompt", () => {
    fc.assert(
      fc.property(inputs, fc.webUrl(), fc.webUrl(), fc.string({ maxLength: 40 }), (input, own, theirs, prompt) => {
        fc.pre(own.trim() !== theirs.trim());
        const ours = { ...input, prompt, image: own };
        const listed = { ...input, prompt, image: theirs };
        const texts = Object.values({ ...input, prompt })
          .flatMap((value) => (typeof value === "string" && !/^\s*[a-z][a-z0-9+.-]*:/i.test(value) ? value.trim() : []))
          .map(({ length }) => length);
        if (Math.max(...texts, 0) < SHORTEST_PROMPT) expect(shows(listed, ours)).toBe(false);
        expect(showsExactly(listed, ours)).toBe(false);
        expect(shows({ ...listed, own: 2 }, { ...ours, own: 1 })).toBe(false);
        expect(shows(listed, { ...ours, own: 1 })).toBe(false);
      }),
    );
  });

  test("that shows ours exactly shows ours", () => {
    fc.assert(
      fc.property(inputs, inputs, (ours, listed) => {
        for (const shown of [listed, ours, { ...listed, ...ours }]) {
          if (showsExactly(shown, ours)) expect(shows(shown, ours)).toBe(true);
        }
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
