import fc from "fast-check";
import { expect, test } from "vitest";
import { DEFAULT_POLL_POLICY } from "../../src/core/polling.ts";
import type { LearnedRuns, RunTimes } from "../../src/core/run-times.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { deferredPollMs, pageGapMs, pagesAtMost, sweepPauseMs, sweptAges } from "../../src/core/waking.ts";

const NOON = Date.UTC(2026, 10, 20, 12);
const NOTHING: LearnedRuns = { all: null, byModel: new Map() };

/** Run times around a median, as a model's are. */
function around(medianMs: number): RunTimes {
  return { p5Ms: medianMs / 2, medianMs, p95Ms: 2 * medianMs };
}

function learned(...mediansMs: readonly number[]): LearnedRuns {
  const [first = 0] = mediansMs;
  return { all: around(first), byModel: new Map(mediansMs.map((ms) => [`of ${ms}`, around(ms)])) };
}

test("how often the list is read, by what is in flight", () => {
  const rows: string[] = [];
  for (const medianMs of [3 * SECOND, 8 * SECOND, 5 * MINUTE]) {
    for (const inFlight of [1, 10, 100, 3_000, 30_000]) {
      const load = {
        inFlight,
        pages: Math.min(Math.ceil(inFlight / 100), pagesAtMost(3_000)),
        learned: learned(medianMs),
        readsPerMinute: 3_000,
      };
      const pause = (besideWebhooks: boolean) =>
        `${(sweepPauseMs({ ...load, besideWebhooks }) / SECOND).toFixed(1)} s`.padStart(6);
      rows.push(
        `median ${String(medianMs / SECOND).padStart(3)} s, ${String(inFlight).padStart(5)} in flight: ${pause(false)}, beside webhooks ${pause(true)}`,
      );
    }
  }
  expect(rows.join("\n")).toMatchInlineSnapshot(`
    "median   3 s,     1 in flight:  1.5 s, beside webhooks 15.0 s
    median   3 s,    10 in flight:  1.4 s, beside webhooks  7.5 s
    median   3 s,   100 in flight:  1.0 s, beside webhooks  1.0 s
    median   3 s,  3000 in flight:  6.0 s, beside webhooks  6.0 s
    median   3 s, 30000 in flight: 30.0 s, beside webhooks 30.0 s
    median   8 s,     1 in flight:  4.0 s, beside webhooks 15.0 s
    median   8 s,    10 in flight:  3.6 s, beside webhooks 15.0 s
    median   8 s,   100 in flight:  1.0 s, beside webhooks  2.0 s
    median   8 s,  3000 in flight:  6.0 s, beside webhooks  6.0 s
    median   8 s, 30000 in flight: 30.0 s, beside webhooks 30.0 s
    median 300 s,     1 in flight: 15.0 s, beside webhooks 15.0 s
    median 300 s,    10 in flight: 15.0 s, beside webhooks 15.0 s
    median 300 s,   100 in flight: 13.6 s, beside webhooks 15.0 s
    median 300 s,  3000 in flight: 13.6 s, beside webhooks 15.0 s
    median 300 s, 30000 in flight: 30.0 s, beside webhooks 30.0 s"
  `);
});

test("sweeps keep to their share of the reads, and come at least twice a minute while a sweep's pages allow", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 50_000 }),
      fc.integer({ min: 1, max: HOUR }),
      fc.integer({ min: 60, max: 100_000 }),
      fc.boolean(),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (inFlight, medianMs, readsPerMinute, besideWebhooks, share) => {
        const pages = Math.max(1, Math.floor(share * pagesAtMost(readsPerMinute)));
        const pauseMs = sweepPauseMs({ inFlight, pages, learned: learned(medianMs), besideWebhooks, readsPerMinute });
        expect((pages * MINUTE) / pauseMs).toBeLessThanOrEqual(0.1 * readsPerMinute);
        expect(pauseMs).toBeGreaterThanOrEqual(SECOND);
        expect(pauseMs).toBeLessThanOrEqual(Math.max(30 * SECOND, MINUTE / (0.1 * readsPerMinute) + 1));
      },
    ),
  );
});

test("who is woken by a page is polled before the next page is read, and no page waits for longer than a second", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 1, max: 100_000 }), (woken, readsPerMinute) => {
      const gapMs = pageGapMs(woken, readsPerMinute);
      const polled = (gapMs * 0.8 * readsPerMinute) / MINUTE;
      if (gapMs < SECOND) expect(polled).toBeCloseTo(woken);
      else expect([gapMs, polled <= woken + 1e-9]).toEqual([SECOND, true]);
    }),
  );
  expect(pageGapMs(20, 3_000)).toBe(500);
});

test("the ages that are looked at leave out who has hardly ever ended so young, and who is left to its own poll", () => {
  expect(sweptAges(NOTHING)).toEqual({ fromMs: 0, toMs: 10 * MINUTE });
  expect(sweptAges(learned(SECOND)), "all of the last half minute").toEqual({ fromMs: 0, toMs: 30 * SECOND });
  expect(sweptAges(learned(5 * MINUTE))).toEqual({ fromMs: 75 * SECOND, toMs: 20 * MINUTE });
  expect(sweptAges(learned(5 * MINUTE, 8 * SECOND)), "one model is quick").toEqual({
    fromMs: 2 * SECOND,
    toMs: 20 * MINUTE,
  });
  expect(sweptAges(learned(20 * MINUTE)).toMs, "while the list's predictions are known").toBe(HOUR);
});

test("a poll is put off, but never past the prediction's deadline, or past the age that sweeps look at", () => {
  const maybeDeadline = fc.option(fc.nat(2 * HOUR).map((ms) => NOON + ms));
  fc.assert(
    fc.property(
      fc.nat(2 * HOUR),
      maybeDeadline,
      fc.integer({ min: 1, max: MINUTE }),
      fc.nat(HOUR),
      (ageMs, deadlineAtMs, quietMs, reachMs) => {
        const nowMs = NOON + ageMs;
        const atMs = deferredPollMs({ startedAtMs: NOON, deadlineAtMs }, nowMs, quietMs, reachMs, DEFAULT_POLL_POLICY);
        const latestMs = Math.min(NOON + reachMs, NOON + DEFAULT_POLL_POLICY.deadlineMs, deadlineAtMs ?? Infinity);
        if (atMs === null) {
          expect(latestMs).toBeLessThanOrEqual(nowMs);
          return;
        }
        expect(atMs).toBeGreaterThan(nowMs);
        expect(atMs).toBeLessThanOrEqual(latestMs);
        expect(atMs - nowMs).toBeLessThanOrEqual(DEFAULT_POLL_POLICY.longestWaitMs);
        if (atMs < latestMs) expect(atMs - nowMs).toBeGreaterThanOrEqual(quietMs);
      },
    ),
  );
});
