/**
 * The HTTP side of Outlast as one Fastify app: health, and the dashboard. `buildServer` listens to nothing; `listen`
 * does, and to loopback alone, since nothing here asks who is asking.
 *
 * For the same reason a request is refused whose Host names another machine: a page on the web could otherwise have
 * a browser on this one read the dashboard to it, under a name of its own that it points at 127.0.0.1.
 */

import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from "fastify";
import ipaddr from "ipaddr.js";
import type { Logger } from "pino";
import { type DashboardDeps, dashboard } from "../dashboard/dashboard.ts";
import { type HealthDeps, health } from "./health.ts";
import { answerProblems, sendProblem } from "./problems.ts";

export type ServerDeps = HealthDeps & DashboardDeps & { readonly log: Logger };

/** The server can't listen; the message is one line that says what to do. */
export class ListenError extends Error {
  override readonly name = "ListenError";
}

export async function buildServer(deps: ServerDeps): Promise<FastifyInstance> {
  // A board that is open polls every few seconds: a line per request would bury everything else.
  const app = Fastify({
    loggerInstance: quiet(deps.log),
    logController: new LogController({ disableRequestLogging: true }),
  });
  answerProblems(app);
  app.addHook("onRequest", async (request, reply) => {
    if (!isLoopbackHost(request.hostname)) {
      return sendProblem(reply, 421, "this server answers to the names of loopback only: localhost or 127.0.0.1");
    }
  });
  await app.register(health(deps));
  await app.register(dashboard(deps));
  app.get("/", async (_request, reply) => reply.redirect("/queues"));
  await app.ready();
  return app;
}

/** Fastify tells where it listens; whoever started it tells that better. */
function quiet(log: Logger): FastifyBaseLogger {
  return log.isLevelEnabled("info") ? log.child({}, { level: "warn" }) : log;
}

/** Throws ListenError before anything is opened, so that a mistake costs nothing. */
export function requireLoopback(host: string): void {
  if (!isLoopbackHost(host)) {
    throw new ListenError(
      `the server has no API keys yet, so it listens on loopback only: set OUTLAST_HOST to 127.0.0.1, not ${host}`,
    );
  }
}

/** Answers the address a person can open. */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  requireLoopback(host);
  try {
    const address = new URL(await app.listen({ host, port }));
    return `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new ListenError(
      code === "EADDRINUSE"
        ? `port ${port} on ${host} is in use: end what listens there, or set OUTLAST_PORT to another (0 takes a free one)`
        : `can't listen on ${host}:${port} (${code ?? (error as Error).message}): set OUTLAST_HOST and OUTLAST_PORT`,
      { cause: error },
    );
  }
}

function isLoopbackHost(host: string): boolean {
  const bare = host.startsWith("[") ? host.slice(1, -1) : host;
  if (bare === "localhost" || bare.endsWith(".localhost")) return true;
  return ipaddr.isValid(bare) && ipaddr.process(bare).range() === "loopback";
}
