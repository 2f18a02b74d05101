/** From one report after another to what a watcher shows: the pace, when it will be done, and why then. */

import type { BatchKind, Estimate } from "../core/batch.ts";
import { SECOND } from "../core/time.ts";
import { awaitsResults } from "./follow-batch.ts";
import { pacePerSecond, type Sample, withSample } from "./pace.ts";
import { type BatchReport, estimateFor } from "./report-batch.ts";

/** Nothing has moved for so long, and nothing is in flight: perhaps nobody works. */
const STILL_MS = 10 * SECOND;

const CALM_MS = 10 * SECOND;

export type View = {
  readonly report: BatchReport;
  /** Items that ended, a second, lately. */
  readonly perSecond: number;
  readonly estimate: Estimate;
};

export type Track = {
  take(report: BatchReport, nowMs: number): void;
  /** Null before the first report. */
  view(nowMs: number): View | null;
};

/** `createsPerMinute`: the account's limit; null where this process doesn't know it. */
export function openTrack(kind: BatchKind, createsPerMinute: number | null): Track {
  let last: { readonly report: BatchReport; readonly atMs: number } | null = null;
  let samples: readonly Sample[] = [];

  function estimate(report: BatchReport, perSecond: number, stillMs: number): Estimate {
    if (awaitsResults(report, kind)) return { etaMs: null, reason: "all items have ended; writing results.jsonl" };
    const moves = report.in_flight > 0 || report.waiting === 0 || report.paused !== null;
    if (!moves && stillMs >= STILL_MS) {
      return { etaMs: null, reason: report.held ?? "nobody takes what waits: is `outlast up` or a worker running?" };
    }
    if (createsPerMinute !== null) return estimateFor(report, perSecond, createsPerMinute);
    const left = report.waiting + report.in_flight;
    if (report.paused !== null || left === 0 || perSecond === 0) return { ...estimateFor(report, 0, 1), etaMs: null };
    return { etaMs: (left / perSecond) * SECOND, reason: report.held ?? "at this pace" };
  }

  return {
    take(report, nowMs) {
      last = { report, atMs: nowMs };
      const sample = { atMs: nowMs, ended: report.saved + report.failed + report.canceled };
      // The pace begins with the first end: the time that a first prediction takes is no rate.
      const begun = samples.some(({ ended }) => ended !== sample.ended);
      samples = begun ? withSample(samples, sample) : [sample];
    },
    view(nowMs) {
      if (last === null) return null;
      const perSecond = pacePerSecond(samples, nowMs);
      // From a short while one can't say how long the rest will take: the limit tells better.
      const calm = createsPerMinute === null || nowMs - (samples[0]?.atMs ?? nowMs) >= CALM_MS;
      return {
        report: last.report,
        perSecond,
        estimate: estimate(last.report, calm ? perSecond : 0, nowMs - last.atMs),
      };
    },
  };
}
