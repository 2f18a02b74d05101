/**
 * Chance without state: each random value is the SHA-256 of the seed and of what the value is for. So the same
 * seed gives the n-th prediction of an input the same id and the same run time, whatever else happens in between.
 */

import { hash } from "node:crypto";

/** A log-normal length of time: half of all draws lie below the median. */
export type Duration = {
  readonly medianMs: number;
  /** Standard deviation of the logarithm; 0 makes every draw the median, 1 spreads most of them over a factor of ten. */
  readonly spread: number;
};

const ALPHANUMERICS = "0123456789abcdefghijklmnopqrstuvwxyz";

/** 32 bytes. */
export function draw(seed: string, purpose: string): Buffer {
  return hash("sha256", `${seed}\n${purpose}`, "buffer");
}

/** Lower-case alphanumerics, as Replicate's ids and file paths are made of; at most 32. */
export function drawName(seed: string, purpose: string, length: number): string {
  let name = "";
  for (const byte of draw(seed, purpose).subarray(0, length)) name += ALPHANUMERICS[byte % 36];
  return name;
}

/** In [0, 1). */
export function drawFraction(seed: string, purpose: string): number {
  return draw(seed, purpose).readUInt32BE() / 2 ** 32;
}

/** Whether it happens; `share` is in [0, 1]. */
export function isDrawn(seed: string, purpose: string, share: number): boolean {
  return share > 0 && drawFraction(seed, purpose) < share;
}

/** Whole milliseconds, log-normal. */
export function drawDurationMs(seed: string, purpose: string, duration: Duration): number {
  const bytes = draw(seed, purpose);
  const radius = Math.sqrt(-2 * Math.log((bytes.readUInt32BE(0) + 1) / 2 ** 32));
  const normal = radius * Math.cos((2 * Math.PI * bytes.readUInt32BE(4)) / 2 ** 32); // Box-Muller
  return Math.round(duration.medianMs * Math.exp(duration.spread * normal));
}
