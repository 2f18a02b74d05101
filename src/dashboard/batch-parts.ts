/** The parts of a batch's page, each an element that is told anew when it has changed. */

import { bytes, counted, duration, number } from "../core/figures.ts";
import type { ItemState } from "../core/item.ts";
import { itemId, QUEUE_NAMES } from "../core/naming.ts";
import { MINUTE, SECOND } from "../core/time.ts";
import type { BatchSight, Outcomes } from "./batch-sights.ts";
import { actionForm, moment, type Viewer } from "./frame.ts";
import { type FileUrl, gallery } from "./gallery.ts";
import { type Html, type HtmlPart, html } from "./html.ts";
import type { Part } from "./live.ts";
import { bar, legend, pauseWords, rateWords, share, stateBadge, timeWords } from "./progress.ts";
import { excerpt, MAX_NAME, redactText } from "./showing.ts";

export type BatchView = {
  readonly sight: BatchSight;
  readonly outcomes: Outcomes;
  readonly viewer: Viewer;
  readonly fileUrl: FileUrl;
  /** The board's address of a queue; null where it shows no such queue, or not to this viewer. */
  readonly queueUrl: (queue: string) => string | null;
};

const MAX_ERROR = 300;
/** Groups that are shown at once; the rest opens. */
const FIRST_FAILURES = 8;

export function batchParts(view: BatchView): readonly Part[] {
  return [head(view), notes(view), progress(view), funnel(view), failures(view), outputs(view)];
}

function head({ sight, viewer }: BatchView): Part {
  const { batch, report } = sight;
  return {
    id: "head",
    html: html`<div id="head" class="head">
<h1><bdi>${excerpt(batch.name, MAX_NAME)}</bdi></h1>
<span role="status">${stateBadge(report.state)}</span>
<div class="actions">${viewer.mayAct ? buttons(sight) : null}</div>
<p class="meta"><code>${batch.id}</code><span>account ${batch.account}</span><span>opened ${moment(report.opened_at)}</span>${
      report.finished_at === null ? null : html`<span>finished ${moment(report.finished_at)}</span>`
    }<a href="/v1/batches/${batch.id}/results">results${report.finished_at === null ? " so far" : null}, as JSON lines</a></p>
</div>`,
  };
}

function buttons({ batch, report, held }: BatchSight): HtmlPart {
  if (report.finished_at !== null || report.canceled_at !== null) return null;
  const act = (name: "pause" | "resume" | "cancel") => `/batches/${batch.id}/${name}`;
  const pause = held
    ? actionForm({ url: act("resume"), label: "Resume" })
    : actionForm({ url: act("pause"), label: "Pause" });
  // A day's singles are canceled one by one: more may come.
  if (batch.kind === "singles") return pause;
  const confirm = `What waits is never bought (${counted(report.waiting, "item")}), what runs is canceled at the provider (${number(report.in_flight)} in flight). What succeeds anyway is kept. This can’t be undone.`;
  return [pause, actionForm({ url: act("cancel"), label: "Cancel", confirm })];
}

// ── what a person should know ─────────────────────────────────────────────────

function notes({ sight, viewer }: BatchView): Part {
  return {
    id: "notes",
    html: html`<div id="notes">${[unopenedNote(sight), pausedNote(sight, viewer), heldNote(sight), canceledNote(sight), unclearNote(sight), duplicatesNote(sight), notSavedNote(sight)]}</div>`,
  };
}

function pausedNote({ report }: BatchSight, { mayAct }: Viewer): Html | null {
  const reason = pauseWords(report);
  if (reason === null || report.finished_at !== null) return null;
  const said = html`<b>${reason.charAt(0).toUpperCase()}${reason.slice(1).replace(/\.$/, "")}.</b> Nothing more of it is bought; what is bought already goes on to its end.`;
  if (report.paused_by === "account") {
    return html`<p class="note warn">${said} Once that is mended, every batch of the account goes on by <code>outlast resume --account ${report.account}</code>.</p>`;
  }
  if (report.paused_by === "unclear") {
    return html`<p class="note warn">${said} Most resolve by themselves; <code>outlast resolve</code> decides about the rest.</p>`;
  }
  const how = mayAct ? "Resume lets it go on." : "It takes a producer’s key to let it go on.";
  return html`<p class="note warn">${said} ${how}</p>`;
}

