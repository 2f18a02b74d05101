/** What a page may show of what others wrote. */

import { expect, test } from "vitest";
import { excerpt, excerptOfJson, redactText } from "../../src/dashboard/showing.ts";

const TOKEN = `r8_${"A1b2".repeat(9)}`;

test.for<readonly [string, string]>([
  [`use ${TOKEN}, please`, "use ***, please"],
  ["Authorization: Bearer abcdefgh12345678", "Authorization: Bearer ***"],
  ["redis://user:secret@host:6379", "redis://***@host:6379"],
  ["https://s3/x?X-Amz-Signature=abc&a=1", "https://s3/x?X-Amz-Signature=***&a=1"],
  ["a token of gratitude", "a token of gratitude"],
])("%s is shown as %s", ([text, shown]) => {
  expect(redactText(text)).toBe(shown);
});

test("a text is cut, and a token at the cut isn't shown in half", () => {
  expect(excerpt("short", 10)).toBe("short");
  expect(excerpt("x".repeat(11), 10)).toBe(`${"x".repeat(10)}…`);
  for (let before = 60; before < 110; before++) {
    expect(excerpt(`${".".repeat(before)} ${TOKEN} and so on`, 100)).not.toContain("A1b2");
  }
});

test("JSON of any size, depth and names is cut at the same length", () => {
  let deep: unknown = "end";
  for (let level = 0; level < 5_000; level++) deep = [deep];
  const values = [
    Array.from({ length: 1_000_000 }, (_, n) => n),
    { ["k".repeat(1_000_000)]: "v".repeat(1_000_000) },
    deep,
    { note: `${"x".repeat(80)} ${TOKEN}`, api_key: "open sesame" },
  ];
  for (const value of values) {
    const text = excerptOfJson(value, 100);
    expect(text.length).toBeLessThanOrEqual(101);
    expect(text).not.toMatch(/A1b2|sesame/);
  }
  expect(excerptOfJson(null, 100)).toBe("null");
});

test("a megabyte that looks like secrets all over takes no while", () => {
  const from = performance.now();
  for (const piece of ["?token", "//a:b", "&key", "r8_", "Bearer ", "//"]) {
    redactText(piece.repeat(Math.ceil(1_000_000 / piece.length)));
  }
  expect(performance.now() - from).toBeLessThan(10_000);
});
