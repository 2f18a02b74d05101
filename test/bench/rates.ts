/** Rates from the times at which things ended. */

export type Rates = {
  /** From the start to the last end, with the way in and the way out. */
  readonly perSecond: number;
  /** Of the ends between the first tenth and the last tenth: the line in full flow. */
  readonly middlePerSecond: number;
};

export function ratesOf(startMs: number, endsMs: readonly number[]): Rates {
  const sorted = endsMs.toSorted((a, b) => a - b);
  const at = (share: number) => Math.min(Math.floor(sorted.length * share), sorted.length - 1);
  const [from, to] = [at(0.1), at(0.9)];
  return {
    perSecond: sorted.length / seconds(startMs, sorted.at(-1) ?? Number.NaN),
    middlePerSecond: (to - from) / seconds(sorted[from] ?? Number.NaN, sorted[to] ?? Number.NaN),
  };
}

export function seconds(fromMs: number, toMs: number): number {
  return (toMs - fromMs) / 1_000;
}