function unopenedNote({ report }: BatchSight): Html | null {
  if (report.unopened === null) return null;
  const reason = redactText(report.unopened);
  return html`<p class="note warn" id="unopened"><b>${reason.charAt(0).toUpperCase()}${reason.slice(1)}.</b> Until then nothing of it is bought.</p>`;
}

function heldNote({ report }: BatchSight): Html | null {
  if (report.held === null) return null;
  const said = redactText(report.held);
  return html`<p class="note warn" id="held"><b>Buying waits for saving.</b> ${said.charAt(0).toUpperCase()}${said.slice(1)}. It goes on by itself.</p>`;
}

function canceledNote({ report }: BatchSight): Html | null {
  if (report.canceled_at === null) return null;
  const rest =
    report.in_flight === 0
      ? ""
      : ` ${counted(report.in_flight, "item")} in flight ${report.in_flight === 1 ? "is" : "are"} being canceled at the provider; what succeeds anyway is kept.`;
  return html`<p class="note">Canceled ${moment(report.canceled_at)}: what waited was never bought.${rest}</p>`;
}

function duplicatesNote({ report }: BatchSight): Html | null {
  if (report.duplicates === 0) return null;
  const were = report.duplicates === 1 ? "prediction was" : "predictions were";
  return html`<p class="note warn" id="duplicates"><b>${number(report.duplicates)} ${were} bought twice.</b> Its item had another by then: each is noted beside the item’s receipt, and was canceled if it still ran. <code>outlast audit</code> names them.</p>`;
}

function notSavedNote({ report }: BatchSight): Html | null {
  const { not_saved: count } = report;
  if (count === 0) return null;
  const are = count === 1 ? "prediction is" : "predictions are";
  return html`<p class="note warn" id="not-saved"><b>${number(count)} ${are} paid for and not saved.</b> ${count === 1 ? "It" : "Each"} succeeded, and its output, or a part of it, couldn’t be had in time: why stands with each failed item. Nothing buys ${count === 1 ? "it" : "them"} again but <code>outlast redrive</code>.</p>`;
}

function unclearNote({ report }: BatchSight): Html | null {
  if (report.unclear === 0) return null;
  return html`<p class="note warn" id="unclear"><b>${number(report.unclear)} unclear.</b> A request to buy ${report.unclear === 1 ? "it" : "each"} was sent, and nobody knows whether the provider took it. So none is sent again on a guess: each stays unclear, and is paid for at most once, until the provider’s late answer, its webhook or its list tells what became of it.</p>`;
}

// ── how far it is ─────────────────────────────────────────────────────────────

function progress({ sight }: BatchView): Part {
  const { report } = sight;
  const { percent, ended } = share(report);
  const rate = rateWords(sight.perSecond);
  const { time, reason } = timeWords(sight);
  const { output_files: files, output_bytes: size, predict_time: seconds } = report.metrics;
  return {
    id: "progress",
    html: html`<section id="progress" class="card" aria-label="Progress">
<p class="big"><b>${percent} %</b> <span>${number(ended)} of ${counted(report.items, "item")} ended</span></p>
${bar(report)}
${legend(report, { all: true })}
<dl class="tiles">
${
  report.finished_at === null
    ? [
        tile("Rate", rate ?? "–", rate === null ? "no item was seen to end lately" : "items that ended, lately"),
        tile("Time left", time ?? "–", report.paused === null ? reason : "not while it is paused"),
      ]
    : tile("Took", time ?? "–", reason)
}
${tile("Kept", bytes(size), counted(files, "file"))}
${tile("Predict time", duration(seconds * SECOND), "run time that is billed")}
</dl>
</section>`,
  };
}

