import fc from "fast-check";
import { expect, test } from "vitest";
import { failureGroup } from "../../src/core/failing.ts";

test("what differs from item to item is taken out, and the cause is left: as a table", () => {
  const table: readonly (readonly [error: string | null, group: string])[] = [
    [null, "no reason was given"],
    ["", "no reason was given"],
    [" \n\t ", "no reason was given"],
    ["NSFW content detected", "NSFW content detected"],
    [
      "The input or output was flagged as sensitive. (E005)",
      "The input or output was flagged as sensitive. (E005)", // a code is no number
    ],
    [
      "CUDA out of memory. Tried to allocate 2.50 GiB (GPU 0; 79.15 GiB total)",
      "CUDA out of memory. Tried to allocate N GiB (GPU N; N GiB total)",
    ],
    [
      "prediction gm3qorzdhgbfurvjtvhg6dckhu hadn't ended 105 minutes after it was created; it may still run",
      "prediction ID hadn't ended N minutes after it was created; it may still run",
    ],
    [
      "https://replicate.delivery/xezq/abc/out-0.png?x=1&y=2: 404",
      "URL N", // the colon could belong to the URL
    ],
    ['can\'t fetch "http://h.example/a b" (http://h.example/c)', 'can\'t fetch "URL b" (URL)'],
    ["row 9e107d9d-372b-4b6d-8a5b-c0a5e07f2a10 of\n  sha256:0123456789abcdef0123456789abcdef", "row ID of sha256:ID"],
    ["width must be at most 2048, not 4096", "width must be at most N, not N"],
    ["E1001: unsupported", "E1001: unsupported"],
    ["stable-diffusion-xl-base doesn't load", "stable-diffusion-xl-base doesn't load"], // long, but no digit
    ["version 1.2.3 is gone", "version 1.2.3 is gone"],
    ["its deadline (2026-11-20T12:01:00.000Z) passed", "its deadline (TIME) passed"],
    ["at 2026-11-20 12:01 the worker died (since 2026-11-20T11:00:00+01:00)", "at TIME the worker died (since TIME)"],
    ["half a character: \ud83e", "half a character: \ufffd"],
    ["x".repeat(500), "x".repeat(160)],
    ["🦊".repeat(500), "🦊".repeat(80)],
    [`${"x".repeat(159)}🦊`, `${"x".repeat(159)}\ufffd`],
  ];
  expect(table.map(([error]) => [error, failureGroup(error)])).toEqual(table);
});

test("a group is never empty, never longer than its bound, and always text that Redis can read", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary", maxLength: 400 }), fc.string(), fc.constant(null)), (error) => {
      const group = failureGroup(error);
      expect(group).not.toBe("");
      expect(group.length).toBeLessThanOrEqual(160);
      expect(group.isWellFormed()).toBe(true);
    }),
    { numRuns: 500 },
  );
});

test("one cause with other ids, addresses and numbers is one group", () => {
  const id = fc.oneof(
    fc.stringMatching(/^[a-z0-9]{25}[0-9]$/),
    fc.uuid(),
    fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => `0${Buffer.from(bytes).toString("hex")}`),
  );
  const number = fc.oneof(
    fc.nat(),
    fc.double({ min: 0, max: 1e6, noNaN: true }).map((n) => n.toFixed(2)),
  );
  // A quote or bracket within one would be taken for its end.
  const url = fc
    .webUrl({ withQueryParameters: true, withFragments: true })
    .map((text) => text.replaceAll(/["'<>)]/g, "_"));
  const time = fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }).map((at) => at.toISOString());
  const story = fc.record({ id, number, url, time });
  type Story = { readonly id: string; readonly number: number | string; readonly url: string; readonly time: string };
  const tell = ({ id, number, url, time }: Story) =>
    `${time}: prediction ${id} failed after ${number} seconds: can't read ${url} (attempt ${number})`;
  fc.assert(
    fc.property(story, story, (one, other) => {
      expect(failureGroup(tell(one))).toBe(failureGroup(tell(other)));
    }),
    { numRuns: 300 },
  );
});

test("another cause is another group", () => {
  const words = fc.stringMatching(/^[a-z]{3,9}( [a-z]{3,9}){1,4}$/);
  fc.assert(
    fc.property(words, words, (one, other) => {
      expect(failureGroup(`${one}: 12`) === failureGroup(`${other}: 7`)).toBe(one === other);
    }),
  );
});

test("a whole log, however odd, is read within milliseconds", () => {
  for (const unit of ["a-", "1.", "a_b-", "https://", "-", "9".repeat(15), "é1"]) {
    const startedAt = performance.now();
    expect(failureGroup(`error ${unit.repeat(1_000_000)}`)).toMatch(/^error/);
    expect(performance.now() - startedAt, JSON.stringify(unit)).toBeLessThan(1_000);
  }
});
