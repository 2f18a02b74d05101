/**
 * `/batches/<id>`: one batch. How far it is and when it will be done, where its items are, what went wrong, what came
 * out lately; and what a person can do about it: pause, resume, cancel.
 */

import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from "fastify";
import { CannotHold, type HoldDeps, holdBatch } from "../batches/hold-batch.ts";
import type { BatchStanding, Ledger } from "../ledger/ledger.ts";
import { batchParts } from "./batch-parts.ts";
import type { BatchSight, BatchSights } from "./batch-sights.ts";
import { sendPage, type Viewer } from "./frame.ts";
import type { FileUrl } from "./gallery.ts";
import { type Html, html } from "./html.ts";
import { type Live, type Parts, versionOf } from "./live.ts";
import { sendNotFound } from "./problem-page.ts";
import { excerpt, MAX_NAME } from "./showing.ts";

export type BatchPageDeps = {
  readonly sights: Pick<BatchSights, "find" | "outcomesOf" | "forget">;
  readonly ledger: Pick<Ledger, "standing">;
  readonly holding: HoldDeps;
  readonly live: Live;
  readonly viewerOf: (request: FastifyRequest) => Viewer;
  readonly fileUrls: () => Promise<FileUrl>;
  /** The board's address of a queue; null where it shows no such queue. */
  readonly queueUrl: (queue: string) => string | null;
  readonly emulated: boolean;
};

type OfBatch = { Params: { id: string } };

export function batchPage(deps: BatchPageDeps): FastifyPluginAsync {
  return async (app) => {
    app.get<OfBatch>("/batches/:id", async (request, reply) => {
      const sight = await find(request);
      return sight === null ? notFound(request, reply) : send(request, reply, sight);
    });

    app.get<OfBatch>("/batches/:id/live", { exposeHeadRoute: false }, async (request, reply) => {
      if ((await find(request)) === null) return notFound(request, reply);
      const viewer = deps.viewerOf(request);
      return deps.live.send(request, reply, async () => {
        const sight = await find(request);
        return sight === null ? null : parts(sight, viewer);
      });
    });

    for (const act of ["pause", "resume", "cancel"] as const) {
      app.post<OfBatch>(`/batches/:id/${act}`, async (request, reply) => {
        const standing = await findStanding(request);
        if (standing === null) return notFound(request, reply);
        try {
          await holdBatch(standing, act, deps.holding);
        } catch (error) {
          if (!(error instanceof CannotHold)) throw error;
          const sight = await findAnew(request);
          const said = html`<p class="note bad" role="alert"><b>That couldn’t be done:</b> ${error.message}.</p>`;
          return sight === null ? notFound(request, reply) : send(request, reply.code(409), sight, said);
        }
        deps.sights.forget(standing.batch.id);
        return reply.redirect(`/batches/${standing.batch.id}`, 303);
      });
    }
  };

  function find(request: FastifyRequest<OfBatch>): Promise<BatchSight | null> {
    return deps.sights.find(request.params.id, deps.viewerOf(request).tenant);
  }

  /** Not as it stood a second ago. */
  async function findAnew(request: FastifyRequest<OfBatch>): Promise<BatchSight | null> {
    const sight = await find(request);
    if (sight === null) return null;
    deps.sights.forget(sight.batch.id);
    return find(request);
  }

  async function findStanding(request: FastifyRequest<OfBatch>): Promise<BatchStanding | null> {
    const sight = await find(request);
    return sight === null ? null : deps.ledger.standing(sight.batch.account, sight.batch.id);
  }

  function notFound(request: FastifyRequest<OfBatch>, reply: FastifyReply): FastifyReply {
    return sendNotFound(request, reply, { what: "batch", id: request.params.id }, deps);
  }

  async function parts(sight: BatchSight, viewer: Viewer): Promise<Parts> {
    const [outcomes, fileUrl] = await Promise.all([deps.sights.outcomesOf(sight), deps.fileUrls()]);
    const queueUrl = viewer.mayOpenBoard ? deps.queueUrl : () => null;
    return {
      parts: batchParts({ sight, outcomes, viewer, fileUrl, queueUrl }),
      over: sight.report.finished_at !== null,
    };
  }

  async function send(
    request: FastifyRequest<OfBatch>,
    reply: FastifyReply,
    sight: BatchSight,
    said: Html | null = null,
  ): Promise<FastifyReply> {
    const viewer = deps.viewerOf(request);
    const page = await parts(sight, viewer);
    return sendPage(reply, {
      title: excerpt(sight.batch.name, MAX_NAME),
      viewer,
      emulated: deps.emulated,
      live: page.over ? null : { url: `/batches/${sight.batch.id}/live`, version: versionOf(page) },
      body: html`${said}${page.parts.map((part) => part.html)}`,
    });
  }
}
