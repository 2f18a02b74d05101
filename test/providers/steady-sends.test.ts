import fc from "fast-check";
import { expect, test } from "vitest";
import { steadySends } from "../../src/providers/steady-sends.ts";

/** A clock that sleeping moves, a little further than asked, as timers do. */
function sleepyClock(overshootMs: number) {
  let nowMs = 1_000;
  return {
    clock: () => nowMs,
    sleep: async (ms: number) => {
      nowMs += ms + overshootMs;
    },
    forward: (ms: number) => {
      nowMs += ms;
    },
  };
}

test("errands taken at even intervals leave at even intervals, whatever came in between", async () => {
  const time = sleepyClock(0);
  const turn = steadySends({ intervalMs: () => 100, offsetMs: 40, ...time });
  const left: number[] = [];
  for (const [nth, busyMs] of [3, 25, 0, 39, 12].entries()) {
    const takenAtMs = 2_000 + nth * 110;
    time.forward(Math.max(takenAtMs + busyMs - time.clock(), 0));
    await turn(takenAtMs);
    left.push(time.clock());
  }
  expect(left).toEqual([2_040, 2_150, 2_260, 2_370, 2_480]);
});

test("no two leave closer together than the interval, however late one was", async () => {
  const turns = fc.array(fc.record({ gapMs: fc.nat(300), busyMs: fc.nat(200) }), { maxLength: 50 });
  await fc.assert(
    fc.asyncProperty(turns, fc.nat(20), async (errands, overshootMs) => {
      const time = sleepyClock(overshootMs);
      const turn = steadySends({ intervalMs: () => 100, offsetMs: 40, ...time });
      let lastMs = Number.NEGATIVE_INFINITY;
      for (const { gapMs, busyMs } of errands) {
        time.forward(gapMs);
        const takenAtMs = time.clock();
        time.forward(busyMs);
        await turn(takenAtMs);
        expect(time.clock() - lastMs).toBeGreaterThanOrEqual(100);
        expect(time.clock() - takenAtMs).toBeGreaterThanOrEqual(40);
        lastMs = time.clock();
      }
    }),
  );
});

test("a rate that was raised since, or a clock that was set back, delays and stops nobody", async () => {
  const time = sleepyClock(0);
  const turn = steadySends({ intervalMs: () => 60_000, offsetMs: 40, ...time });
  for (let nth = 0; nth < 5; nth++) {
    const takenAtMs = time.clock();
    await turn(takenAtMs);
    expect(time.clock() - takenAtMs).toBeLessThanOrEqual(2_000);
  }
  time.forward(-600_000);
  const takenAtMs = time.clock();
  await turn(takenAtMs);
  expect(time.clock() - takenAtMs).toBeLessThanOrEqual(2_000);
});

test("several that are ready at once get their turns one after the other", async () => {
  const asked: number[] = [];
  const turn = steadySends({
    intervalMs: () => 100,
    offsetMs: 40,
    clock: () => 0,
    sleep: async (ms) => asked.push(ms),
  });
  await Promise.all([turn(0), turn(0), turn(0)]);
  expect(asked).toEqual([40, 140, 240]);
});
