import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  afterRefusal,
  effectiveRate,
  freshPace,
  type Pace,
  refusedUntilMs,
  tierAt,
  withRate,
} from "../../src/core/pacing.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";

const NOW = 1_000_000_000;
const RATE = { perMinute: 600, toleratesBurst: true };
const LOW_CREDIT =
  "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~10s.";
const PLAIN = "Request was throttled. Expected available in 1 second.";

const perMinute = (pace: Pace, nowMs: number) => effectiveRate(pace, nowMs).perMinute;

const refusals = fc.array(
  fc.record({
    afterMs: fc.oneof(fc.nat({ max: 5 * SECOND }), fc.nat({ max: 2 * HOUR })),
    forMs: fc.nat({ max: 10 * MINUTE }),
    said: fc.constantFrom(PLAIN, LOW_CREDIT, ""),
  }),
  { maxLength: 20 },
);

function play(list: readonly { afterMs: number; forMs: number; said: string }[], rate = RATE) {
  let pace = freshPace(rate);
  let nowMs = NOW;
  const untils: number[] = [];
  for (const { afterMs, ...refusal } of list) {
    nowMs += afterMs;
    pace = afterRefusal(pace, refusal, nowMs);
    untils.push(refusedUntilMs(pace));
  }
  return { pace, nowMs, untils };
}

describe("after a refusal", () => {
  test("requests begin at half the rate and are back at the whole within a minute", () => {
    const pace = afterRefusal(freshPace(RATE), { forMs: 10 * SECOND, said: PLAIN }, NOW);
    const fromMs = NOW + 10 * SECOND;
    expect(refusedUntilMs(pace)).toBe(fromMs);
    expect([0, 15, 30, 45, 60].map((s) => perMinute(pace, fromMs + s * SECOND))).toEqual([300, 375, 450, 525, 600]);
    expect(pace.lastRefusal).toEqual({ atMs: NOW, untilMs: fromMs, said: PLAIN });
  });

  test("those that were under way with it are the same one, and the longest wait holds", () => {
    const first = afterRefusal(freshPace(RATE), { forMs: 10 * SECOND, said: PLAIN }, NOW);
    const second = afterRefusal(first, { forMs: SECOND, said: PLAIN }, NOW + 50);
    expect(second.slow).toEqual(first.slow);
    expect(refusedUntilMs(second)).toBe(refusedUntilMs(first));
    const longer = afterRefusal(second, { forMs: 20 * SECOND, said: PLAIN }, NOW + 60);
    expect(longer.slow).toEqual({ ...first.slow, fromMs: NOW + 60 + 20 * SECOND });
  });

  test("a second one soon says that the rate is too high: three quarters of it, regained in ten minutes", () => {
    const first = afterRefusal(freshPace(RATE), { forMs: 0, said: PLAIN }, NOW);
    const nowMs = NOW + 40 * SECOND;
    const again = afterRefusal(first, { forMs: 0, said: PLAIN }, nowMs);
    expect([0, 1, 6, 11].map((m) => perMinute(again, nowMs + m * MINUTE))).toEqual([250, 375, 487.5, 600]);
    const later = afterRefusal(first, { forMs: 0, said: PLAIN }, NOW + 6 * MINUTE);
    expect(later.slow?.ceiling, "long after, it is the first again").toBeNull();
  });

  test("the rate is above zero, never above the account's, and never falls by itself", () => {
    fc.assert(
      fc.property(
        refusals,
        fc.integer({ min: 1, max: 6_000 }),
        fc.array(fc.nat({ max: HOUR })),
        (list, limit, waits) => {
          const { pace, nowMs } = play(list, { ...RATE, perMinute: limit });
          let before = 0;
          for (const waitMs of waits.toSorted((a, b) => a - b)) {
            const now = perMinute(pace, nowMs + waitMs);
            expect(now).toBeGreaterThan(0);
            expect(now).toBeLessThanOrEqual(limit);
            expect(now).toBeGreaterThanOrEqual(before - 1e-9);
            before = now;
          }
        },
      ),
    );
  });

  test("no wait that the provider asked for is ever undercut", () => {
    fc.assert(
      fc.property(refusals, (list) => {
        const { untils } = play(list);
        let nowMs = NOW;
        for (const [n, { afterMs, forMs }] of list.entries()) {
          nowMs += afterMs;
          expect(untils[n]).toBeGreaterThanOrEqual(Math.max(nowMs + forMs, untils[n - 1] ?? 0));
        }
      }),
    );
  });

  test("everything is regained in the end", () => {
    fc.assert(
      fc.property(refusals, (list) => {
        const { pace, nowMs } = play(list);
        expect(perMinute(pace, nowMs + 3 * HOUR)).toBe(RATE.perMinute);
      }),
    );
  });
});

