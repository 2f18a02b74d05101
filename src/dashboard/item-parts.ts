/** The parts of an item's page. */

import type { FoundPrediction } from "../batches/read-predictions.ts";
import type { BatchReport } from "../batches/report-batch.ts";
import { number } from "../core/figures.ts";
import { type ItemState, isEnd } from "../core/item.ts";
import type { Target } from "../core/prediction.ts";
import type { Receipt } from "../core/receipt.ts";
import { attempts } from "./attempts.ts";
import type { JobPlace } from "./board-queues.ts";
import { actionForm, BOARD, facts, type Viewer } from "./frame.ts";
import { type FileUrl, outputTiles } from "./gallery.ts";
import { type Html, html } from "./html.ts";
import type { Part } from "./live.ts";
import { stateBadge } from "./progress.ts";
import type { ProviderAccount } from "./provider-link.ts";
import { excerpt, excerptOfJson, MAX_NAME } from "./showing.ts";

export type ItemView = {
  readonly item: FoundPrediction;
  readonly report: BatchReport | null;
  /** Of every attempt, the first one first. */
  readonly receipts: readonly (Receipt | null)[];
  readonly jobs: readonly JobPlace[];
  readonly viewer: Viewer;
  readonly fileUrl: FileUrl;
  readonly accounts: readonly ProviderAccount[];
};

const MAX_JSON = 2_000;

/** What the states mean to somebody who sees one. */
const STATE_WORDS = {
  waiting: "It isn’t bought yet: its turn hasn’t come.",
  claimed: "It is being bought: the intent is written, the provider hasn’t answered yet.",
  running: "It is bought, and runs at the provider.",
  copying: "The prediction is over; its files are being copied into the bucket.",
  recording: "It is over; its receipt is being written.",
  saved: "Its outputs and the receipt are in the bucket.",
  failed: "It failed. Its receipt says why.",
  canceled: "It was canceled: it isn’t bought, or not waited for any more.",
  unclear:
    "A request to buy it was sent, and nobody knows whether the provider took it. So it isn’t sent again on a guess.",
} as const satisfies Record<ItemState, string>;

export function itemParts(view: ItemView): readonly Part[] {
  return [head(view), outputs(view), attemptsPart(view), asked(view), jobsNow(view)];
}

function head({ item, report, viewer }: ItemView): Part {
  const { state } = item;
  const cancel =
    isEnd(state) || !viewer.mayAct
      ? null
      : actionForm({
          url: `/items/${item.id}/cancel`,
          label: "Cancel",
          confirm:
            state === "waiting"
              ? "It is never bought. This can’t be undone."
              : "It is canceled at the provider, which may bill what it ran; if it succeeds anyway, it is kept.",
        });
  const name =
    item.row.id === undefined ? null : html`<span>its own id: <bdi>${excerpt(item.row.id, MAX_NAME)}</bdi></span>`;
  const batch = report === null ? item.batch : html`<bdi>${excerpt(report.name, MAX_NAME)}</bdi>`;
  return {
    id: "head",
    html: html`<div id="head" class="head">
<p class="crumbs"><a href="/batches">Batches</a> › <a href="/batches/${item.batch}">${batch}</a></p>
<h1>Item ${number(item.index)}</h1>
<span role="status">${stateBadge(state)}</span>
<div class="actions">${cancel}</div>
<p class="words">${STATE_WORDS[state]}</p>
<p class="meta"><code>${item.id}</code><span>account ${item.account}</span>${name}<a href="/v1/predictions/${item.id}">as the API shows it</a></p>
</div>`,
  };
}

function outputs({ receipts, fileUrl }: ItemView): Part {
  const receipt = receipts.at(-1) ?? null;
  if (receipt?.status !== "saved") return { id: "outputs", html: html`<section id="outputs"></section>` };
  const tiles = receipt.outputs.length === 0 ? null : outputTiles(receipt, fileUrl);
  return {
    id: "outputs",
    html: html`<section id="outputs"><h2>Output</h2>${tiles}${answerOf(receipt)}</section>`,
  };
}

/** What the provider answered. Files stand in it by their keys, which say nothing where there is nothing beside them. */
function answerOf({ output, outputs: files }: Receipt): Html | null {
  const keys = new Set<unknown>(files.map(({ key }) => key));
  const isFiles =
    keys.has(output) || (Array.isArray(output) && output.length > 0 && output.every((one) => keys.has(one)));
  if (isFiles) return null;
  if (typeof output === "string") return html`<p class="answer">${excerpt(output, MAX_JSON)}</p>`;
  return html`<pre>${excerptOfJson(output, MAX_JSON)}</pre>`;
}

function attemptsPart(view: ItemView): Part {
  const { receipts } = view;
  return {
    id: "attempts",
    html: html`<section id="attempts"><h2>${receipts.length === 1 ? "What happened" : `${receipts.length} attempts`}</h2>${attempts(view)}</section>`,
  };
}

function asked({ item }: ItemView): Part {
  return {
    id: "asked",
    html: html`<section id="asked"><h2>What was asked for</h2>
${facts([[item.row.target.kind, html`<code>${targetName(item.row.target)}</code>`]])}
<pre>${excerptOfJson(item.row.input, MAX_JSON)}</pre></section>`,
  };
}

function targetName(target: Target): string {
  return target.kind === "version" ? target.version : `${target.owner}/${target.name}`;
}

function jobsNow({ jobs, viewer }: ItemView): Part {
  const list = html`<ul class="jobs">${jobs.map(({ boardName, jobId, displayName, state }) => {
    const url = `${BOARD}/queue/${encodeURIComponent(boardName)}/${encodeURIComponent(jobId)}`;
    const name = viewer.mayOpenBoard ? html`<a href="${url}">${displayName}</a>` : displayName;
    return html`<li>${name} <span class="quiet">${state}</span></li>`;
  })}</ul>`;
  const none = html`<p class="quiet">None: a stage’s job goes when its work is done; those of record stay for a while.</p>`;
  return {
    id: "jobs",
    html: html`<section id="jobs"><h2>Jobs about it now</h2>${jobs.length === 0 ? none : list}</section>`,
  };
}
