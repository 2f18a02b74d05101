/**
 * `/jobs/<errand id>`: one attempt at one item, through all stages. Where it stands, the jobs that are about it now,
 * the provider's page of its prediction, and what its receipt says once it has ended. Made on the server, no script.
 * An item's id in place of the errand's leads to its latest attempt.
 */

import type { FastifyPluginAsync, FastifyReply } from "fastify";
import { reportBatch } from "../batches/report-batch.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { readReceipt } from "../bucket/records.ts";
import { type ItemState, isEnd } from "../core/item.ts";
import {
  type AccountName,
  type AttemptRef,
  errandId,
  itemId,
  OBJECT_KEYS,
  parseErrandId,
  parseItemId,
} from "../core/naming.ts";
import type { Receipt } from "../core/receipt.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { JobPlace } from "./board-queues.ts";
import { type Html, type HtmlPart, html } from "./html.ts";
import { redact, redactText } from "./showing.ts";

export type JobPageDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "accountOf" | "standing" | "pausedReason" | "readItem">;
  readonly accounts: readonly { readonly name: AccountName; readonly baseUrl: string }[];
  readonly emulated: boolean;
  /** Where the board is mounted. */
  readonly board: string;
  readonly findErrand: (account: AccountName, id: string) => Promise<readonly JobPlace[]>;
};

/** What the states mean to somebody who sees one. */
const STATE_WORDS = {
  waiting: "its turn to be bought hasn't come",
  claimed: "it is being bought: its intent is written, the provider hasn't answered yet",
  running: "it is bought, and runs at the provider",
  copying: "the prediction succeeded; its files are being copied into the bucket",
  recording: "it is over; its receipt is being written",
  saved: "its outputs and the receipt are in the bucket",
  failed: "its receipt says why",
  canceled: "it isn't bought, or not waited for any more",
  unclear: "a request was sent, and nobody knows whether it was accepted; so it isn't sent again",
} as const satisfies Record<ItemState, string>;

export function jobPages(deps: JobPageDeps): FastifyPluginAsync {
  return async (app) => {
    app.get<{ Params: { id: string } }>("/jobs/:id", async (request, reply) => {
      const found = await findAttempt(request.params.id, deps);
      if (found === null) return send(reply.code(404), noSuchJob(request.params.id, deps.board));
      if (found.id !== request.params.id) return reply.redirect(`/jobs/${found.id}`);
      return send(reply, await jobPage(found.ref, deps));
    });
  };
}

type Attempt = { readonly id: string; readonly ref: AttemptRef };

/** Null where there is no such item in Redis. */
async function findAttempt(text: string, { ledger }: JobPageDeps): Promise<Attempt | null> {
  const errand = parseErrandId(text);
  const item = errand ?? parseItemId(text);
  if (item === null) return null;
  const { batch, index } = item;
  const account = await ledger.accountOf(batch);
  if (account === null) return null;
  const standing = await ledger.standing(account, batch);
  if (standing === null || index >= standing.batch.items) return null;
  const { attempt: latest } = await ledger.readItem({ account, batch, index });
  const ref = { account, batch, index, attempt: errand?.attempt ?? latest };
  return ref.attempt > latest ? null : { id: errandId(ref), ref };
}

async function jobPage(ref: AttemptRef, deps: JobPageDeps): Promise<Html> {
  const id = errandId(ref);
  const [report, item, places] = await Promise.all([
    reportBatch(deps.ledger, ref.batch),
    deps.ledger.readItem(ref),
    deps.findErrand(ref.account, id),
  ]);
  const isLatest = item.attempt === ref.attempt;
  // An attempt that a newer one followed has ended.
  const receipt = isLatest && !isEnd(item.state) ? null : await readReceipt(deps.bucket, ref);
  const prediction = receipt?.prediction_id ?? (isLatest ? item.fields.prediction_id : undefined) ?? null;
  const state = isLatest ? item.state : (receipt?.status ?? "failed");

  return page(
    `item ${ref.index}, attempt ${ref.attempt}`,
    html`
      <p class="state ${state}"><b>${state}</b>: ${STATE_WORDS[state]}</p>
      ${isLatest ? null : html`<p>This attempt was followed by <a href="/jobs/${errandId({ ...ref, attempt: item.attempt })}">attempt ${item.attempt}</a>.</p>`}
      ${facts([
        [
          "batch",
          html`${report?.name ?? ""} <code>${ref.batch}</code>${report === null ? null : html`, ${report.items.toLocaleString("en-US")} items, ${report.state}`}`,
        ],
        ["index", ref.index],
        ["attempt", ref.attempt],
        ["item id", html`<code>${itemId(ref.batch, ref.index)}</code>`],
        ["row's own id", receipt?.id ?? item.fields.row_id ?? null],
        ["account", report?.paused ? html`${ref.account}, paused: ${redactText(report.paused)}` : ref.account],
        ["prediction", prediction === null ? null : predictionLink(ref.account, prediction, deps)],
      ])}
      <h2>Jobs about it now</h2>
      ${jobList(id, places, deps.board)}
      ${receipt === null ? null : receiptPart(receipt, ref, deps)}
    `,
    deps,
  );
}

function jobList(id: string, places: readonly JobPlace[], board: string): Html {
  if (places.length === 0) {
    return html`<p class="quiet">None: a stage's job goes when its work is done. Those of record stay for a while.</p>`;
  }
  return html`<ul>${places.map(
    ({ boardName, displayName, state }) =>
      html`<li><a href="${board}/queue/${encodeURIComponent(boardName)}/${encodeURIComponent(id)}">${displayName}</a> <span class="quiet">${state}</span></li>`,
  )}</ul>`;
}

