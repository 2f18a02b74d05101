/** What one row of a batch may be, and how a person is told that it may not. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Target } from "../../src/core/prediction.ts";
import { MAX_INPUT_DEPTH, MAX_ROW_BYTES, parseTarget, readRow } from "../../src/core/rows.ts";

const HEX = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa";
const MODEL: Target = { kind: "model", owner: "outlast", name: "picture" };
const VERSION: Target = { kind: "version", version: HEX };

describe("targets", () => {
  test.each<[Target["kind"], string, Target]>([
    ["model", "outlast/picture", MODEL],
    ["model", "black-forest-labs/flux-1.1-pro", { kind: "model", owner: "black-forest-labs", name: "flux-1.1-pro" }],
    ["model", "some_one/Real_ESRGAN", { kind: "model", owner: "some_one", name: "Real_ESRGAN" }],
    ["model", `outlast/picture:${HEX}`, VERSION],
    ["version", HEX, VERSION],
    ["version", HEX.toUpperCase(), VERSION],
    ["version", `outlast/picture:${HEX}`, VERSION],
    ["deployment", "outlast/fast", { kind: "deployment", owner: "outlast", name: "fast" }],
  ])("%s %j is read", (kind, text, target) => {
    expect(parseTarget(kind, text)).toEqual({ ok: true, target });
  });

  test.each<[Target["kind"], string, RegExp]>([
    ["model", "picture", /"model" is owner\/name, or owner\/name: and the 64 hex digits of a version, not "picture"$/],
    ["model", "a/b/c", /"model" is owner\/name/],
    ["model", "a/b:", /"model" is owner\/name/],
    ["model", "a/b:latest", /the 64 hex digits of a version, not "a\/b:latest"/],
    ["model", `a/b:${HEX}:x`, /"model" is owner\/name/],
    ["model", HEX, /give a version alone as "version"/],
    ["model", "../secrets", /"model" is owner\/name/],
    ["model", "a/..", /"model" is owner\/name/],
    ["model", "a/b?x=1", /"model" is owner\/name/],
    ["model", " a/b", /"model" is owner\/name/],
    ["model", "a/b\n", /"model" is owner\/name/],
    ["model", "", /not ""$/],
    ["version", "abc", /"version" is the 64 hex digits of a version, alone or after owner\/name:, not "abc"/],
    ["version", "a/b", /"version" is the 64 hex digits/],
    ["version", `${HEX}0`, /"version" is the 64 hex digits/],
    ["deployment", `a/b:${HEX}`, /"deployment" is owner\/name, not/],
  ])("%s %j is refused with the format", (kind, text, reason) => {
    expect(parseTarget(kind, text)).toEqual({ ok: false, reason: expect.stringMatching(reason) as string });
  });

  test("never hold anything that a URL's path would have to escape", () => {
    fc.assert(
      fc.property(fc.constantFrom("model" as const, "deployment" as const), fc.string(), (kind, text) => {
        const reading = parseTarget(kind, text);
        if (!reading.ok || reading.target.kind === "version") return;
        const path = `/${reading.target.owner}/${reading.target.name}`;
        expect(new URL(path, "https://host").pathname).toBe(path);
      }),
    );
  });
});

describe("a row", () => {
  test.each<[unknown, unknown]>([
    [{ input: { prompt: "a" } }, { input: { prompt: "a" }, target: MODEL }],
    [{ input: {} }, { input: {}, target: MODEL }],
    [
      { input: { a: 1 }, id: "x", model: "o/n" },
      { input: { a: 1 }, id: "x", target: { kind: "model", owner: "o", name: "n" } },
    ],
    [
      { input: { a: 1 }, model: `o/n:${HEX}` },
      { input: { a: 1 }, target: VERSION },
    ],
    [
      { input: { a: 1 }, version: HEX, id: null, model: null },
      { input: { a: 1 }, target: VERSION },
    ],
    [
      { input: { a: null }, deployment: "o/d" },
      { input: { a: null }, target: { kind: "deployment", owner: "o", name: "d" } },
    ],
    [
      { input: { a: 1 }, id: "é".repeat(255) },
      { input: { a: 1 }, id: "é".repeat(255), target: MODEL },
    ],
  ])("%j is read", (value, row) => {
    expect(readRow(value, { target: MODEL })).toEqual({ ok: true, row });
  });

  test.each<[unknown, string]>([
    [null, 'a row is an object, {"input": {…}}, not nothing'],
    [[1], 'a row is an object, {"input": {…}}, not a list'],
    ["a prompt", 'a row is an object, {"input": {…}}, not text'],
    [7, 'a row is an object, {"input": {…}}, not a number'],
    [true, 'a row is an object, {"input": {…}}, not true or false'],
    [{}, 'no "input"'],
    [{ input: null }, 'no "input"'],
    [{ prompt: "a" }, 'no "input": what the model takes belongs inside it, {"input": {"prompt": …}}'],
    [{ input: "a" }, `"input" is an object with the model's inputs, not text`],
    [{ input: [] }, `"input" is an object with the model's inputs, not a list`],
    [
      { input: {}, modle: "o/n", seed: 1 },
      'unknown key "modle", "seed": a row has "input", "id" and one of "model", "version" and "deployment"',
    ],
    [{ input: {}, id: 7 }, '"id" is text, not a number: write "7"'],
    [{ input: {}, id: "" }, '"id" is empty: leave it out, or name the row'],
    [{ input: {}, id: "x".repeat(256) }, '"id" has 256 characters, at most 255 are allowed'],
    [{ input: {}, id: "a\nb" }, '"id" "a\\nb" holds control characters'],
    [{ input: {}, id: "a\u2028b" }, '"id" "a\u2028b" holds control characters'],
    [{ input: {}, id: "a\ud800" }, '"id" "a\\ud800" holds control characters'],
    [{ input: {}, model: "o/n", version: HEX }, 'both "model" and "version": a row names one of them'],
    [{ input: {}, model: 3 }, '"model" is text, not a number'],
    [{ input: {}, deployment: "n" }, '"deployment" is owner/name, not "n"'],
  ])("%j is refused: %s", (value, reason) => {
    expect(readRow(value, { target: MODEL })).toEqual({ ok: false, reason });
  });

  test("without a model of its own needs one for all rows", () => {
    expect(readRow({ input: {} }, {})).toEqual({
      ok: false,
      reason: 'no model: name one in the row ("model", "version" or "deployment"), or one for all rows',
    });
  });

  test("may have just the size of the cap, in bytes of UTF-8, and no more", () => {
    const frame = JSON.stringify({ input: { p: "" } }).length;
    const fits = { input: { p: "x".repeat(MAX_ROW_BYTES - frame) } };
    expect(readRow(fits, { target: MODEL }).ok).toBe(true);
    const reason = "larger than 1048576 bytes as JSON: give files as URLs";
    expect(readRow({ input: { p: `${fits.input.p}x` } }, { target: MODEL })).toEqual({ ok: false, reason });
    expect(readRow({ input: { p: "é".repeat(MAX_ROW_BYTES / 2) } }, { target: MODEL })).toEqual({ ok: false, reason });
  });

  test("may be nested as deeply as the bound, and no deeper; what stands in texts isn't counted", () => {
    const nested = (levels: number, inmost: string) =>
      JSON.parse(`${'{"a":['.repeat(levels / 2)}${inmost}${"]}".repeat(levels / 2)}`) as object;
    const texts = JSON.stringify(`\\"${"[{".repeat(1_000)}\\`);
    expect(readRow({ input: nested(MAX_INPUT_DEPTH, texts) }, { target: MODEL }).ok).toBe(true);
    const wide = Array.from({ length: 10_000 }, () => ({ a: [{}] }));
    expect(readRow({ input: { wide } }, { target: MODEL }).ok).toBe(true);
    const reason = "nested too deeply: at most 200 levels";
    expect(readRow({ input: nested(MAX_INPUT_DEPTH, "[]") }, { target: MODEL })).toEqual({ ok: false, reason });
    expect(readRow({ input: nested(1_000, "1") }, { target: MODEL })).toEqual({ ok: false, reason });
  });

  test("that can't be JSON is refused, not thrown at the caller", () => {
    const loop: Record<string, unknown> = { input: {} };
    loop["input"] = { loop };
    expect(readRow(loop, { target: MODEL }).ok).toBe(false);
    let deep: unknown = 1;
    for (let n = 0; n < 100_000; n++) deep = [deep];
    expect(readRow({ input: { deep } }, { target: MODEL }).ok).toBe(false);
  });

  test("has a reading for any value, in one line", () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        const reading = readRow(value, { target: MODEL });
        if (!reading.ok) expect(reading.reason).toMatch(/^[^\n]+$/);
      }),
    );
  });
});
