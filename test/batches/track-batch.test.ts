/** Pace and estimate of a watcher, from reports at given moments. */

import { expect, test } from "vitest";
import type { BatchReport } from "../../src/batches/report-batch.ts";
import { openTrack } from "../../src/batches/track-batch.ts";
import { batchIdFrom } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import { ACCOUNT } from "../support/stages.ts";

function report(saved: number, inFlight: number, items = 1_000, more: Partial<BatchReport> = {}): BatchReport {
  return {
    batch: batchIdFrom(new Uint8Array(20)),
    name: "a batch",
    state: "running",
    items,
    waiting: items - saved - inFlight,
    in_flight: inFlight,
    saved,
    failed: 0,
    canceled: 0,
    unclear: 0,
    duplicates: 0,
    not_saved: 0,
    account: ACCOUNT,
    paused: null,
    paused_by: null,
    unopened: null,
    held: null,
    canceled_at: null,
    opened_at: "2026-11-22T00:00:00.000Z",
    finished_at: null,
    metrics: { predict_time: 0, output_files: 0, output_bytes: 0 },
    ...more,
  };
}

test("nothing is to be seen before the first report", () => {
  expect(openTrack("file", 600).view(0)).toBeNull();
});

test("the time that a first prediction takes is no rate", () => {
  const track = openTrack("file", 600);
  track.take(report(0, 0), 0);
  for (let second = 1; second <= 10; second++) track.take(report(0, second * 10), second * SECOND);
  for (let second = 11; second <= 14; second++) track.take(report((second - 10) * 10, 100), second * SECOND);
  expect(track.view(14 * SECOND)).toMatchObject({
    perSecond: 10,
    estimate: { reason: "the limit of 600 creates a minute" },
  });
});

test("the rate is that of the last fifteen seconds, and falls when nothing ends any more", () => {
  const track = openTrack("file", 600);
  for (let second = 0; second <= 60; second++)
    track.take(report(second < 30 ? second : 30 + (second - 30) * 5, 50), second * SECOND);
  expect(track.view(60 * SECOND)?.perSecond).toBeCloseTo(5);
  expect(track.view(70 * SECOND)?.perSecond).toBeLessThan(2);
  expect(track.view(80 * SECOND)?.perSecond).toBe(0);
});

test("where nobody takes what waits, it asks whether anybody works", () => {
  const track = openTrack("file", 600);
  track.take(report(0, 0), 0);
  expect(track.view(5 * SECOND)?.estimate.reason).toBe("the limit of 600 creates a minute");
  expect(track.view(11 * SECOND)?.estimate).toEqual({
    etaMs: null,
    reason: "nobody takes what waits: is `outlast up` or a worker running?",
  });
});

test("a pause is the reason, however long it lasts", () => {
  const track = openTrack("file", 600);
  const reasonOf = (paused: string, paused_by: "batch" | "account") => {
    track.take(report(5, 0, 10, { paused, paused_by, state: "paused" }), 0);
    return track.view(60 * SECOND)?.estimate;
  };
  expect(reasonOf("no credit", "account")).toEqual({
    etaMs: null,
    reason: "account replicate is paused: no credit",
  });
  expect(reasonOf("paused by a person", "batch")).toEqual({ etaMs: null, reason: "paused by a person" });
});

test("when all has ended, a file batch waits for its results, and singles for nothing", () => {
  const file = openTrack("file", 600);
  file.take(report(10, 0, 10), 0);
  expect(file.view(0)?.estimate.reason).toBe("all items have ended; writing results.jsonl");
  const singles = openTrack("singles", 600);
  singles.take(report(10, 0, 10), 0);
  expect(singles.view(0)?.estimate.reason).toBe("all items have ended");
});

test("of an account that isn't known here, only the pace says when", () => {
  const track = openTrack("file", null);
  track.take(report(0, 50), 0);
  expect(track.view(SECOND)?.estimate.etaMs).toBeNull();
  for (let second = 1; second <= 5; second++) track.take(report(second * 10, 50), second * SECOND);
  expect(track.view(5 * SECOND)?.estimate).toEqual({ etaMs: 95 * SECOND, reason: "at this pace" });
});
