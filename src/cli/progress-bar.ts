/**
 * How a batch's progress looks: a report → text of a given width. Pure; `live-lines.ts` puts it on a terminal.
 *
 *     ███████████████████▒▒░░░░░░░░░░░░░░░░░░░░░░   43 %     718 of 1,632
 *     saved 712 · failed 6 · in flight 41 · waiting 873
 *     9.8/s, about 1 min 33 s left: the limit of 600 creates a minute
 */

import type { BatchReport } from "../batches/report-batch.ts";
import type { View } from "../batches/track-batch.ts";
import type { Estimate } from "../core/batch.ts";
import { counted, duration, number, shareCells } from "../core/figures.ts";
import { cut, textColumns } from "./columns.ts";

type Style = "green" | "red" | "yellow" | "cyan" | "dim" | "bold";
/** Colours a piece of text, or leaves it as it is. */
export type Paint = (style: Style, text: string) => string;
export const PLAIN: Paint = (_style, text) => text;

/** Three lines, or two where there is room; none is wider than `width` columns. */
export function barLines({ report, perSecond, estimate }: View, width: number, paint: Paint): readonly string[] {
  const ended = report.saved + report.failed + report.canceled;
  const share = report.items === 0 ? 100 : Math.floor((ended / report.items) * 100);
  const of = number(report.items);
  const tail = `  ${String(share).padStart(3)} %   ${number(ended).padStart(of.length)} of ${of}`;
  const bar = barOf(report, Math.min(width - tail.length, MAX_BAR), paint);
  const first = bar === "" ? cut(tail, width) : `${bar}${tail}`;
  return [first, ...wordLines(report, paceOf(report, perSecond, estimate), width, paint)];
}

/** One line for a log, where nothing can be redrawn. */
export function plainLine({ report, perSecond, estimate }: View): string {
  const counts = countsOf(report).map(({ word, count }) => `${number(count)} ${word}`);
  const ended = report.saved + report.failed + report.canceled;
  const pace = paceOf(report, perSecond, estimate);
  return `${number(ended)} of ${number(report.items)} ended (${counts.join(", ")})${pace === "" ? "" : `; ${pace}`}`;
}

/** All items, then those of each kind that there are. */
export function totalsOf(report: BatchReport, paint: Paint): string {
  const counts = countsOf(report).map(({ word, count, style }) => paint(style, `${number(count)} ${word}`));
  return [counted(report.items, "item"), ...counts].join(", ").replace(", ", ": ");
}

// ── the bar ───────────────────────────────────────────────────────────────────

const MAX_BAR = 100;

/** Without colours the shapes alone tell what has ended, what runs, and what waits. */
const SEGMENTS = [
  { of: "saved", mark: "█", style: "green" },
  { of: "failed", mark: "█", style: "red" },
  { of: "canceled", mark: "█", style: "dim" },
  { of: "unclear", mark: "▓", style: "yellow" },
  { of: "in_flight", mark: "▒", style: "cyan" },
  { of: "waiting", mark: "░", style: "dim" },
] as const satisfies readonly { of: keyof BatchReport; mark: string; style: Style }[];

function barOf(report: BatchReport, cells: number, paint: Paint): string {
  if (cells < 5) return "";
  const shares = shareCells(
    SEGMENTS.map(({ of }) => report[of]),
    cells,
  );
  return SEGMENTS.map(({ mark, style }, at) => {
    const share = shares[at] ?? 0;
    return share === 0 ? "" : paint(style, mark.repeat(share));
  }).join("");
}

// ── the words ─────────────────────────────────────────────────────────────────

const COUNTS = [
  { of: "saved", word: "saved", style: "green" },
  { of: "failed", word: "failed", style: "red" },
  { of: "canceled", word: "canceled", style: "dim" },
  { of: "unclear", word: "unclear", style: "yellow" },
  { of: "in_flight", word: "in flight", style: "cyan" },
  { of: "waiting", word: "waiting", style: "dim" },
] as const satisfies readonly { of: keyof BatchReport; word: string; style: Style }[];

/** The counts that aren't zero. */
function countsOf(report: BatchReport) {
  return COUNTS.map(({ of, word, style }) => ({ word, style, count: report[of] })).filter(({ count }) => count > 0);
}

/** Counts in colour, then the pace; on one line only by the terminal's width, so that nothing jumps. */
function wordLines(report: BatchReport, pace: string, width: number, paint: Paint): readonly string[] {
  const counts = countsOf(report).map(({ word, count, style }) => ({ text: `${word} ${number(count)}`, style }));
  const plain = counts.map(({ text }) => text).join(" · ");
  const fits = textColumns(plain) <= width;
  const painted = fits ? counts.map(({ text, style }) => paint(style, text)).join(" · ") : cut(plain, width);
  if (width < WIDE) return [painted, cut(pace, width)];
  const room = width - textColumns(plain) - GAP.length;
  return [pace === "" || room < SHORTEST_PACE ? painted : `${painted}${GAP}${cut(pace, room)}`];
}

const WIDE = 115;
const GAP = "    ";
const SHORTEST_PACE = 12;

/** The rate, the time left, and why then; what the reason says itself isn't said twice. */
function paceOf(report: BatchReport, perSecond: number, { etaMs, reason }: Estimate): string {
  const rate = `${perSecond >= 100 ? number(Math.round(perSecond)) : perSecond.toFixed(1)}/s`;
  const saysRate = perSecond === 0 || report.waiting + report.in_flight === 0 || reason.endsWith(" a second");
  const left = etaMs === null || etaMs === 0 ? [] : [`about ${duration(etaMs)} left`];
  const pace = [...(saysRate ? [] : [rate]), ...left].join(", ");
  return [pace, reason].filter((part) => part !== "").join(": ");
}
