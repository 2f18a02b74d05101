import fc from "fast-check";
import { expect, test } from "vitest";
import { bucketOf, isBucket, learnedRuns, runTimesOf, upperBoundMs } from "../../src/core/run-times.ts";
import { DAY } from "../../src/core/time.ts";

const runMs = fc.integer({ min: 0, max: DAY });

test("a run is in the first bucket that ends at it or later, which is at most a tenth longer", () => {
  fc.assert(
    fc.property(runMs, (ms) => {
      const bucket = bucketOf(ms);
      expect(isBucket(bucket)).toBe(true);
      expect(upperBoundMs(bucket)).toBeGreaterThanOrEqual(ms - 1);
      expect(upperBoundMs(bucket)).toBeLessThanOrEqual(Math.max(100, 1.1 * ms));
    }),
  );
});

test("what is learned encloses what was, within a bucket", () => {
  fc.assert(
    fc.property(fc.array(runMs, { minLength: 10, maxLength: 200 }), (runs) => {
      const counts = new Map<number, number>();
      for (const ms of runs) counts.set(bucketOf(ms), (counts.get(bucketOf(ms)) ?? 0) + 1);
      const times = runTimesOf(counts);
      if (times === null) throw new Error("enough have ended");
      const sorted = runs.toSorted((a, b) => a - b);
      const trueAt = (share: number) => sorted[Math.ceil(share * runs.length) - 1] ?? 0;
      expect(times.p5Ms).toBeLessThanOrEqual(trueAt(0.05) + 1);
      expect(times.medianMs).toBeGreaterThanOrEqual(trueAt(0.5) - 1);
      expect(times.medianMs).toBeLessThanOrEqual(Math.max(100, 1.1 * trueAt(0.5)));
      expect(times.p95Ms).toBeGreaterThanOrEqual(trueAt(0.95) - 1);
      expect(times.p5Ms).toBeLessThanOrEqual(times.medianMs);
      expect(times.medianMs).toBeLessThanOrEqual(times.p95Ms);
    }),
  );
});

test("few runs teach nothing about their model, but count among all", () => {
  const learned = learnedRuns(
    new Map([
      ["a", new Map([[bucketOf(1_000), 9]])],
      ["b", new Map([[bucketOf(8_000), 10]])],
    ]),
  );
  expect(learned.byModel).toEqual(new Map([["b", { p5Ms: 7_611, medianMs: 8_300, p95Ms: 8_300 }]]));
  expect(learned.all).toMatchObject({ medianMs: 8_300 });
  expect(learnedRuns(new Map())).toEqual({ all: null, byModel: new Map() });
});
