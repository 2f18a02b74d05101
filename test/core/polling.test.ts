import fc from "fast-check";
import { expect, test } from "vitest";
import { DEFAULT_POLL_POLICY, type Expectation, nextPoll, type PollPolicy } from "../../src/core/polling.ts";
import { COLD_RUN_TIMES, type RunTimes } from "../../src/core/run-times.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const jitter = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const anyPolicy: fc.Arbitrary<PollPolicy> = fc
  .record({
    shortestPauseMs: fc.integer({ min: 1, max: 10 * SECOND }),
    more: fc.integer({ min: 0, max: MINUTE }),
    longestWaitMs: fc.integer({ min: 1, max: HOUR }),
    deadlineMs: fc.integer({ min: SECOND, max: 3 * HOUR }),
    graceMs: fc.integer({ min: 0, max: HOUR }),
  })
  .map(({ more, ...policy }) => ({ ...policy, longestPauseMs: policy.shortestPauseMs + more }));
const anyAge = fc.integer({ min: -MINUTE, max: 5 * HOUR });
const anyTimes: fc.Arbitrary<RunTimes> = fc
  .tuple(fc.nat(HOUR), fc.nat(HOUR), fc.nat(HOUR))
  .map(([p5Ms, more, most]) => ({ p5Ms, medianMs: p5Ms + more, p95Ms: p5Ms + more + most }));
const anyExpectation: fc.Arbitrary<Expectation> = fc.record({
  times: anyTimes,
  coveredToMs: fc.oneof(fc.nat(2 * HOUR), fc.constantFrom(0, Number.POSITIVE_INFINITY)),
});

const cold = { times: COLD_RUN_TIMES, coveredToMs: 0 };
const quick = { p5Ms: 4 * SECOND, medianMs: 8 * SECOND, p95Ms: 16 * SECOND };
const slow = { p5Ms: 2 * MINUTE, medianMs: 5 * MINUTE, p95Ms: 10 * MINUTE };
const told = Number.POSITIVE_INFINITY;

/** When a prediction that never ends is polled, by its age; jitter in the middle. */
function schedule(expected: Expectation, polls: number): string {
  const ages: string[] = [];
  let nowMs = NOON;
  while (ages.length < polls) {
    const next = nextPoll(NOON, nowMs, 0.5, expected, DEFAULT_POLL_POLICY);
    if (next.kind === "give-up") break;
    nowMs = next.atMs;
    ages.push(((nowMs - NOON) / SECOND).toFixed(1));
  }
  return ages.join("  ");
}

test("the real schedule, seconds after the create, by what is learned and by who else tells of the end", () => {
  const rows: readonly (readonly [string, Expectation])[] = [
    ["a cold model, nobody tells    ", cold],
    ["a cold model, a webhook tells ", { ...cold, coveredToMs: told }],
    ["median 8 s,   nobody tells    ", { times: quick, coveredToMs: 0 }],
    ["median 8 s,   a webhook tells ", { times: quick, coveredToMs: told }],
    ["median 8 s,   swept to 20 s   ", { times: quick, coveredToMs: 20 * SECOND }],
    ["median 5 min, nobody tells    ", { times: slow, coveredToMs: 0 }],
    ["median 5 min, a webhook tells ", { times: slow, coveredToMs: told }],
    ["median 5 min, swept to 8 min  ", { times: slow, coveredToMs: 8 * MINUTE }],
  ];
  expect(rows.map(([name, expected]) => `${name}${schedule(expected, 7)}`).join("\n")).toMatchInlineSnapshot(`
    "a cold model, nobody tells    2.0  3.0  4.0  5.3  7.1  9.5  12.6
    a cold model, a webhook tells 30.0  40.0  53.3  71.1  94.8  124.8  154.8
    median 8 s,   nobody tells    8.0  10.7  14.2  19.0  25.3  33.7  45.0
    median 8 s,   a webhook tells 32.0  42.7  56.9  75.9  101.1  131.1  161.1
    median 8 s,   swept to 20 s   20.0  26.7  35.6  47.4  63.2  84.3  112.4
    median 5 min, nobody tells    300.0  330.0  360.0  390.0  420.0  450.0  480.0
    median 5 min, a webhook tells 600.0  1200.0  1230.0  1260.0  1290.0  1320.0  1350.0
    median 5 min, swept to 8 min  480.0  510.0  540.0  570.0  600.0  630.0  660.0"
  `);
});

test("past its deadline a prediction is canceled, every half minute, and after a quarter of an hour given up", () => {
  const kinds: string[] = [];
  for (let nowMs = NOON; ; ) {
    const next = nextPoll(NOON, nowMs, 0.5, cold, DEFAULT_POLL_POLICY);
    if (kinds.length === 0 || next.kind !== "poll") kinds.push(`${(nowMs - NOON) / SECOND} s: ${next.kind}`);
    if (next.kind === "give-up") break;
    nowMs = next.atMs;
  }
  expect([kinds[1], kinds[2], kinds.at(-2), kinds.at(-1)]).toEqual([
    "5400 s: overdue",
    "5430 s: overdue",
    "6270 s: overdue",
    "6300 s: give-up",
  ]);
});

