import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  batchState,
  estimateEnd,
  exitCodeOf,
  isSettled,
  type Progress,
  progressOf,
  type StateCounts,
  shownAs,
} from "../../src/core/batch.ts";
import { ITEM_STATES, type ItemState, isEnd } from "../../src/core/item.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";

const countsOf = (states: readonly ItemState[]): StateCounts =>
  Object.fromEntries(ITEM_STATES.map((state) => [state, states.filter((one) => one === state).length])) as StateCounts;
const anyStates = fc.array(fc.constantFrom(...ITEM_STATES), { maxLength: 60 });
const anyProgress: fc.Arbitrary<Progress> = anyStates.map((states) => progressOf(countsOf(states)));
const anyPause = fc.option(fc.constant("no credit"));
const none: Progress = { items: 0, waiting: 0, inFlight: 0, saved: 0, failed: 0, canceled: 0, unclear: 0 };

describe("progress", () => {
  test("sums to the number of items, in whatever order they came", () => {
    fc.assert(
      fc.property(anyStates, fc.func(fc.integer()), (states, order) => {
        const { items, ...parts } = progressOf(countsOf(states));
        expect(items).toBe(states.length);
        expect(Object.values(parts).reduce((sum, part) => sum + part, 0)).toBe(items);
        const shuffled = states.toSorted((a, b) => order(a) - order(b));
        expect(progressOf(countsOf(shuffled))).toEqual({ items, ...parts });
      }),
    );
  });

  test("shows an item that isn't over as waiting, in flight or unclear", () => {
    const shown = Object.fromEntries(ITEM_STATES.map((state) => [state, shownAs(state)]));
    expect(shown).toEqual({
      waiting: "waiting",
      claimed: "inFlight",
      running: "inFlight",
      copying: "inFlight",
      recording: "inFlight",
      saved: "saved",
      failed: "failed",
      canceled: "canceled",
      unclear: "unclear",
    });
  });
});

describe("a batch", () => {
  test("is open, running, paused, finished or canceled: as a table", () => {
    const stateOf = (progress: Partial<Progress>, paused: string | null = null, finished = false, canceled = false) =>
      batchState({ progress: { ...none, items: 3, ...progress }, paused, finished, canceled });
    expect(stateOf({ waiting: 3 })).toBe("open");
    expect(stateOf({ waiting: 2, inFlight: 1 })).toBe("running");
    expect(stateOf({ saved: 3 })).toBe("running");
    expect(stateOf({ saved: 3 }, null, true)).toBe("finished");
    expect(stateOf({ waiting: 3 }, "no credit")).toBe("paused");
    expect(stateOf({ saved: 3 }, "no credit", true)).toBe("finished");
    expect(stateOf({ canceled: 3 }, null, true), "one by one, not as a whole").toBe("finished");
    expect(stateOf({ waiting: 3 }, null, false, true)).toBe("canceled");
    expect(stateOf({ canceled: 2, inFlight: 1 }, "no credit", false, true)).toBe("canceled");
    expect(stateOf({ canceled: 2, saved: 1 }, null, true, true)).toBe("canceled");
  });

  test("is settled when nothing can happen without a person", () => {
    fc.assert(
      fc.property(anyProgress, anyPause, (progress, paused) => {
        const settled = isSettled(progress, paused);
        if (progress.inFlight > 0) expect(settled).toBe(false);
        else expect(settled).toBe(progress.waiting === 0 || paused !== null);
      }),
    );
  });

  test("ends with the highest exit code that applies", () => {
    fc.assert(
      fc.property(anyProgress, anyPause, (progress, paused) => {
        const code = exitCodeOf(progress, paused);
        expect(code === 4).toBe(progress.unclear > 0);
        expect(code === 3).toBe(progress.unclear === 0 && paused !== null && progress.waiting > 0);
        if (code === 0) expect(progress.failed + progress.canceled).toBe(0);
        if (code === 2) expect(progress.failed + progress.canceled).toBeGreaterThan(0);
      }),
    );
    expect(exitCodeOf({ ...none, items: 2, saved: 2 }, "no credit")).toBe(0);
  });
});

describe("the estimate", () => {
  const estimate = (
    progress: Partial<Progress>,
    facts: { endedPerSecond?: number; createsPerMinute?: number; paused?: string | null; held?: string | null } = {},
  ) =>
    estimateEnd({
      progress: { ...none, ...progress },
      endedPerSecond: 10,
      createsPerMinute: 600,
      paused: null,
      held: null,
      ...facts,
    });

  test("names what the end is waiting for", () => {
    expect(estimate({ waiting: 600 })).toEqual({ etaMs: MINUTE, reason: "the limit of 600 creates a minute" });
    expect(estimate({ waiting: 600 }, { endedPerSecond: 100 }), "a fast start promises nothing").toEqual({
      etaMs: MINUTE,
      reason: "the limit of 600 creates a minute",
    });
    expect(estimate({ waiting: 600 }, { endedPerSecond: 2 })).toEqual({
      etaMs: 5 * MINUTE,
      reason: "items end at 2.0 a second",
    });
    expect(estimate({ inFlight: 20 })).toEqual({
      etaMs: 2 * SECOND,
      reason: "20 predictions still running or being copied",
    });
    expect(estimate({ inFlight: 1 }, { endedPerSecond: 0 })).toEqual({
      etaMs: null,
      reason: "1 prediction still running or being copied",
    });
    expect(estimate({ waiting: 5 }, { paused: "the account is paused: no credit" })).toEqual({
      etaMs: null,
      reason: "the account is paused: no credit",
    });
    expect(estimate({ waiting: 600 }, { held: "saving is behind" })).toEqual({
      etaMs: MINUTE,
      reason: "saving is behind",
    });
    expect(estimate({ waiting: 600 }, { held: "the bucket is down", endedPerSecond: 0 })).toEqual({
      etaMs: null,
      reason: "the bucket is down",
    });
    expect(estimate({ saved: 5 })).toEqual({ etaMs: 0, reason: "all items have ended" });
    expect(estimate({ saved: 5, unclear: 1 })).toEqual({ etaMs: 0, reason: "1 item unclear" });
  });

  test("is never shorter than the limit allows, and always a number that can be shown, or null", () => {
    const rate = fc.double({ min: 0, max: 1_000, noNaN: true });
    fc.assert(
      fc.property(
        anyProgress,
        rate,
        fc.integer({ min: 1, max: 6_000 }),
        anyPause,
        fc.constantFrom(null, "saving is behind"),
        (progress, endedPerSecond, createsPerMinute, paused, held) => {
          const { etaMs, reason } = estimateEnd({ progress, endedPerSecond, createsPerMinute, paused, held });
          expect(reason.length).toBeGreaterThan(5);
          if (etaMs === null) return;
          expect(etaMs).toBeGreaterThanOrEqual((progress.waiting / createsPerMinute) * MINUTE * 0.999);
          expect(Number.isNaN(etaMs)).toBe(false);
        },
      ),
    );
  });
});

test("every end is shown under its own name", () => {
  for (const state of ITEM_STATES) if (isEnd(state)) expect(shownAs(state)).toBe(state);
});
