import fc from "fast-check";
import { expect, test } from "vitest";
import { DEFAULT_POLL_POLICY, firstPollDelayMs, nextPoll, type PollPolicy } from "../../src/core/polling.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const jitter = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const anyPolicy: fc.Arbitrary<PollPolicy> = fc
  .record({
    firstPauseMs: fc.integer({ min: 1, max: 10 * SECOND }),
    shortestPauseMs: fc.integer({ min: 1, max: 10 * SECOND }),
    more: fc.integer({ min: 0, max: MINUTE }),
    deadlineMs: fc.integer({ min: SECOND, max: 3 * HOUR }),
    graceMs: fc.integer({ min: 0, max: HOUR }),
  })
  .map(({ more, ...policy }) => ({ ...policy, longestPauseMs: policy.shortestPauseMs + more }));
const anyAge = fc.integer({ min: -MINUTE, max: 5 * HOUR });

test("the real schedule of a prediction that never ends, with a jitter in the middle", () => {
  const lines: string[] = [];
  let nowMs = NOON + firstPollDelayMs(0.5, DEFAULT_POLL_POLICY);
  for (let poll = 1; ; poll++) {
    const next = nextPoll(NOON, nowMs, 0.5, DEFAULT_POLL_POLICY);
    const age = ((nowMs - NOON) / SECOND).toFixed(1);
    if (next.kind !== "poll" || poll <= 16) lines.push(`${poll}. after ${age} s: ${next.kind}`);
    if (next.kind === "give-up") break;
    nowMs = next.atMs;
  }
  expect([...lines.slice(0, 18), "…", ...lines.slice(-2)].join("\n")).toMatchInlineSnapshot(`
    "1. after 2.0 s: poll
    2. after 3.0 s: poll
    3. after 4.0 s: poll
    4. after 5.0 s: poll
    5. after 6.3 s: poll
    6. after 7.8 s: poll
    7. after 9.8 s: poll
    8. after 12.2 s: poll
    9. after 15.3 s: poll
    10. after 19.1 s: poll
    11. after 23.8 s: poll
    12. after 29.8 s: poll
    13. after 37.3 s: poll
    14. after 46.6 s: poll
    15. after 58.2 s: poll
    16. after 72.8 s: poll
    195. after 5400.0 s: overdue
    196. after 5430.0 s: overdue
    …
    224. after 6270.0 s: overdue
    225. after 6300.0 s: give-up"
  `);
});

test("a poll lies ahead of now and never past the deadline", () => {
  fc.assert(
    fc.property(anyPolicy, anyAge, jitter, (policy, ageMs, chance) => {
      const nowMs = NOON + ageMs;
      const next = nextPoll(NOON, nowMs, chance, policy);
      if (next.kind === "give-up") return;
      expect(next.atMs).toBeGreaterThan(nowMs);
      if (next.kind === "poll") expect(next.atMs).toBeLessThanOrEqual(NOON + policy.deadlineMs);
      expect(Number.isInteger(next.atMs)).toBe(true);
    }),
  );
});

test("what happens depends on the age alone: poll, then cancel, then give up", () => {
  fc.assert(
    fc.property(anyPolicy, anyAge, jitter, (policy, ageMs, chance) => {
      const expected =
        ageMs < policy.deadlineMs ? "poll" : ageMs < policy.deadlineMs + policy.graceMs ? "overdue" : "give-up";
      expect(nextPoll(NOON, NOON + ageMs, chance, policy).kind).toBe(expected);
    }),
  );
});

test("pauses never shrink with age, but for the last one before the deadline", () => {
  fc.assert(
    fc.property(anyPolicy, anyAge, fc.nat(HOUR), jitter, (policy, youngMs, olderMs, chance) => {
      const pauseAt = (ageMs: number) => {
        const next = nextPoll(NOON, NOON + ageMs, chance, policy);
        if (next.kind === "give-up") return null;
        const isCut = next.kind === "poll" && next.atMs === NOON + policy.deadlineMs;
        return isCut ? null : next.atMs - NOON - ageMs;
      };
      const [young, old] = [pauseAt(youngMs), pauseAt(youngMs + olderMs)];
      fc.pre(young !== null && old !== null);
      expect(old).toBeGreaterThanOrEqual(young ?? 0);
    }),
  );
});

test("jitter moves a pause by up to a tenth, so that a batch made in one second isn't polled in one", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: HOUR }), jitter, (ageMs, chance) => {
      const pauseMs = (at: number) => {
        const next = nextPoll(NOON, NOON + ageMs, at, DEFAULT_POLL_POLICY);
        return next.kind === "poll" ? next.atMs - NOON - ageMs : Number.NaN;
      };
      const middle = pauseMs(0.5);
      expect(Math.abs(pauseMs(chance) - middle)).toBeLessThanOrEqual(0.1 * middle + 2);
      const first = firstPollDelayMs(chance, DEFAULT_POLL_POLICY);
      expect(Math.abs(first - DEFAULT_POLL_POLICY.firstPauseMs)).toBeLessThanOrEqual(
        0.1 * DEFAULT_POLL_POLICY.firstPauseMs + 1,
      );
    }),
  );
});

test("the end of a run is known late by a quarter of it at most, or half a minute", () => {
  fc.assert(
    fc.property(fc.integer({ min: SECOND, max: HOUR }), jitter, (runMs, chance) => {
      let nowMs = NOON + firstPollDelayMs(chance, DEFAULT_POLL_POLICY);
      while (nowMs < NOON + runMs) {
        const next = nextPoll(NOON, nowMs, chance, DEFAULT_POLL_POLICY);
        if (next.kind !== "poll") throw new Error(next.kind);
        nowMs = next.atMs;
      }
      const lateMs = nowMs - NOON - runMs;
      expect(lateMs).toBeLessThanOrEqual(Math.max(2.2 * SECOND, Math.min(0.28 * runMs, 33 * SECOND)));
    }),
  );
});
