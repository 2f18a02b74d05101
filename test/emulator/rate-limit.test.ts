import fc from "fast-check";
import { expect, test } from "vitest";
import { fullBucket, take } from "../../src/emulator/rate-limit.ts";

const limits = fc.record({ perMinute: fc.integer({ min: 1, max: 60_000 }), burst: fc.integer({ min: 1, max: 100 }) });
const pauses = fc.array(fc.double({ min: 0, max: 2_000, noNaN: true }), { minLength: 1, maxLength: 200 });

test("in no span of time does it admit more than the burst and what the rate allows", () => {
  fc.assert(
    fc.property(limits, pauses, (limit, steps) => {
      let nowMs = 0;
      let bucket = fullBucket(limit, nowMs);
      const admittedAt: number[] = [];
      for (const step of steps) {
        nowMs += step;
        const verdict = take(bucket, limit, nowMs);
        bucket = verdict.bucket;
        if (verdict.admitted) admittedAt.push(nowMs);
      }
      for (const [index, from] of admittedAt.entries()) {
        for (const [later, to] of admittedAt.slice(index).entries()) {
          expect(later + 1).toBeLessThanOrEqual(limit.burst + (limit.perMinute * (to - from)) / 60_000 + 1e-6);
        }
      }
    }),
  );
});

test("who waits as long as told is admitted", () => {
  fc.assert(
    fc.property(limits, pauses, (limit, steps) => {
      let nowMs = 0;
      let bucket = fullBucket(limit, nowMs);
      for (const step of steps) {
        nowMs += step / 100;
        const verdict = take(bucket, limit, nowMs);
        bucket = verdict.bucket;
        if (!verdict.admitted) expect(take(bucket, limit, nowMs + verdict.resetMs + 1e-3).admitted).toBe(true);
      }
    }),
  );
});

test("a clock that goes backwards gives nothing away", () => {
  const limit = { perMinute: 60, burst: 1 };
  const first = take(fullBucket(limit, 1_000), limit, 1_000);
  const second = take(first.bucket, limit, 0);
  expect([first.admitted, second.admitted, take(second.bucket, limit, 1_500).admitted]).toEqual([true, false, false]);
  expect(take(second.bucket, limit, 2_000).admitted).toBe(true);
});

test("without a limit everything is admitted", () => {
  const limit = { perMinute: Infinity, burst: 1 };
  expect(take(fullBucket(limit, 0), limit, 0)).toMatchObject({ admitted: true, resetMs: 0 });
});
