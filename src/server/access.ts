/**
 * Who may pass: asks whoever comes for a key, in the way that fits - programs by `WWW-Authenticate: Bearer`, browsers by a
 * dialogue - and counts their requests.
 */

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Client, Clients } from "./clients.ts";
import type { Limits } from "./limits.ts";
import { HttpProblem, sendProblem } from "./problems.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Who asks. Set before any route that isn't `open` runs. */
    client: Client;
  }
  interface FastifyContextConfig {
    /** Whoever only looks may not. */
    writes?: boolean;
    /** Decides for itself who may pass. */
    open?: boolean;
  }
}

export type AccessDeps = { readonly clients: Clients; readonly limits: Limits };

const ANOTHER_SITE = "this was sent by another site's page";
const BEARER = 'Bearer realm="outlast"';
const BASIC = 'Basic realm="Outlast: any name, and an API key as the password", charset="UTF-8"';

/** For routes that programs ask. */
export function requireKey(app: FastifyInstance, { clients, limits }: AccessDeps): void {
  app.addHook("onRequest", async (request, reply) => {
    const { config } = request.routeOptions;
    if (config.open === true) return;
    const client = clients.identify(request.headers.authorization);
    if (client === null) {
      // A line each: of one line with both a browser reads the first.
      reply.header("www-authenticate", followsLink(request) ? [BEARER, BASIC] : BEARER);
      return sendProblem(reply, 401, "this needs an API key, as Authorization: Bearer …");
    }
    request.client = client;
    await limits.take(client, "requests", 1);
    if (config.writes === true && client.role === "viewer") {
      throw new HttpProblem(403, "this key may look, but not change anything");
    }
    if (config.writes === true && comesFromElsewhere(request)) {
      throw new HttpProblem(403, ANOTHER_SITE);
    }
  });
  app.addHook("preValidation", ({ client, bodyBytes }, _reply, done) => {
    if (bodyBytes === 0) return done();
    const take = limits.meter(client, "bytes");
    take(bodyBytes).then(() => done(), done);
  });
}

/** After `requireKey`: for what tells of all tenants. */
export function requireOperator(app: FastifyInstance): void {
  app.addHook("onRequest", async ({ client }) => {
    if (client.role !== "operator")
      throw new HttpProblem(403, "this tells of all tenants: it takes the key of an operator");
  });
}

/** For pages that people open in a browser. `mayOpen`: whose pages these are. */
export function requirePerson(
  app: FastifyInstance,
  { clients, limits }: AccessDeps,
  mayOpen: (client: Client) => boolean = () => true,
): void {
  app.addHook("onRequest", async (request, reply) => {
    const client = clients.identify(request.headers.authorization);
    if (client === null) {
      reply.header("www-authenticate", BASIC);
      return sendProblem(reply, 401, "this needs an API key, as the password; the name is free");
    }
    request.client = client;
    await limits.take(client, "requests", 1);
    if (!mayOpen(client)) {
      return sendProblem(reply, 403, "the board shows every tenant's jobs: it takes the key of an operator");
    }
    if (request.method !== "GET" && request.method !== "HEAD") {
      if (client.role === "viewer") return sendProblem(reply, 403, "this key may look, but not change anything");
      if (!comesFromOurPage(request)) return sendProblem(reply, 403, ANOTHER_SITE);
    }
  });
}

/** A page's link to the results, or to the API's description, is opened with the password that opened the page. */
function followsLink({ headers }: FastifyRequest): boolean {
  return headers.accept?.includes("text/html") === true;
}

/** A browser sends the password by itself, whoever's page asks it to: so what changes something must come from ours. */
function comesFromOurPage(request: FastifyRequest): boolean {
  const { headers } = request;
  const says = headers["sec-fetch-site"] !== undefined || headers.origin !== undefined;
  return says && headers["sec-fetch-site"] !== "none" && !comesFromElsewhere(request);
}

/** Programs say nothing of where a request comes from; browsers do, also to a server that asks nobody for a key. */
function comesFromElsewhere({ headers, host }: FastifyRequest): boolean {
  const site = headers["sec-fetch-site"];
  if (site !== undefined) return site !== "same-origin" && site !== "none";
  // Behind a proxy that speaks TLS, the scheme isn't ours to compare.
  return headers.origin !== undefined && URL.parse(headers.origin)?.host !== host;
}
