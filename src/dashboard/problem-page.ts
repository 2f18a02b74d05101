/** What went wrong, as a page: what isn't there, and what couldn't be answered. */

import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { problemOf } from "../server/problems.ts";
import { sendPage, type Viewer } from "./frame.ts";
import { html } from "./html.ts";
import { excerpt } from "./showing.ts";

export type ProblemPageDeps = {
  readonly viewerOf: (request: FastifyRequest) => Viewer;
  readonly emulated: boolean;
};

const MAX_WORDS = 1_000;

/** For everything that a page's route throws. */
export function answerProblemPages(app: FastifyInstance, deps: ProblemPageDeps): void {
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const { status, detail, retryAfterSeconds } = problemOf(error, request);
    if (status >= 500) request.log.error({ err: error }, "a page couldn't be made");
    if (retryAfterSeconds !== undefined) reply.header("retry-after", Math.max(Math.ceil(retryAfterSeconds), 1));
    const title = status === 429 ? "Too many requests" : status >= 500 ? "Not at the moment" : "That can’t be done";
    return sendProblemPage(request, reply, { status, title, words: detail }, deps);
  });
}

/** Another's isn't there either, and both are told alike. */
export function sendNotFound(
  request: FastifyRequest,
  reply: FastifyReply,
  { what, id }: { readonly what: "batch" | "item"; readonly id: string },
  deps: ProblemPageDeps,
): FastifyReply {
  const words = `There is no ${what} “${excerpt(id, 60)}” here, or it isn’t yours. What has ended leaves this page after a while; what was kept of it stays in the bucket.`;
  return sendProblemPage(request, reply, { status: 404, title: `No such ${what}`, words }, deps);
}

function sendProblemPage(
  request: FastifyRequest,
  reply: FastifyReply,
  { status, title, words }: { readonly status: number; readonly title: string; readonly words: string },
  { viewerOf, emulated }: ProblemPageDeps,
): FastifyReply {
  return sendPage(reply.code(status), {
    title,
    // Whoever was turned away at the door has no client yet.
    viewer: (request.client as unknown) == null ? null : viewerOf(request),
    emulated,
    live: null,
    body: html`<h1>${title}</h1><p>${excerpt(words, MAX_WORDS)}</p><p><a href="/batches">All batches</a></p>`,
  });
}
