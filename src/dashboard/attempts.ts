/** Every attempt at an item: what happened when, how long it took, what it cost, why it ended as it did. */

import { fileNameOf } from "../batches/file-links.ts";
import type { FoundPrediction } from "../batches/read-predictions.ts";
import { bytes, duration, number } from "../core/figures.ts";
import { isEnd } from "../core/item.ts";
import type { KeptOutput, Receipt } from "../core/receipt.ts";
import { SECOND } from "../core/time.ts";
import { facts, moment } from "./frame.ts";
import { type Html, type HtmlPart, html } from "./html.ts";
import { stateBadge } from "./progress.ts";
import { type ProviderAccount, predictionLink } from "./provider-link.ts";
import { excerpt } from "./showing.ts";

const MAX_ERROR = 2_000;
const MAX_LOGS = 4_000;
const MAX_METRICS = 12;
const MAX_FILES = 100;

/** The newest first: that is the one that counts. */
export function attempts(view: {
  readonly item: FoundPrediction;
  readonly receipts: readonly (Receipt | null)[];
  readonly accounts: readonly ProviderAccount[];
}): readonly Html[] {
  return view.receipts.map((receipt, at) => attemptOf(view.item, at + 1, receipt, view.accounts)).toReversed();
}

function attemptOf(
  item: FoundPrediction,
  attempt: number,
  receipt: Receipt | null,
  accounts: readonly ProviderAccount[],
): Html {
  const isLatest = attempt === item.attempt;
  const state = isLatest ? item.state : (receipt?.status ?? "failed");
  const prediction = receipt?.prediction_id ?? (isLatest ? (item.fields.prediction_id ?? null) : null);
  const polled = isLatest && item.state === "running" ? (item.fields.status ?? null) : null;
  const deadline = isLatest && !isEnd(item.state) ? momentIn(item.fields.deadline_at) : null;
  return html`<article class="card attempt" id="attempt-${attempt}">
<h3>Attempt ${attempt} ${stateBadge(state)}</h3>
${receipt?.error == null ? null : html`<p class="error">${excerpt(receipt.error, MAX_ERROR)}</p>`}
${timeline(item, attempt, receipt)}
${facts([
  ["prediction", prediction === null ? null : predictionLink(item.account, prediction, accounts)],
  ["at the last poll", polled === null ? null : excerpt(polled, 40)],
  ["is to end by", deadline],
  ["model", receipt?.model == null ? null : excerpt(receipt.model, 200)],
  ["version", receipt?.version == null ? null : html`<code>${excerpt(receipt.version, 100)}</code>`],
  ...metricsOf(receipt),
])}
${receipt === null ? null : [filesOf(receipt.outputs), unsavedOf(receipt), logsOf(receipt)]}
</article>`;
}

// ── the timeline ──────────────────────────────────────────────────────────────

type Event = { readonly name: string; readonly words: string; readonly at: string | number | null | undefined };

/** What is known of it, in the order in which it happens; with the time that each step took. */
function timeline(item: FoundPrediction, attempt: number, receipt: Receipt | null): Html {
  const isLatest = attempt === item.attempt;
  const claimedAt = receipt?.claimed_at ?? (isLatest ? item.fields.intent_at : null);
  const events: readonly Event[] = [
    { name: "admitted", words: "the input was taken", at: attempt === 1 ? item.asked.createdAt : null },
    { name: "claimed", words: "the intent to buy it was written", at: claimedAt },
    { name: "created", words: "the provider took it", at: receipt?.created_at },
    { name: "started", words: "it began to run", at: receipt?.started_at },
    { name: "completed", words: "it had run", at: receipt?.completed_at },
    { name: "recorded", words: "the receipt was in the bucket", at: receipt?.recorded_at },
  ];
  let before: number | null = null;
  const steps = events.flatMap(({ name, words, at }) => {
    const atMs = momentMs(at);
    if (atMs === null) return [];
    const took = before === null ? null : gap(atMs - before);
    before = atMs;
    return [
      html`<li><span class="took">${took}</span><span class="dot"></span><span><b>${name}</b> <span class="quiet">${words}</span></span> ${moment(atMs)}</li>`,
    ];
  });
  return html`<ol class="timeline">${steps}</ol>`;
}

/** Two clocks, ours and the provider's, may differ: less than nothing isn't shown. */
function gap(ms: number): string {
  if (ms < 0) return "";
  return `+${ms < 10 * SECOND ? `${(ms / SECOND).toFixed(1)} s` : duration(ms)}`;
}

/** A provider may write anything; Redis keeps milliseconds as text. */
function momentMs(at: string | number | null | undefined): number | null {
  if (at === null || at === undefined) return null;
  const ms = typeof at === "string" && !/^\d+$/.test(at) ? Date.parse(at) : Number(at);
  return Number.isNaN(new Date(ms).getTime()) ? null : ms;
}

function momentIn(text: string | undefined): Html | null {
  const ms = momentMs(text);
  return ms === null ? null : moment(ms);
}

// ── what a receipt holds ──────────────────────────────────────────────────────

function metricsOf(receipt: Receipt | null): readonly (readonly [string, HtmlPart])[] {
  return Object.entries(receipt?.metrics ?? {})
    .flatMap(([name, value]): (readonly [string, HtmlPart])[] => {
      if (typeof value !== "number" && typeof value !== "string") return [];
      const words = excerpt(name.replaceAll("_", " "), 60);
      if (typeof value === "string") return [[words, excerpt(value, 100)]];
      return [[words, name.endsWith("_time") ? `${number(value)} s` : number(value)]];
    })
    .slice(0, MAX_METRICS);
}

function filesOf(outputs: readonly KeptOutput[]): Html | null {
  if (outputs.length === 0) return null;
  const rows = outputs
    .slice(0, MAX_FILES)
    .map(
      (output) =>
        html`<tr><td>${fileNameOf(output.key)}</td><td>${excerpt(output.content_type, 60)}</td><td class="number">${bytes(output.bytes)}</td><td><code title="${output.sha256}">${output.sha256.slice(0, 16)}…</code></td><td><code>${output.url}</code></td></tr>`,
    );
  const more = outputs.length - MAX_FILES;
  return html`<div class="scroll"><table><thead><tr><th>file</th><th>type</th><th class="number">size</th><th>SHA-256</th><th>kept at</th></tr></thead><tbody>${rows}</tbody></table></div>${
    more > 0 ? html`<p class="quiet">… and ${number(more)} more.</p>` : null
  }`;
}

function unsavedOf({ unsaved = [] }: Receipt): Html | null {
  if (unsaved.length === 0) return null;
  const rows = unsaved.slice(0, MAX_FILES).map(({ why }) => html`<li>${excerpt(why, MAX_ERROR)}</li>`);
  const more = unsaved.length - MAX_FILES;
  return html`<p class="quiet">Files that couldn’t be had:</p><ul>${rows}</ul>${
    more > 0 ? html`<p class="quiet">… and ${number(more)} more.</p>` : null
  }`;
}

/** Its end says most. */
function logsOf({ logs, attempts: [line] }: Receipt): Html | null {
  if (logs === null || logs === "") return null;
  const end = logs.slice(-MAX_LOGS);
  return html`<details id="logs-${line?.attempt ?? 1}"><summary>Logs</summary><pre>${end.length < logs.length ? "…" : ""}${excerpt(end, MAX_LOGS)}</pre></details>`;
}