/** Replicate has a page for people; of anything else only the address of its API is known, which asks for the token. */
function predictionLink(account: AccountName, prediction: string, { accounts }: JobPageDeps): Html {
  const baseUrl = accounts.find(({ name }) => name === account)?.baseUrl;
  const code = html`<code>${prediction}</code>`;
  if (baseUrl === undefined) return code;
  if (URL.parse(baseUrl)?.hostname === "api.replicate.com") {
    return html`<a href="https://replicate.com/p/${encodeURIComponent(prediction)}" rel="noreferrer">${prediction}</a>`;
  }
  const base = new URL(baseUrl);
  return html`${code} <span class="quiet">${base.origin}${base.pathname}/predictions/${prediction}</span>`;
}

function receiptPart(receipt: Receipt, ref: AttemptRef, { bucket }: JobPageDeps): Html {
  const predictTime = receipt.metrics["predict_time"];
  return html`
    <h2>Receipt</h2>
    ${facts([
      ["ended as", receipt.status],
      ["error", receipt.error === null ? null : redactText(receipt.error)],
      ["model", receipt.model],
      ["version", receipt.version],
      ["predict time", typeof predictTime === "number" ? `${predictTime} s` : null],
      ["claimed", receipt.claimed_at],
      ["created", receipt.created_at],
      ["started", receipt.started_at],
      ["completed", receipt.completed_at],
      ["recorded", receipt.recorded_at],
      ["kept as", html`<code>${bucket.urlOf(OBJECT_KEYS.receipt(ref.batch, ref.index, ref.attempt))}</code>`],
    ])}
    <h2>Outputs</h2>
    ${
      receipt.outputs.length === 0
        ? html`<p class="quiet">No files.</p>`
        : html`<table><tr><th>key</th><th>type</th><th class="number">bytes</th><th>SHA-256</th></tr>${receipt.outputs
            .slice(0, MAX_OUTPUTS)
            .map(
              (output) =>
                html`<tr><td><code>${output.key}</code></td><td>${output.content_type}</td><td class="number">${output.bytes.toLocaleString("en-US")}</td><td><code title="${output.sha256}">${output.sha256.slice(0, 16)}…</code></td></tr>`,
            )}</table>`
    }
    ${receipt.outputs.length > MAX_OUTPUTS ? html`<p class="quiet">… and ${receipt.outputs.length - MAX_OUTPUTS} more.</p>` : null}
    <pre>${outputText(receipt.output)}</pre>`;
}

const MAX_OUTPUTS = 100;
const MAX_OUTPUT_TEXT = 2_000;

function outputText(output: unknown): string {
  const text = JSON.stringify(redact(output), null, 2) ?? "null";
  return text.length <= MAX_OUTPUT_TEXT ? text : `${text.slice(0, MAX_OUTPUT_TEXT)}…`;
}

function noSuchJob(text: string, board: string): Html {
  return page(
    "no such job",
    html`<p>Redis knows no attempt <code>${text.slice(0, 100)}</code>. Receipts stay in the bucket. <a href="${board}">Back to the queues</a>.</p>`,
    { board, emulated: false },
  );
}

// ── the frame ─────────────────────────────────────────────────────────────────

/** Names and values; those without a value are left out. */
function facts(rows: readonly (readonly [string, HtmlPart])[]): Html {
  return html`<dl>${rows.filter(([, value]) => value !== null).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

function page(title: string, body: Html, { board, emulated }: Pick<JobPageDeps, "board" | "emulated">): Html {
  return html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Outlast: ${title}</title>
<style>${STYLE}</style>
<nav><a href="${board}">Outlast</a>${emulated ? html` <span class="badge">emulator</span>` : null}</nav>
<main><h1>${title}</h1>${body}</main>
</html>
`;
}

const STYLE = html`
:root { color-scheme: light dark; --line: light-dark(#e4e4e7, #3f3f46); --quiet: light-dark(#71717a, #a1a1aa); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 0 1.25rem 3rem; }
nav { padding: 1rem 0; border-bottom: 1px solid var(--line); }
nav a { font-weight: 600; text-decoration: none; color: inherit; }
.badge { background: #b45309; color: #fff; border-radius: 4px; padding: .05rem .45rem; font-size: .8rem; margin-left: .5rem; }
h1 { font-size: 1.4rem; margin: 1.25rem 0 .5rem; } h2 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; }
.state { border-left: 4px solid #3b82f6; padding: .4rem .8rem; background: light-dark(#f4f4f5, #27272a); }
.state.saved { border-color: #16a34a; } .state.failed, .state.unclear { border-color: #dc2626; }
.state.waiting, .state.canceled { border-color: #a1a1aa; }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .2rem 1rem; margin: .75rem 0; }
dt, .quiet, th { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
ul { padding-left: 1.25rem; }
table { border-collapse: collapse; width: 100%; font-size: .92em; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: .9em/1.45 ui-monospace, monospace; }
pre { background: light-dark(#f4f4f5, #27272a); padding: .75rem; overflow: auto; max-height: 24rem; }
`;

/** No script, no request to anywhere, whatever a model's answer holds. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

function send(reply: FastifyReply, body: Html): FastifyReply {
  return reply
    .header("content-security-policy", POLICY)
    .header("cache-control", "no-store")
    .type("text/html; charset=utf-8")
    .send(body.text);
}
