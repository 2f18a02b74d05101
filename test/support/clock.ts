/** A clock that stands still until it is told otherwise, so that two runs write the same times. */

export type TestClock = {
  (): number;
  /** Moves the clock; answers the new time. */
  forward(ms: number): number;
};

export function clockAt(startMs: number): TestClock {
  let nowMs = startMs;
  return Object.assign(() => nowMs, {
    forward: (ms: number) => (nowMs += ms),
  });
}
