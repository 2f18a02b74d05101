import fc from "fast-check";
import { expect, test } from "vitest";
import {
  isBelieved,
  NO_PROGRESS,
  noteRefusals,
  type Refusal,
  readProgress,
  writeProgress,
} from "../../src/core/copying.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";

/** After the last of these refusals of one file. */
function believedAfter(...atMs: readonly number[]): boolean {
  let refusals: readonly Refusal[] = [];
  for (const nowMs of atMs) refusals = noteRefusals(refusals, [7], nowMs);
  return refusals.every((refusal) => isBelieved(refusal, atMs.at(-1) ?? 0));
}

test("a refusal is believed when it came three times, over two minutes", () => {
  expect(believedAfter(0)).toBe(false);
  expect(believedAfter(0, 2 * MINUTE)).toBe(false);
  expect(believedAfter(0, MINUTE, 2 * MINUTE - 1)).toBe(false);
  expect(believedAfter(0, MINUTE, 2 * MINUTE)).toBe(true);
  expect(believedAfter(0, SECOND, 2 * SECOND, 3 * SECOND)).toBe(false);
});

test("a file that wasn't refused in between begins anew; each is counted for itself", () => {
  const first = noteRefusals([], [1, 2], 0);
  const second = noteRefusals(first, [2, 3], MINUTE);
  expect(second).toEqual([
    { n: 2, times: 2, sinceMs: 0 },
    { n: 3, times: 1, sinceMs: MINUTE },
  ]);
  expect(noteRefusals(second, [1], 2 * MINUTE)).toEqual([{ n: 1, times: 1, sinceMs: 2 * MINUTE }]);
});

const anyProgress = fc.record({
  copied: fc.array(
    fc.record({
      from: fc.oneof(fc.webUrl(), fc.string({ maxLength: 40_000, size: "max" })),
      key: fc.string(),
      url: fc.string(),
      bytes: fc.nat(),
      sha256: fc.string(),
      content_type: fc.string(),
    }),
    { maxLength: 5 },
  ),
  refusals: fc.array(fc.record({ n: fc.nat(9_999), times: fc.nat(), sinceMs: fc.nat() })),
});

test("progress is remembered as it was, as far as its length is bounded", () => {
  expect(readProgress(undefined)).toEqual(NO_PROGRESS);
  fc.assert(
    fc.property(anyProgress, (progress) => {
      const text = writeProgress(progress);
      expect(text.length).toBeLessThan(33_000);
      const { copied, refusals } = readProgress(text);
      for (const file of copied) expect(progress.copied).toContainEqual(file);
      if (JSON.stringify(progress).length < 32_000) expect({ copied, refusals }).toEqual(progress);
      else expect(refusals).toEqual(progress.refusals);
    }),
  );
});
