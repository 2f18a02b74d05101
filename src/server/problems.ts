/** Every error leaves as problem+json (RFC 9457): a title, the status, and what can be told without secrets. */

import { STATUS_CODES } from "node:http";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from "fastify";

export function sendProblem(reply: FastifyReply, status: number, detail: string): FastifyReply {
  return reply
    .code(status)
    .type("application/problem+json")
    .send(Buffer.from(JSON.stringify({ title: STATUS_CODES[status] ?? "Error", status, detail }))); // JSON has no charset
}

/** For what no route handles, and for what a route throws. The cause of a 5xx goes to the log, not to the asker. */
export function answerProblems(app: FastifyInstance): void {
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, 404, `there is nothing at ${request.method} ${pathOf(request)}`),
  );
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const status = error.statusCode ?? 500;
    if (status < 500) return sendProblem(reply, status, error.message);
    request.log.error({ err: error, path: pathOf(request) }, "a request failed");
    return sendProblem(reply, status, "the server failed to answer this; its log says why");
  });
}

/** Without its query, which may hold what shouldn't be repeated. */
function pathOf(request: FastifyRequest): string {
  return request.url.split("?", 1)[0]?.slice(0, 200) ?? "/";
}
