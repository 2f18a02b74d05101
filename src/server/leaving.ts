/** Who leaves first: whoever asked, or the server. */

import type { Socket } from "node:net";
import type { FastifyInstance, FastifyReply } from "fastify";
import { SECOND } from "../core/time.ts";
import { HttpProblem } from "./problems.ts";

/** What a server that closes gives the requests it has. */
export const DRAIN_MS = 25 * SECOND;

/** Aborts when whoever asked has gone. Fastify's `request.signal` hears of it no more once the body has been read. */
export function askerGone({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController();
  if (raw.destroyed) gone.abort();
  raw.once("close", () => gone.abort());
  return gone.signal;
}

/**
 * A server that closes waits for the requests it has and for no others. `letGo` ends those that would last. Answers say
 * that their connection ends with them, and connections on which nothing is asked any more are closed. Node no longer
 * looks after headers that never end once it closes: their connections get `headersMs` from then on.
 */
export function closeInOrder(app: FastifyInstance, headersMs: number, letGo: () => void): void {
  let closing = false;
  const asking = countRequests(app);
  app.addHook("preClose", async () => {
    closing = true;
    letGo();
    setTimeout(() => {
      for (const [socket, requests] of asking) if (requests === 0) socket.destroy();
    }, headersMs).unref();
  });
  // For those that come on a connection which was kept. Fastify's own answer is none of ours (`return503OnClosing`).
  app.addHook("onRequest", (_request, _reply, done) => {
    done(closing ? new HttpProblem(503, "the server is closing", { retryAfterSeconds: 1 }) : undefined);
  });
  app.addHook("onSend", (_request, reply, _payload, done) => {
    if (closing) reply.header("connection", "close");
    done();
  });
  // For those whose headers had gone out before.
  app.addHook("onResponse", (_request, _reply, done) => {
    if (closing) app.server.closeIdleConnections();
    done();
  });
}

/** Closes a server whose process goes on. Whoever isn't answered in `drainMs` is cut off; `cutting` hears of it before. */
export async function closeWithin(
  app: Pick<FastifyInstance, "close" | "server">,
  drainMs: number,
  cutting: () => void,
): Promise<void> {
  const deadline = setTimeout(() => {
    cutting();
    app.server.closeAllConnections();
  }, drainMs);
  await app.close().finally(() => clearTimeout(deadline));
}

/** Every connection, and how many requests it has that aren't answered yet. */
function countRequests({ server }: FastifyInstance): ReadonlyMap<Socket, number> {
  const open = new Map<Socket, number>();
  const count = (socket: Socket, by: number) => open.set(socket, (open.get(socket) ?? 0) + by);
  server.on("connection", (socket) => {
    open.set(socket, 0);
    socket.once("close", () => open.delete(socket));
  });
  server.on("request", ({ socket }, response) => {
    count(socket, 1);
    response.once("close", () => open.has(socket) && count(socket, -1));
  });
  return open;
}