test("a poll lies ahead of now and never past the deadline", () => {
  fc.assert(
    fc.property(anyPolicy, anyExpectation, anyAge, jitter, (policy, expected, ageMs, chance) => {
      const nowMs = NOON + ageMs;
      const next = nextPoll(NOON, nowMs, chance, expected, policy);
      if (next.kind === "give-up") return;
      expect(next.atMs).toBeGreaterThan(nowMs);
      if (next.kind === "poll") expect(next.atMs).toBeLessThanOrEqual(NOON + policy.deadlineMs);
      expect(Number.isInteger(next.atMs)).toBe(true);
    }),
  );
});

test("no wait is longer than the longest, whoever is to tell of the end", () => {
  fc.assert(
    fc.property(anyPolicy, anyExpectation, fc.nat(5 * HOUR), jitter, (policy, expected, ageMs, chance) => {
      const next = nextPoll(NOON, NOON + ageMs, chance, expected, policy);
      if (next.kind === "give-up") return;
      const longestMs = Math.max(policy.longestPauseMs, policy.longestWaitMs);
      expect(next.atMs - NOON - ageMs).toBeLessThanOrEqual(Math.ceil(1.1 * longestMs));
    }),
  );
});

test("who else tells of the end only puts the poll off", () => {
  fc.assert(
    fc.property(anyExpectation, fc.nat(HOUR), jitter, (expected, ageMs, chance) => {
      const at = (coveredToMs: number) => {
        const next = nextPoll(NOON, NOON + ageMs, chance, { ...expected, coveredToMs }, DEFAULT_POLL_POLICY);
        return next.kind === "poll" ? next.atMs : Number.NaN;
      };
      const netMs = Math.min(2 * expected.times.p95Ms, expected.coveredToMs);
      fc.pre(netMs >= expected.times.medianMs || netMs <= ageMs);
      expect(at(expected.coveredToMs)).toBeGreaterThanOrEqual(at(0));
    }),
  );
});

test("what happens depends on the age alone: poll, then cancel, then give up", () => {
  fc.assert(
    fc.property(anyPolicy, anyExpectation, anyAge, jitter, (policy, known, ageMs, chance) => {
      const expected =
        ageMs < policy.deadlineMs ? "poll" : ageMs < policy.deadlineMs + policy.graceMs ? "overdue" : "give-up";
      expect(nextPoll(NOON, NOON + ageMs, chance, known, policy).kind).toBe(expected);
    }),
  );
});

test("once nothing is waited for any more, pauses never shrink with age, but for the last one before the deadline", () => {
  fc.assert(
    fc.property(anyPolicy, fc.nat(4 * HOUR), fc.nat(HOUR), jitter, (policy, youngMs, olderMs, chance) => {
      const pauseAt = (ageMs: number) => {
        const over = { times: { p5Ms: 0, medianMs: 0, p95Ms: 0 }, coveredToMs: told };
        const next = nextPoll(NOON, NOON + ageMs, chance, over, policy);
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
    fc.property(anyExpectation, fc.integer({ min: 0, max: HOUR }), jitter, (expected, ageMs, chance) => {
      const pauseMs = (at: number) => {
        const next = nextPoll(NOON, NOON + ageMs, at, expected, DEFAULT_POLL_POLICY);
        return next.kind === "poll" ? next.atMs - NOON - ageMs : Number.NaN;
      };
      const middle = pauseMs(0.5);
      expect(Math.abs(pauseMs(chance) - middle)).toBeLessThanOrEqual(0.1 * middle + 2);
    }),
  );
});

test("of what runs longer than half of its model's runs, the end is known late by a third at most, or half a minute", () => {
  const anyMedian = fc.integer({ min: 1, max: DEFAULT_POLL_POLICY.longestWaitMs });
  fc.assert(
    fc.property(anyMedian, fc.integer({ min: SECOND, max: HOUR }), jitter, (medianMs, moreMs, chance) => {
      const runMs = 1.1 * medianMs + moreMs;
      const expected = { times: { p5Ms: 0, medianMs, p95Ms: 2 * medianMs }, coveredToMs: 0 };
      let nowMs = NOON;
      while (nowMs < NOON + runMs) {
        const next = nextPoll(NOON, nowMs, chance, expected, DEFAULT_POLL_POLICY);
        if (next.kind !== "poll") throw new Error(next.kind);
        nowMs = next.atMs;
      }
      expect(nowMs - NOON - runMs).toBeLessThanOrEqual(Math.max(1.2 * SECOND, Math.min(0.37 * runMs, 33 * SECOND)));
    }),
  );
});
