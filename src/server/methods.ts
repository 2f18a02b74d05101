/** Other methods than the ones a route knows: 405, with those it knows. */

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { BOARD } from "../dashboard/frame.ts";
import { sendProblem } from "./problems.ts";

const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] as const;

/** Below these, routes are bull-board's and the documentation's own. */
const OTHERS = [`${BOARD}/`, "/v1/docs/"];

/** Listens for routes from here on; what it answers adds the rest, once all are there. */
export function answerOtherMethods(app: FastifyInstance): () => void {
  const known = new Map<string, Set<string>>();
  app.addHook("onRoute", ({ url, method }) => {
    if (OTHERS.some((place) => url.startsWith(place))) return;
    const methods = known.get(url) ?? new Set();
    for (const one of [method].flat()) methods.add(one);
    known.set(url, methods);
  });
  return () => {
    for (const [url, methods] of known) {
      const allowed = [...methods].join(", ");
      const refuse = async ({ method }: FastifyRequest, reply: FastifyReply) =>
        sendProblem(reply.header("allow", allowed), 405, `${method} isn't one of ${allowed}`);
      app.route({
        method: METHODS.filter((method) => !methods.has(method)),
        url,
        schema: { hide: true },
        onRequest: refuse, // before its body is looked at
        handler: refuse,
      });
    }
  };
}
