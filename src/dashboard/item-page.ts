/**
 * `/items/<id>`: one item. Where it stands, what came out, every attempt at it, what was asked for, and the jobs that are
 * about it now. The one page of an item: the board's jobs lead here (`/jobs/<errand id>`), and so does the API.
 */

import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from "fastify";
import { type CancelDeps, cancelItem } from "../batches/cancel-item.ts";
import type { FoundPrediction, Predictions } from "../batches/read-predictions.ts";
import { readReceipt } from "../bucket/records.ts";
import { isEnd } from "../core/item.ts";
import { type AttemptRef, itemId, parseErrandId } from "../core/naming.ts";
import type { Receipt } from "../core/receipt.ts";
import type { BatchSights } from "./batch-sights.ts";
import type { JobPlace } from "./board-queues.ts";
import { sendPage, type Viewer } from "./frame.ts";
import type { FileUrl } from "./gallery.ts";
import { html } from "./html.ts";
import { itemParts } from "./item-parts.ts";
import { type Live, type Parts, versionOf } from "./live.ts";
import { sendNotFound } from "./problem-page.ts";
import type { ProviderAccount } from "./provider-link.ts";

export type ItemPageDeps = {
  readonly sights: Pick<BatchSights, "find" | "forget">;
  readonly predictions: Pick<Predictions, "find" | "receiptOf">;
  readonly canceling: CancelDeps;
  readonly findErrands: (ref: AttemptRef) => Promise<readonly JobPlace[]>;
  readonly accounts: readonly ProviderAccount[];
  readonly live: Live;
  readonly viewerOf: (request: FastifyRequest) => Viewer;
  readonly fileUrls: () => Promise<FileUrl>;
  readonly emulated: boolean;
};

type OfItem = { Params: { id: string } };

export function itemPage(deps: ItemPageDeps): FastifyPluginAsync {
  return async (app) => {
    app.get<OfItem>("/items/:id", async (request, reply) => {
      const item = await find(request);
      if (item === null) return notFound(request, reply);
      const viewer = deps.viewerOf(request);
      const page = await parts(item, viewer);
      return sendPage(reply, {
        title: `Item ${item.index}`,
        viewer,
        emulated: deps.emulated,
        live: page.over ? null : { url: `/items/${item.id}/live`, version: versionOf(page) },
        body: html`${page.parts.map((part) => part.html)}`,
      });
    });

    app.get<OfItem>("/items/:id/live", { exposeHeadRoute: false }, async (request, reply) => {
      if ((await find(request)) === null) return notFound(request, reply);
      const viewer = deps.viewerOf(request);
      return deps.live.send(request, reply, async () => {
        const item = await find(request);
        return item === null ? null : parts(item, viewer);
      });
    });

    app.post<OfItem>("/items/:id/cancel", async (request, reply) => {
      const item = await find(request);
      if (item === null) return notFound(request, reply);
      await cancelItem(item, item.row, deps.canceling);
      deps.sights.forget(item.batch);
      return reply.redirect(`/items/${item.id}`, 303);
    });

    app.get<OfItem>("/jobs/:id", async (request, reply) => {
      const ref = parseErrandId(request.params.id);
      if (ref === null) return notFound(request, reply);
      return reply.redirect(`/items/${itemId(ref.batch, ref.index)}#attempt-${ref.attempt}`);
    });
  };

  function find(request: FastifyRequest<OfItem>): Promise<FoundPrediction | null> {
    return deps.predictions.find(request.params.id, deps.viewerOf(request).tenant);
  }

  function notFound(request: FastifyRequest<OfItem>, reply: FastifyReply): FastifyReply {
    return sendNotFound(request, reply, { what: "item", id: request.params.id }, deps);
  }

  async function parts(item: FoundPrediction, viewer: Viewer): Promise<Parts> {
    const [sight, receipts, jobs, fileUrl] = await Promise.all([
      deps.sights.find(item.batch, item.tenant),
      readReceipts(item),
      deps.findErrands(item),
      deps.fileUrls(),
    ]);
    return {
      parts: itemParts({
        item,
        report: sight?.report ?? null,
        receipts,
        jobs,
        viewer,
        fileUrl,
        accounts: deps.accounts,
      }),
      over: isEnd(item.state),
    };
  }

  /** Of all attempts, the first one first; null where one hasn't ended, or ended without. */
  function readReceipts(item: FoundPrediction): Promise<readonly (Receipt | null)[]> {
    const earlier = Array.from({ length: item.attempt - 1 }, (_, at) =>
      // An attempt that another one followed has ended.
      readReceipt(deps.canceling.bucket, { ...item, attempt: at + 1 }),
    );
    return Promise.all([...earlier, deps.predictions.receiptOf(item)]);
  }
}
