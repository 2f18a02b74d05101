/** What every page has around it, and how pages are sent: no script but our own, no request to anywhere else. */

import type { FastifyReply } from "fastify";
import { assetUrl } from "./assets.ts";
import { type Html, type HtmlPart, html } from "./html.ts";

/** Who looks, and what they may. */
export type Viewer = {
  readonly tenant: string;
  readonly role: string;
  /** Whether they gave a key. */
  readonly known: boolean;
  readonly mayAct: boolean;
  readonly mayOpenBoard: boolean;
};

export type Page = {
  readonly title: string;
  /** Null: nobody we know of. */
  readonly viewer: Viewer | null;
  readonly emulated: boolean;
  /** Where the page's parts are told as they change, and the version that it shows; null where nothing changes. */
  readonly live: { readonly url: string; readonly version: string } | null;
  readonly body: HtmlPart;
};

export const BOARD = "/queues";

/** Without script a page that changes loads itself again so often. */
const REFRESH_SECONDS = 10;

/**
 * Whatever a model or a person wrote, it can't run here: scripts and styles come from files of ours, forms go nowhere
 * else, and nobody may frame the page and have somebody click in it.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "media-src 'self'",
  "connect-src 'self'",
  "form-action 'self'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
].join("; ");

export function sendPage(reply: FastifyReply, page: Page): FastifyReply {
  return reply
    .header("content-security-policy", POLICY)
    .header("cache-control", "no-store")
    .header("referrer-policy", "same-origin")
    .header("x-content-type-options", "nosniff")
    .type("text/html; charset=utf-8")
    .send(frame(page).text);
}

function frame({ title, viewer, emulated, live, body }: Page): Html {
  const refresh =
    live === null
      ? null
      : html`<noscript><meta http-equiv="refresh" content="${REFRESH_SECONDS}"></noscript>
<script type="module" src="${assetUrl("live.js")}"></script>`;
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} · Outlast</title>
<link rel="icon" type="image/svg+xml" href="${assetUrl("icon.svg")}">
<link rel="stylesheet" href="${assetUrl("page.css")}">
${refresh}
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="site">
<a class="brand" href="/batches"><img src="${assetUrl("icon.svg")}" alt="" width="22" height="22">Outlast</a>
<nav aria-label="Pages"><a href="/batches">Batches</a>${viewer?.mayOpenBoard === true ? html`<a href="${BOARD}">Queues</a>` : null}<a href="/v1/docs">API</a></nav>
<span class="who">${emulated ? html`<span class="badge">emulator</span>` : null}${viewer?.known === true ? html`<span>${viewer.tenant}</span><span class="quiet">${viewer.role}</span>` : null}</span>
</header>
<main id="main"${live === null ? null : html` data-live="${live.url}" data-seen="${live.version}"`}>
${body}
</main>
<p id="away" class="away" role="status"></p>
</body>
</html>
`;
}

// ── pieces that more than one page has ────────────────────────────────────────

/** Names and values; those without a value are left out. */
export function facts(rows: readonly (readonly [string, HtmlPart])[]): Html {
  return html`<dl class="facts">${rows.filter(([, value]) => value !== null).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** A moment, to the second; UTC, so that two people speak of the same. */
export function moment(time: number | string): Html {
  const iso = new Date(time).toISOString();
  return html`<time datetime="${iso}">${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC</time>`;
}

/** A form of one button. What can't be undone asks once more, without any script. */
export function actionForm(act: {
  readonly url: string;
  readonly label: string;
  /** What it does, where it is to be said before. */
  readonly confirm?: string;
}): Html {
  const button = (label: string, kind: string) =>
    html`<form method="post" action="${act.url}"><button class="${kind}">${label}</button></form>`;
  if (act.confirm === undefined) return button(act.label, "button");
  return html`<details class="confirm" id="${act.label.toLowerCase()}"><summary class="button">${act.label}…</summary><div class="sheet"><p>${act.confirm}</p>${button(`Yes, ${act.label.toLowerCase()}`, "button danger")}</div></details>`;
}
