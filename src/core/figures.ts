/** Numbers for people: counts, sizes, lengths of time, and how a bar is shared out. */

import { HOUR, MINUTE, SECOND } from "./time.ts";

export function number(n: number): string {
  return n.toLocaleString("en-US");
}

/** `1 item`, `1,632 items`. */
export function counted(n: number, noun: string): string {
  return `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** The two largest units: `1 h 2 min`, `3 min 20 s`, `4 s`. */
export function duration(ms: number): string {
  if (!Number.isFinite(ms)) return "very long";
  const seconds = Math.max(Math.round(ms / SECOND), ms > 0 ? 1 : 0);
  const whole = seconds * SECOND;
  const hours = Math.floor(whole / HOUR);
  const minutes = Math.floor((whole % HOUR) / MINUTE);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  if (hours > 0) return minutes === 0 ? `${hours} h` : `${hours} h ${minutes} min`;
  if (minutes === 0) return `${seconds} s`;
  return seconds % 60 === 0 ? `${minutes} min` : `${minutes} min ${seconds % 60} s`;
}

export function bytes(n: number): string {
  for (const [unit, size] of [
    ["GB", 1e9],
    ["MB", 1e6],
    ["kB", 1e3],
  ] as const) {
    if (n >= size) return `${(n / size).toFixed(1)} ${unit}`;
  }
  return counted(n, "byte");
}

/**
 * Shares cells by counts. What there is of a kind shows in at least one cell, so that one failure among a million is
 * seen, and the last cell isn't full before all is; the largest gives way.
 */
export function shareCells(counts: readonly number[], cells: number): readonly number[] {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return counts.map((_, at) => (at === counts.length - 1 ? cells : 0));
  const shares = counts.map((count) => (count === 0 ? 0 : Math.max(Math.floor((count / total) * cells), 1)));
  for (let left = cells - shares.reduce((sum, share) => sum + share, 0); left !== 0; ) {
    const step = Math.sign(left);
    // One more for whom rounding took most from; one less for the largest.
    const owed = shares.map((share, at) =>
      counts[at] === 0 ? Number.NEGATIVE_INFINITY : ((counts[at] ?? 0) / total) * cells - share,
    );
    const by = step > 0 ? owed : shares;
    const at = by.indexOf(Math.max(...by));
    shares[at] = (shares[at] ?? 0) + step;
    left -= step;
  }
  return shares;
}