function tile(label: string, value: string, reason: string): Html {
  return html`<div><dt>${label}</dt><dd><b>${value}</b><span>${reason}</span></dd></div>`;
}

// ── where the items are ───────────────────────────────────────────────────────

/** In the order in which an item passes them. */
const STAGES = [
  { state: "waiting", label: "waiting", words: "not bought yet", queue: () => QUEUE_NAMES.feed },
  { state: "claimed", label: "being bought", words: "the request is out", queue: QUEUE_NAMES.create },
  { state: "running", label: "running", words: "at the provider", queue: QUEUE_NAMES.follow },
  { state: "copying", label: "being copied", words: "into the bucket", queue: () => QUEUE_NAMES.copy },
  { state: "recording", label: "being recorded", words: "its receipt", queue: () => QUEUE_NAMES.record },
] as const satisfies readonly { state: ItemState; [rest: string]: unknown }[];

const ENDS = ["saved", "failed", "canceled", "unclear"] as const;

function funnel({ sight, queueUrl }: BatchView): Part {
  const { counts, batch } = sight;
  const stages = STAGES.map(({ state, label, words, queue }) => {
    const url = queueUrl(queue(batch.account));
    const name = url === null ? label : html`<a href="${url}">${label}</a>`;
    const says = state === "copying" && counts.copying > 0 ? (expiryWords(sight) ?? words) : words;
    return html`<li class="${counts[state] === 0 ? "none" : ""}"><b>${number(counts[state])}</b><span>${name}</span><small>${says}</small></li>`;
  });
  const ends = ENDS.map(
    (state) =>
      html`<li class="${state}${counts[state] === 0 ? " none" : ""}"><b>${number(counts[state])}</b><span>${state}</span></li>`,
  );
  return {
    id: "funnel",
    html: html`<section id="funnel"><h2>Where its items are</h2>
<ol class="funnel">${stages}<li class="ends"><ul>${ends}</ul></li></ol></section>`,
  };
}

/** How long the account's oldest unsaved output can still be had; to the minute, or the page would change every second. */
function expiryWords({ nextExpiryMs, lookedAtMs }: BatchSight): string | null {
  if (nextExpiryMs === null) return null;
  const leftMs = nextExpiryMs - lookedAtMs;
  if (leftMs <= 0) return "the oldest unsaved has expired";
  return `oldest unsaved expires in ${duration(Math.ceil(leftMs / MINUTE) * MINUTE)}`;
}

// ── what went wrong ───────────────────────────────────────────────────────────

function failures({ sight, outcomes }: BatchView): Part {
  const groups = outcomes.failures.map(
    ({ error, count, example }) =>
      html`<li><b>${number(count)}</b><span>${excerpt(error, MAX_ERROR)}</span><a href="/items/${itemId(sight.batch.id, example)}">for example item ${number(example)}</a></li>`,
  );
  const rest = groups.slice(FIRST_FAILURES);
  const body = html`<h2>What went wrong</h2>
<ul class="failures">${groups.slice(0, FIRST_FAILURES)}</ul>${
    rest.length === 0
      ? null
      : html`<details id="more-failures"><summary>${counted(rest.length, "more group")}</summary><ul class="failures">${rest}</ul></details>`
  }`;
  return { id: "failures", html: html`<section id="failures">${groups.length === 0 ? null : body}</section>` };
}

// ── what came out ─────────────────────────────────────────────────────────────

function outputs({ sight, outcomes, fileUrl }: BatchView): Part {
  const { report } = sight;
  const words =
    report.saved > 0 && report.metrics.output_files === 0
      ? html`<p class="quiet">What its items gave are words and numbers, no files: they stand in the results.</p>`
      : null;
  const body = outcomes.latest.length > 0 ? gallery(outcomes.latest, fileUrl) : words;
  return {
    id: "outputs",
    html: html`<section id="outputs">${body === null ? null : html`<h2>Latest outputs</h2>${body}`}</section>`,
  };
}
