/** What a person sees of a batch's progress, as a table. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { BatchReport } from "../../src/batches/report-batch.ts";
import type { View } from "../../src/batches/track-batch.ts";
import { textColumns } from "../../src/cli/columns.ts";
import { barLines, PLAIN, plainLine, totalsOf } from "../../src/cli/progress-bar.ts";
import { bytes, duration, shareCells } from "../../src/core/figures.ts";
import { batchIdFrom } from "../../src/core/naming.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { ACCOUNT } from "./place.ts";

type Counts = Partial<Pick<BatchReport, "saved" | "failed" | "canceled" | "unclear" | "in_flight" | "waiting">>;

function view(counts: Counts, pace: Partial<Omit<View, "report">> = {}): View {
  const all = { saved: 0, failed: 0, canceled: 0, unclear: 0, in_flight: 0, waiting: 0, ...counts };
  const report: BatchReport = {
    batch: batchIdFrom(new Uint8Array(20)),
    name: "a batch",
    state: "running",
    items: Object.values(all).reduce((sum, count) => sum + count, 0),
    ...all,
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
  };
  return { report, perSecond: 0, estimate: { etaMs: null, reason: "" }, ...pace };
}

const LIMIT = { etaMs: 93 * SECOND, reason: "the limit of 600 creates a minute" };

describe("a bar", () => {
  test.each([
    {
      title: "just opened",
      seen: view({ waiting: 1_632 }, { estimate: { ...LIMIT, etaMs: 163 * SECOND } }),
      lines: [
        "░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░    0 %       0 of 1,632",
        "waiting 1,632",
        "about 2 min 43 s left: the limit of 600 creates a minute",
      ],
    },
    {
      title: "under way",
      seen: view({ saved: 712, failed: 6, in_flight: 41, waiting: 873 }, { perSecond: 9.81, estimate: LIMIT }),
      lines: [
        "██████████████████████▒░░░░░░░░░░░░░░░░░░░░░░░░░   43 %     718 of 1,632",
        "saved 712 · failed 6 · in flight 41 · waiting 873",
        "9.8/s, about 1 min 33 s left: the limit of 600 creates a minute",
      ],
    },
    {
      title: "nearly done: the last cell isn't full",
      seen: view(
        { saved: 999_999, in_flight: 1 },
        { perSecond: 210, estimate: { etaMs: 5, reason: "1 still running" } },
      ),
      lines: [
        "███████████████████████████████████████▒   99 %     999,999 of 1,000,000",
        "saved 999,999 · in flight 1",
        "210/s, about 1 s left: 1 still running",
      ],
    },
    {
      title: "stopped by a pause",
      seen: view(
        { saved: 5, waiting: 5 },
        { perSecond: 3, estimate: { etaMs: null, reason: "the account is paused: no\u001b[31m credit" } },
      ),
      lines: [
        "███████████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░   50 %    5 of 10",
        "saved 5 · waiting 5",
        "3.0/s: the account is paused: no\ufffd[31m credit",
      ],
    },
    {
      title: "at its end",
      seen: view(
        { saved: 90, failed: 8, unclear: 2 },
        { perSecond: 3, estimate: { etaMs: 0, reason: "2 items unclear" } },
      ),
      lines: [
        "███████████████████████████████████████████████████▓   98 %    98 of 100",
        "saved 90 · failed 8 · unclear 2",
        "2 items unclear",
      ],
    },
  ])("$title", ({ seen, lines }) => {
    expect(barLines(seen, 72, PLAIN)).toEqual(lines);
  });

  test("on a narrow terminal it gives up the bar, and never wraps", () => {
    const seen = view({ saved: 712, failed: 6, in_flight: 41, waiting: 873 }, { perSecond: 9.8, estimate: LIMIT });
    expect(barLines(seen, 24, PLAIN)).toEqual([
      "43 % 718 of 1,632",
      "saved 712 · failed 6 ·…",
      "9.8/s, about 1 min 33 s…",
    ]);
  });

  test("on a wide terminal counts and pace share a line", () => {
    const seen = view({ saved: 712, failed: 6, in_flight: 41, waiting: 873 }, { perSecond: 9.8, estimate: LIMIT });
    expect(barLines(seen, 140, PLAIN)[1]).toBe(
      "saved 712 · failed 6 · in flight 41 · waiting 873    9.8/s, about 1 min 33 s left: the limit of 600 creates a minute",
    );
  });

  test("it is as wide as it is told, whatever there is to say", () => {
    const anyView = fc
      .record({
        saved: fc.nat(2_000_000),
        failed: fc.nat(50),
        unclear: fc.nat(3),
        in_flight: fc.nat(5_000),
        waiting: fc.nat(2_000_000),
        perSecond: fc.double({ min: 0, max: 1_000, noNaN: true }),
        etaMs: fc.option(fc.nat()),
        reason: fc.string({ unit: "grapheme" }),
      })
      .map(({ perSecond, etaMs, reason, ...counts }) => view(counts, { perSecond, estimate: { etaMs, reason } }));
    fc.assert(
      fc.property(anyView, fc.integer({ min: 1, max: 200 }), (seen, width) => {
        for (const line of barLines(seen, width, PLAIN)) expect(textColumns(line)).toBeLessThanOrEqual(width);
      }),
    );
  });

  test("colours change nothing but the colours", () => {
    const seen = view({ saved: 3, failed: 1, waiting: 4 }, { perSecond: 1, estimate: LIMIT });
    const tagged = barLines(seen, 80, (style, text) => `<${style}>${text}</${style}>`);
    expect(tagged.map((line) => line.replaceAll(/<\/?\w+>/g, ""))).toEqual(barLines(seen, 80, PLAIN));
    expect(tagged[1]).toMatch(/^<green>saved 3<\/green> · <red>failed 1<\/red> · <dim>waiting 4<\/dim>/);
  });
});

test("cells add up, and what there is of a kind is seen", () => {
  const counts = fc.array(fc.nat(1_000_000), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(counts, fc.integer({ min: 6, max: 200 }), (some, cells) => {
      const shares = shareCells(some, cells);
      expect(shares.reduce((sum, share) => sum + share, 0)).toBe(cells);
      for (const [at, share] of shares.entries()) {
        if ((some[at] ?? 0) > 0) expect(share).toBeGreaterThanOrEqual(1);
        else if (some.some((count) => count > 0)) expect(share).toBe(0);
      }
    }),
  );
});

test("a line for a log says the same in words", () => {
  const seen = view({ saved: 712, failed: 6, in_flight: 41, waiting: 873 }, { perSecond: 9.81, estimate: LIMIT });
  expect(plainLine(seen)).toBe(
    "718 of 1,632 ended (712 saved, 6 failed, 41 in flight, 873 waiting); " +
      "9.8/s, about 1 min 33 s left: the limit of 600 creates a minute",
  );
});

test("totals name what there is", () => {
  expect(totalsOf(view({ saved: 1 }).report, PLAIN)).toBe("1 item: 1 saved");
  expect(totalsOf(view({ saved: 1_630, failed: 2 }).report, PLAIN)).toBe("1,632 items: 1,630 saved, 2 failed");
  expect(totalsOf(view({}).report, PLAIN)).toBe("0 items");
});

test.each([
  [0, "0 s"],
  [1, "1 s"],
  [59_400, "59 s"],
  [MINUTE, "1 min"],
  [3 * MINUTE + 20 * SECOND, "3 min 20 s"],
  [HOUR, "1 h"],
  [26 * HOUR + 5 * MINUTE, "26 h 5 min"],
  [75 * HOUR, "3 d 3 h"],
  [Number.POSITIVE_INFINITY, "very long"],
])("%d ms are %s", (ms, words) => {
  expect(duration(ms)).toBe(words);
});

test.each([
  [0, "0 bytes"],
  [999, "999 bytes"],
  [6_075, "6.1 kB"],
  [12_345_678, "12.3 MB"],
  [5e11, "500.0 GB"],
])("%d bytes are %s", (n, words) => {
  expect(bytes(n)).toBe(words);
});
