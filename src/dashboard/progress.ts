/** How far a batch is, as the list and the batch's own page show it: a bar, counts beside it, rate and time left. */

import { type BatchReport, pauseOf } from "../batches/report-batch.ts";
import { duration, number, shareCells } from "../core/figures.ts";
import type { BatchSight } from "./batch-sights.ts";
import { type Html, html } from "./html.ts";
import { redactText } from "./showing.ts";

/** In the order of the bar. The words stand beside it: nobody has to tell the colours apart. */
const KINDS = [
  { of: "saved", word: "saved" },
  { of: "failed", word: "failed" },
  { of: "canceled", word: "canceled" },
  { of: "unclear", word: "unclear" },
  { of: "in_flight", word: "in flight" },
  { of: "waiting", word: "waiting" },
] as const satisfies readonly { of: keyof BatchReport; word: string }[];

/** The bar's cells: what there is of a kind is at least one of them wide. */
const CELLS = 200;

export function bar(report: BatchReport): Html {
  const counts = KINDS.map(({ of }) => report[of]);
  const shares = shareCells(counts, CELLS);
  let from = 0;
  const pieces = KINDS.map(({ of }, at) => {
    const share = shares[at] ?? 0;
    const piece = html`<rect class="${of}" x="${percent(from)}" width="${percent(share)}" height="100%"/>`;
    from += share;
    return piece;
  });
  return html`<svg class="bar" role="img" aria-label="${countWords(report)}">${pieces}</svg>`;
}

function percent(cells: number): string {
  return `${(100 * cells) / CELLS}%`;
}

function countWords(report: BatchReport): string {
  const words = KINDS.filter(({ of }) => report[of] > 0).map(({ of, word }) => `${number(report[of])} ${word}`);
  return words.length === 0 ? "no items yet" : words.join(", ");
}

/** `all`: also the kinds of which there are none, so that nothing moves when the first comes. */
export function legend(report: BatchReport, { all }: { readonly all: boolean }): Html {
  const shown = KINDS.filter(({ of }) => all || report[of] > 0);
  return html`<ul class="legend">${shown.map(
    ({ of, word }) =>
      html`<li class="${of}${report[of] === 0 ? " none" : ""}"><b>${number(report[of])}</b> ${word}</li>`,
  )}</ul>`;
}

/** Items that ended, of all; never 100 before all have. */
export function share(report: BatchReport): { readonly percent: number; readonly ended: number } {
  const ended = report.saved + report.failed + report.canceled;
  return { percent: report.items === 0 ? 0 : Math.floor((100 * ended) / report.items), ended };
}

export function stateBadge(state: string): Html {
  return html`<span class="state ${state}">${state}</span>`;
}

/** `9.8 a second`; a slow one by the minute; null while nothing ends. */
export function rateWords(perSecond: number): string | null {
  if (perSecond <= 0) return null;
  if (perSecond < 1) return `${(perSecond * 60).toFixed(perSecond * 60 < 10 ? 1 : 0)} a minute`;
  return `${perSecond < 100 ? perSecond.toFixed(1) : number(Math.round(perSecond))} a second`;
}

/** How long it will take still, null where nobody can say, and why; a batch that is over says how long it took. */
export function timeWords({ report, estimate, perSecond }: BatchSight): {
  readonly time: string | null;
  readonly reason: string;
} {
  if (report.finished_at !== null) {
    const tookMs = Date.parse(report.finished_at) - Date.parse(report.opened_at);
    return { time: duration(tookMs), reason: "from the submission to the last receipt" };
  }
  if (report.canceled_at !== null) return { time: null, reason: "it is canceled; what is left of it is being ended" };
  const { etaMs } = estimate;
  const time = etaMs === null || etaMs === 0 ? null : `about ${duration(etaMs)}`;
  // The rate stands beside it.
  const saysRate = perSecond > 0 && estimate.reason.startsWith("items end at ");
  return { time, reason: saysRate ? "at this rate" : (pauseWords(report) ?? estimate.reason) };
}

/** Why nothing more of it is bought, with its time as the pages write times; null where it isn't paused. */
export function pauseWords(report: BatchReport): string | null {
  const reason = pauseOf(report);
  if (reason === null) return null;
  return redactText(reason).replace(/\b(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z/g, "$1 $2 UTC");
}
