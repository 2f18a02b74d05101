/** `/batches`: a tenant's batches, newest first, a page at a time; each with its bar, kept up to date. */

import type { FastifyPluginAsync, FastifyRequest } from "fastify";
import { z } from "zod";
import { bytes, counted } from "../core/figures.ts";
import { type BatchId, parseBatchId } from "../core/naming.ts";
import type { BatchList, BatchSight, BatchSights } from "./batch-sights.ts";
import { moment, sendPage, type Viewer } from "./frame.ts";
import { type Html, html } from "./html.ts";
import { type Live, type Part, type Parts, versionOf } from "./live.ts";
import { bar, legend, rateWords, share, stateBadge, timeWords } from "./progress.ts";
import { excerpt, MAX_NAME } from "./showing.ts";

export type ListPageDeps = {
  readonly sights: Pick<BatchSights, "list">;
  readonly live: Live;
  readonly viewerOf: (request: FastifyRequest) => Viewer;
  readonly emulated: boolean;
};

/** On one page, and as many are watched at once. */
const PAGE = 30;

const query = z.object({
  after: z
    .string()
    .transform((text) => parseBatchId(text))
    .nullable()
    .catch(null),
});

export function listPage(deps: ListPageDeps): FastifyPluginAsync {
  return async (app) => {
    app.get("/batches", async (request, reply) => {
      const { after } = query.parse(request.query);
      const viewer = deps.viewerOf(request);
      const list = await readList(viewer.tenant, after);
      const search = after === null ? "" : `?after=${after}`;
      return sendPage(reply, {
        title: "Batches",
        viewer,
        emulated: deps.emulated,
        live: { url: `/batches/live${search}`, version: versionOf(partsOf(list)) },
        body: html`<h1>Batches</h1>${frameOf(list, (sight) => rowOf(sight).html)}`,
      });
    });

    app.get("/batches/live", { exposeHeadRoute: false }, async (request, reply) => {
      const { after } = query.parse(request.query);
      const { tenant } = deps.viewerOf(request);
      return deps.live.send(request, reply, async () => partsOf(await readList(tenant, after)));
    });
  };

  async function readList(tenant: string, after: BatchId | null): Promise<List> {
    return { ...(await deps.sights.list(tenant, PAGE, after)), isFirst: after === null };
  }
}

type List = BatchList & { readonly isFirst: boolean };

/** The rows are parts of their own: where one batch moves, only its row is sent. */
function partsOf(list: List): Parts {
  const rows = list.sights.map(rowOf);
  const order = frameOf(list, ({ batch }) => html`<li id="b-${batch.id}" data-keep="1"></li>`);
  return { parts: [{ id: "list", html: order }, ...rows], over: false };
}

function frameOf({ sights, older, isFirst }: List, row: (sight: BatchSight) => Html): Html {
  const rows = sights.length === 0 ? null : html`<ol class="batches">${sights.map(row)}</ol>`;
  const none = isFirst ? NO_BATCHES : html`<p class="quiet">There are no older ones.</p>`;
  const links = html`${isFirst ? null : html`<a href="/batches">Newest</a>`} ${older === null ? null : html`<a href="/batches?after=${older}">Older</a>`}`;
  return html`<div id="list">${rows ?? none}<p class="pages">${links}</p></div>`;
}

function rowOf(sight: BatchSight): Part {
  const { batch, report } = sight;
  const { percent } = share(report);
  const rate = rateWords(report.finished_at === null ? sight.perSecond : 0);
  const { time, reason } = timeWords(sight);
  const { output_files: files, output_bytes: size } = report.metrics;
  const words =
    report.finished_at === null
      ? `${time === null ? "" : `${time} left: `}${reason}`
      : `took ${time}; ${counted(files, "file")}, ${bytes(size)} kept`;
  return {
    id: `b-${batch.id}`,
    html: html`<li id="b-${batch.id}" class="card batch">
<div class="head"><h2><a href="/batches/${batch.id}"><bdi>${excerpt(batch.name, MAX_NAME)}</bdi></a></h2>${stateBadge(report.state)}<span class="percent">${percent} %</span></div>
${bar(report)}
${legend(report, { all: false })}
<p class="pace">${rate === null ? null : html`<b>${rate}</b> · `}${words}</p>
<p class="meta"><code>${batch.id}</code><span>${batch.account}</span><span>opened ${moment(batch.openedAtMs)}</span></p>
</li>`,
  };
}

const NO_BATCHES = html`<div class="card empty">
<p><b>There are no batches yet.</b> Submit one from a clone:</p>
<pre>npm run -s outlast -- submit prompts.jsonl --model owner/name</pre>
<p>or over HTTP, as lines of JSON: <code>POST /v1/batches</code>, as the <a href="/v1/docs">API’s documentation</a> says. It appears here by itself.</p>
</div>`;
