import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  afterFailure,
  afterSuccess,
  type Breaker,
  CLOSED,
  enterBreaker,
  holdsCreatesMs,
  leaveBreaker,
} from "../../src/core/breaking.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";

const NOW = 1_000_000;

function opened(nowMs = NOW): Breaker {
  let breaker: Breaker = CLOSED;
  for (let n = 0; n < 5; n++) breaker = afterFailure(breaker, "ECONNREFUSED", nowMs);
  return breaker;
}

type Event = { readonly kind: "fail" | "succeed" | "enter" | "leave"; readonly afterMs: number; readonly who: number };
const events = fc.array(
  fc.record<Event>({
    kind: fc.constantFrom("fail", "succeed", "enter", "leave"),
    afterMs: fc.nat({ max: 20 * SECOND }),
    who: fc.nat({ max: 5 }),
  }),
  { maxLength: 100 },
);

/** Answers the breaker and the time after each event, and who was let in. */
function play(list: readonly Event[]) {
  const seen: {
    readonly breaker: Breaker;
    readonly nowMs: number;
    readonly entered: boolean;
    readonly event: Event;
  }[] = [];
  let breaker: Breaker = CLOSED;
  let nowMs = NOW;
  for (const event of list) {
    nowMs += event.afterMs;
    let entered = false;
    if (event.kind === "fail") breaker = afterFailure(breaker, "down", nowMs);
    if (event.kind === "succeed") breaker = afterSuccess(breaker);
    if (event.kind === "leave") breaker = leaveBreaker(breaker, `p${event.who}`, nowMs);
    if (event.kind === "enter") {
      const answer = enterBreaker(breaker, `p${event.who}`, nowMs);
      breaker = answer.breaker;
      entered = answer.waitMs === 0;
    }
    seen.push({ breaker, nowMs, entered, event });
  }
  return seen;
}

describe("a breaker", () => {
  test("opens after five failures in a row, and not after four and a success", () => {
    let breaker: Breaker = CLOSED;
    for (let n = 0; n < 4; n++) breaker = afterFailure(breaker, "reset", NOW);
    expect(breaker).toEqual({ state: "closed", failures: 4 });
    expect(afterSuccess(breaker)).toEqual(CLOSED);
    expect(afterFailure(breaker, "reset", NOW)).toMatchObject({
      state: "open",
      reason: "reset",
      probeAtMs: NOW + SECOND,
    });
  });

  test("lets one probe through at a time, later and later, and nobody else", () => {
    let breaker = opened();
    const pauses: number[] = [];
    let nowMs = NOW;
    for (let n = 0; n < 7; n++) {
      const { waitMs } = enterBreaker(breaker, "early", nowMs);
      pauses.push(waitMs);
      nowMs += waitMs;
      breaker = enterBreaker(breaker, "probe", nowMs).breaker;
      expect(breaker).toMatchObject({ state: "half-open", sinceMs: NOW });
      expect(enterBreaker(breaker, "another", nowMs).waitMs).toBeGreaterThan(0);
      breaker = afterFailure(breaker, "still down", nowMs);
    }
    expect(pauses).toEqual([1, 2, 4, 8, 16, 30, 30].map((s) => s * SECOND));
  });

  test("gives the probe of one that died, or that left, to another", () => {
    const taken = enterBreaker(opened(), "a", NOW + SECOND).breaker;
    expect(enterBreaker(taken, "b", NOW + MINUTE)).toMatchObject({ waitMs: 0, breaker: { probe: "b" } });
    const left = leaveBreaker(taken, "a", NOW + 2 * SECOND);
    expect(enterBreaker(left, "b", NOW + 3 * SECOND).waitMs).toBe(0);
    expect(leaveBreaker(taken, "b", NOW), "another's").toBe(taken);
  });

  test("lets the probe through that it is waiting for: its state may be decided again, after a lost reply", () => {
    const taken = enterBreaker(opened(), "a", NOW + SECOND).breaker;
    expect(enterBreaker(taken, "a", NOW + SECOND)).toEqual({ breaker: taken, waitMs: 0 });
    expect(enterBreaker(taken, "b", NOW + SECOND).waitMs).toBeGreaterThan(0);
  });

  test("closes with any answer, whatever came before", () => {
    fc.assert(
      fc.property(events, (list) => {
        const last = play(list).at(-1)?.breaker ?? CLOSED;
        expect(afterSuccess(last)).toEqual(CLOSED);
      }),
    );
  });

  test("never lets a second one in before the first has told, left or been given up", () => {
    fc.assert(
      fc.property(events, (list) => {
        let busyUntilMs = 0;
        let probe = "";
        for (const { breaker, nowMs, entered, event } of play(list)) {
          if (entered && breaker.state === "half-open") {
            if (breaker.probe !== probe) expect(nowMs).toBeGreaterThanOrEqual(busyUntilMs);
            [busyUntilMs, probe] = [breaker.untilMs, breaker.probe];
          } else if (event.kind !== "enter") busyUntilMs = breaker.state === "half-open" ? busyUntilMs : 0;
        }
      }),
    );
  });

  test("always lets somebody in within 40 seconds", () => {
    fc.assert(
      fc.property(events, (list) => {
        const last = play(list).at(-1) ?? { breaker: CLOSED, nowMs: NOW };
        expect(enterBreaker(last.breaker, "late", last.nowMs + 40 * SECOND).waitMs).toBe(0);
      }),
    );
  });
});

test("creates wait for the reads' breaker while somebody probes, and not where nobody polls", () => {
  const breaker = opened();
  expect(holdsCreatesMs(CLOSED, NOW)).toBe(0);
  expect(holdsCreatesMs(breaker, NOW)).toBe(SECOND);
  expect(holdsCreatesMs(breaker, NOW + 30 * SECOND)).toBe(SECOND);
  expect(holdsCreatesMs(breaker, NOW + 31 * SECOND)).toBe(0);
});
