import fc from "fast-check";
import { expect, test } from "vitest";
import { parseExactJson } from "../../src/rows/exact-json.ts";

test("whatever JavaScript holds exactly is read as JSON reads it", () => {
  const safe = fc.jsonValue().filter((value) => !/\d{16}/.test(JSON.stringify(value)));
  fc.assert(
    fc.property(safe, (value) => {
      const text = JSON.stringify(value);
      expect(parseExactJson(text)).toEqual(JSON.parse(text));
    }),
  );
});

test.each(["12345678901234567890", '{"seed": 9007199254740993}', "[-9007199254740993]", '{"seed": 1e400}', "-1E999"])(
  "a number that would change is refused: %s",
  (text) => {
    expect(() => parseExactJson(text)).toThrow(/can't be kept exactly/);
  },
);

test("fractions and exponents are the numbers that they always were", () => {
  expect(parseExactJson("[0.1, 1e21, 9007199254740991]")).toEqual([0.1, 1e21, Number.MAX_SAFE_INTEGER]);
});