describe("a tier of low credit", () => {
  const told = afterRefusal(freshPace(RATE), { forMs: 10 * SECOND, said: LOW_CREDIT }, NOW);

  test("is the rate, without bursts, until it is tried again", () => {
    expect(effectiveRate(told, NOW)).toEqual({ perMinute: 6, toleratesBurst: false });
    expect(effectiveRate(told, NOW + 10 * MINUTE - 1)).toEqual({ perMinute: 6, toleratesBurst: false });
    expect(effectiveRate(told, NOW + 10 * MINUTE)).toEqual({ perMinute: 24, toleratesBurst: true });
    expect(effectiveRate(told, NOW + 11 * MINUTE)).toEqual(RATE);
    expect(tierAt(told, NOW + 10 * MINUTE)).toBeNull();
  });

  test("told again when it is tried is believed for twice as long, up to an hour", () => {
    let pace = told;
    let nowMs = NOW;
    const believed: number[] = [];
    for (let n = 0; n < 5; n++) {
      const forMs = pace.tier?.believedForMs ?? 0;
      believed.push(forMs / MINUTE);
      nowMs += forMs + 5 * SECOND;
      pace = afterRefusal(pace, { forMs: SECOND, said: LOW_CREDIT }, nowMs);
    }
    expect(believed).toEqual([10, 20, 40, 60, 60]);
  });

  test("refused while it holds, the rate is lower, and no lower when it is over", () => {
    const told = { afterMs: 0, forMs: 0, said: LOW_CREDIT };
    const refused = { afterMs: 6 * MINUTE, forMs: 0, said: PLAIN };
    const { pace, nowMs } = play([told, refused, { ...refused, afterMs: 5 * SECOND }], { ...RATE, perMinute: 2 });
    const held = perMinute(pace, NOW + 10 * MINUTE - 1);
    expect(nowMs).toBeLessThan(NOW + 10 * MINUTE);
    expect(held).toBeLessThan(2);
    expect(perMinute(pace, NOW + 10 * MINUTE)).toBeGreaterThanOrEqual(held);
  });

  test("told again while it holds changes nothing but when it was told", () => {
    const again = afterRefusal(told, { forMs: SECOND, said: LOW_CREDIT }, NOW + MINUTE);
    expect(again.tier).toEqual({ ...told.tier, toldAtMs: NOW + MINUTE });
  });

  test("gives way to a rate that a person sets", () => {
    const set = withRate(told, { perMinute: 300, toleratesBurst: true }, true);
    expect(effectiveRate(set, NOW)).toEqual({ perMinute: 300, toleratesBurst: true });
    expect(set).toMatchObject({ byHand: true, lastRefusal: { said: LOW_CREDIT } });
  });
});

test("a limit that is a quarter of what we were told is found, and then hardly ever exceeded", () => {
  const limit = { perMinute: 60, burst: 10 };
  let pace = freshPace({ perMinute: 240, toleratesBurst: true });
  let tokens = limit.burst;
  let nowMs = NOW;
  const creates: { readonly atMs: number; readonly refused: boolean }[] = [];
  while (nowMs < NOW + HOUR) {
    const stepMs = Math.max(MINUTE / perMinute(pace, nowMs), refusedUntilMs(pace) - nowMs);
    nowMs += stepMs;
    tokens = Math.min(tokens + (stepMs / MINUTE) * limit.perMinute, limit.burst);
    const refused = tokens < 1;
    creates.push({ atMs: nowMs, refused });
    if (refused) pace = afterRefusal(pace, { forMs: ((1 - tokens) * MINUTE) / limit.perMinute, said: PLAIN }, nowMs);
    else tokens -= 1;
  }
  const settled = creates.filter(({ atMs }) => atMs > NOW + 5 * MINUTE);
  expect(settled.filter(({ refused }) => refused).length / settled.length).toBeLessThan(0.01);
  expect(settled.length, "without being slow").toBeGreaterThan(55 * 45);
});
