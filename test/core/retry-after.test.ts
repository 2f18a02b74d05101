import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { lowCreditTier, type RetryHint, retryAfterMs } from "../../src/core/retry-after.ts";
import { HOUR } from "../../src/core/time.ts";

const NOW = Date.UTC(2026, 9, 21, 7, 28, 0);
const LOW_CREDIT =
  "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of " +
  "1 requests while you have less than $5.0 in credit. Your rate limit resets in ~7s.";

describe("how long we were asked to wait:", () => {
  test.each<[RetryHint, number | null]>([
    // the header
    [{ header: "3" }, 3_000],
    [{ header: " 0.02 " }, 20],
    [{ header: "0" }, 0],
    [{ header: "-5" }, 0],
    [{ header: "86400" }, HOUR],
    [{ header: "Wed, 21 Oct 2026 07:28:30 GMT" }, 30_000],
    [{ header: "Wed, 21 Oct 2026 07:27:00 GMT" }, 0],
    [{ header: "Wednesday, 21-Oct-26 07:28:30 GMT" }, 30_000],
    [{ header: "Wed Oct 21 07:28:30 2026" }, 30_000],
    [{ header: "2026-10-21T07:28:30Z" }, 30_000],
    [{ header: "2026-10-21T09:28:30.5+02:00" }, 30_500],
    [{ header: "soon" }, null],
    [{ header: "" }, null],
    [{ header: "Wed, 99 Oct 2026 07:28:30 GMT" }, null],
    // the number in the body
    [{ seconds: 7 }, 7_000],
    [{ seconds: 0.0001 }, 1],
    [{ seconds: -1 }, 0],
    [{ seconds: Infinity }, HOUR],
    [{ seconds: NaN }, null],
    [{ header: null, seconds: null, detail: null }, null],
    // the sentence
    [{ detail: "Request was throttled. Your rate limit resets in ~30s." }, 30_000],
    [{ detail: LOW_CREDIT }, 7_000],
    [{ detail: "Request was throttled. Expected available in 3 seconds." }, 3_000],
    [{ detail: "Request was throttled. Expected available in 1 second." }, 1_000],
    [{ detail: "Your rate limit resets in 1m30s." }, 90_000],
    [{ detail: "resets in ~ 1 minute and 30 seconds" }, 90_000],
    [{ detail: "resets in about 2 min, 5 sec" }, 125_000],
    [{ detail: "Please try again after 1.5 s" }, 1_500],
    [{ detail: "Retry after: 250ms" }, 250],
    [{ detail: "Please wait 10 seconds" }, 10_000],
    [{ detail: "try again in 3 days" }, HOUR],
    [{ detail: "made 9 calls in 2 seconds; resets in ~12s" }, 12_000],
    [{ detail: "limited to 6 requests per minute" }, null],
    [{ detail: "resets in 5 parsecs" }, null],
    [{ detail: "resets in a moment" }, null],
    [{ detail: "you have less than $5.0 in credit" }, null],
    // the first that can be read
    [{ header: "3", seconds: 7, detail: "resets in ~30s" }, 3_000],
    [{ header: "soon", seconds: 7, detail: "resets in ~30s" }, 7_000],
    [{ header: "soon", seconds: NaN, detail: "resets in ~30s" }, 30_000],
  ])("%o is %s", (hint, ms) => {
    expect(retryAfterMs(hint, NOW)).toBe(ms);
  });
});

const capped = (ms: number) => Math.min(ms, HOUR);
const length = fc.integer({ min: 0, max: 7_200 });

test("a wait is never undercut, whoever named it", () => {
  fc.assert(
    fc.property(length, fc.constantFrom("header", "date", "seconds", "detail", "minutes"), (seconds, where) => {
      const date = new Date(NOW + seconds * 1_000).toUTCString();
      const minutes = `resets in ${Math.floor(seconds / 60)}m${seconds % 60}s`;
      const hints: Record<typeof where, RetryHint> = {
        header: { header: String(seconds), detail: "resets in ~1s" },
        date: { header: date, seconds: 1 },
        seconds: { seconds, detail: "resets in ~1s" },
        detail: { detail: `Your rate limit resets in ~${seconds}s. You used 3 in 0.5 seconds.` },
        minutes: { detail: minutes },
      };
      expect(retryAfterMs(hints[where], NOW)).toBeGreaterThanOrEqual(capped(seconds * 1_000));
    }),
  );
});

test("whatever a provider says, the wait is null or whole milliseconds up to an hour", () => {
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.stringMatching(/^(in|after|for|wait) ~?[\d.:-]{0,12} ?(ms|s|m|h|d|min)[\d sm]{0,9}$/),
    fc.date({ noInvalidDate: false }).map(String),
  );
  const hint = fc.record({ header: fc.option(text), seconds: fc.option(fc.double()), detail: fc.option(text) });
  fc.assert(
    fc.property(hint, fc.integer(), (said, nowMs) => {
      const ms = retryAfterMs(said, nowMs);
      expect(ms === null || (Number.isInteger(ms) && ms >= 0 && ms <= HOUR)).toBe(true);
      expect(() => lowCreditTier(said.detail ?? "")).not.toThrow();
    }),
    { numRuns: 500 },
  );
});

test("a sentence of any length is read in no time", () => {
  const beginMs = performance.now();
  retryAfterMs({ detail: "in 1s".repeat(500_000) }, NOW);
  retryAfterMs({ detail: `in ${"1 ".repeat(500_000)}` }, NOW);
  retryAfterMs({ header: `${" ".repeat(500_000)}x` }, NOW);
  expect(performance.now() - beginMs).toBeLessThan(500);
});

describe("the rate of an account without credit:", () => {
  test.each<[string, ReturnType<typeof lowCreditTier>]>([
    [LOW_CREDIT, { perMinute: 6, burst: 1 }],
    [
      "Your rate limit for creating predictions is reduced to 6 requests \nper minute with a burst of 1 requests until you add a payment method.",
      { perMinute: 6, burst: 1 },
    ],
    [
      "Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests.",
      { perMinute: 6, burst: 1 },
    ],
    ["is reduced to 1 request per second with a burst of 3 requests", { perMinute: 60, burst: 3 }],
    ["is reduced to 12 requests per minute", { perMinute: 12, burst: 1 }],
    ["is reduced to 0 requests per minute", null],
    ["Request was throttled. Your rate limit resets in ~30s.", null],
    ["", null],
  ])("%o", (detail, tier) => {
    expect(lowCreditTier(detail)).toEqual(tier);
  });
});
