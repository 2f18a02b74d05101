import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { backoffMs, decideAfterCreate, decideAfterPoll, type Failure } from "../../src/core/retrying.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";

const jitter = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const anyStatus = fc.option(fc.oneof(fc.integer({ min: 100, max: 599 }), fc.constantFrom(401, 402, 404, 429, 500)));
const anyFailure: fc.Arbitrary<Failure> = fc.record({
  kind: fc.constantFrom("not-sent", "refused", "unknown"),
  status: anyStatus,
  retryAfterMs: fc.option(fc.integer({ min: 0, max: HOUR })),
  detail: fc.string(),
});
const failure = (kind: Failure["kind"], status: number | null = null, retryAfterMs: number | null = null): Failure => ({
  kind,
  status,
  retryAfterMs,
  detail: "words",
});

describe("after a failed create", () => {
  test.for<readonly [Failure, unknown]>([
    [failure("not-sent"), { kind: "again", afterMs: 5_000 }],
    [failure("unknown"), { kind: "unclear", reason: "words" }],
    [failure("unknown", 500), { kind: "unclear", reason: "words" }],
    [failure("unknown", 408), { kind: "unclear", reason: "words" }],
    [failure("unknown", 409), { kind: "unclear", reason: "words" }],
    [failure("refused", 429), { kind: "slow-down", forMs: 10_000 }],
    [failure("refused", 429, 3_000), { kind: "slow-down", forMs: 3_000 }],
    [failure("refused", 429, 0), { kind: "slow-down", forMs: 100 }],
    [failure("refused", 429, HOUR), { kind: "slow-down", forMs: HOUR }],
    [failure("refused", 401), { kind: "pause-account", reason: "401: words" }],
    [failure("refused", 402), { kind: "pause-account", reason: "402: words" }],
    [failure("refused", 400), { kind: "fail", reason: "words" }],
    [failure("refused", 403), { kind: "fail", reason: "words" }],
    [failure("refused", 404), { kind: "fail", reason: "words" }],
    [failure("refused", 413), { kind: "fail", reason: "words" }],
    [failure("refused", 422), { kind: "fail", reason: "words" }],
    [failure("refused"), { kind: "fail", reason: "words" }],
  ])("%o means %o", ([what, decision]) => {
    expect(decideAfterCreate(what, 0.5)).toEqual(decision);
  });

  test("every failure gets a decision, and one that may have arrived is never sent again by itself", () => {
    fc.assert(
      fc.property(anyFailure, jitter, (what, chance) => {
        const { kind } = decideAfterCreate(what, chance);
        if (what.kind === "unknown") expect(kind).toBe("unclear");
        else expect(kind).not.toBe("unclear");
        if (kind === "again") expect(what.kind).toBe("not-sent");
        if (kind === "slow-down") expect(what).toMatchObject({ kind: "refused", status: 429 });
      }),
    );
  });
});

describe("after a failed poll", () => {
  test("of a prediction that may still run gives nothing up", () => {
    expect(decideAfterPoll(failure("refused", 404), { ageMs: 2 * HOUR, isOverdue: false })).toEqual({ kind: "again" });
  });

  test.for<readonly [Failure, ageMs: number, unknown]>([
    [failure("unknown"), 0, { kind: "again" }],
    [failure("not-sent"), HOUR, { kind: "again" }],
    [failure("unknown", 500), HOUR, { kind: "again" }],
    [failure("refused", 404), 4 * MINUTE, { kind: "again" }],
    [failure("refused", 404), HOUR - 1, { kind: "again" }],
    [failure("refused", 404), HOUR, { kind: "gone", reason: "words" }],
    [failure("refused", 403), 2 * HOUR, { kind: "again" }],
    [failure("refused", 401), 0, { kind: "pause-account", reason: "401: words" }],
    [failure("refused", 402), HOUR, { kind: "again" }],
    [failure("refused", 403), HOUR, { kind: "again" }],
    [failure("refused", 429, 4_000), 0, { kind: "slow-down", forMs: 4_000 }],
  ])("%o of an overdue prediction %i ms old means %o", ([what, ageMs, decision]) => {
    expect(decideAfterPoll(what, { ageMs, isOverdue: true })).toEqual(decision);
  });

  test("every failure gets a decision, and only what the provider says itself gives a prediction up", () => {
    fc.assert(
      fc.property(anyFailure, fc.nat(3 * HOUR), fc.boolean(), (what, ageMs, isOverdue) => {
        const { kind } = decideAfterPoll(what, { ageMs, isOverdue });
        if (kind === "gone") expect(what.kind === "refused" || what.status === 404).toBe(true);
        if (what.kind === "unknown" && what.status !== 429 && what.status !== 401 && what.status !== 404)
          expect(kind).toBe("again");
      }),
    );
  });
});

test("the time that a provider asked for is never undercut", () => {
  fc.assert(
    fc.property(fc.nat(HOUR), jitter, fc.nat(HOUR), (askedMs, chance, ageMs) => {
      const what = failure("refused", 429, askedMs);
      for (const decision of [decideAfterCreate(what, chance), decideAfterPoll(what, { ageMs, isOverdue: true })]) {
        expect(decision.kind === "slow-down" ? decision.forMs : -1).toBeGreaterThanOrEqual(askedMs);
      }
    }),
  );
});

describe("the pause before another try", () => {
  test("doubles from half a second to a minute: the real schedule", () => {
    const schedule = Array.from({ length: 10 }, (_, n) => backoffMs(n + 1, 0.5));
    expect(schedule).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
    const allOf25 = Array.from({ length: 24 }, (_, n) => backoffMs(n + 1, 0.5)).reduce((sum, ms) => sum + ms, 0);
    expect(Math.round(allOf25 / MINUTE)).toBe(18);
  });

  test("is a whole number up to a minute for any count, and never shrinks with the tries", () => {
    fc.assert(
      fc.property(fc.integer({ min: -1, max: 2_000_000 }), jitter, (tries, chance) => {
        const ms = backoffMs(tries, chance);
        expect(Number.isInteger(ms) && ms > 0.3 * SECOND && ms <= MINUTE).toBe(true);
        expect(backoffMs(tries + 1, chance)).toBeGreaterThanOrEqual(ms);
      }),
    );
  });
});
