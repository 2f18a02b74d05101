/**
 * The HTTP side of Outlast as one Fastify app: the queue API under `/v1`, the pages, the board, health. `buildServer`
 * listens to nothing; `listen` does.
 *
 * Without API keys nobody is asked who they are: then it listens to loopback alone, and refuses a request whose Host
 * names another machine - a page on the web could otherwise have a browser on this one read everything to it, under a
 * name of its own that it points at 127.0.0.1.
 */

import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from "fastify";
import { validatorCompiler } from "fastify-type-provider-zod";
import ipaddr from "ipaddr.js";
import type { Logger } from "pino";
import { openAdmission } from "../batches/admit-single.ts";
import { openPredictions } from "../batches/read-predictions.ts";
import { reportBatch } from "../batches/report-batch.ts";
import type { AdmittingAccount } from "../batches/single-input.ts";
import { parseHostRule } from "../bucket/addresses.ts";
import type { Config } from "../config.ts";
import { SECOND } from "../core/time.ts";
import { type DashboardDeps, openDashboard } from "../dashboard/dashboard.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { requireKey, requireOperator, requirePerson } from "./access.ts";
import { accountRoutes } from "./account.ts";
import { openBatchWatch } from "./batch-watch.ts";
import { batchRoutes } from "./batches.ts";
import { type BodyTimeouts, readBodies } from "./bodies.ts";
import { answerClientErrors } from "./client-errors.ts";
import { type Client, openClients } from "./clients.ts";
import { fileRoutes } from "./files.ts";
import { type HealthDeps, health } from "./health.ts";
import { openHolds } from "./holds.ts";
import { closeInOrder } from "./leaving.ts";
import { openLimits } from "./limits.ts";
import { openLinks } from "./links.ts";
import { ListenError } from "./listen-error.ts";
import { answerOtherMethods } from "./methods.ts";
import { metricsRoute } from "./metrics.ts";
import { describeApi } from "./openapi.ts";
import { predictionRoutes } from "./predictions.ts";
import { answerBadUrls, answerProblems, sendProblem } from "./problems.ts";
import { HEARTBEAT_MS } from "./server-sent-events.ts";
import { openStreams } from "./streams.ts";
import { type WebhookDeps, webhookRoutes } from "./webhooks.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Answers whatever name it is called by, since it shows nothing to whoever can't prove who they are. */
    anyHost?: boolean;
  }
}

export type ServerDeps = HealthDeps &
  Pick<DashboardDeps, "redis" | "bucket" | "emulated"> & {
    readonly config: Pick<Config, "apiKeys" | "apiLimits" | "publicUrl" | "publicBucketUrl" | "webhookHosts">;
    readonly ledger: Ledger;
    readonly queues: Queues;
    readonly accounts: readonly (AdmittingAccount & { readonly baseUrl: string; readonly createsPerMinute: number })[];
    /** Of the accounts that have a token here, whose webhooks are taken. */
    readonly providers: WebhookDeps["providers"];
    readonly log: Logger;
    readonly timeouts?: Partial<
      BodyTimeouts & { readonly headersMs: number; readonly heartbeatMs: number; readonly secretPauseMs: number }
    >;
  };

/** From the first byte of a request, or the beginning of its connection, to the end of its headers. */
const HEADERS_MS = 10 * SECOND;

export async function buildServer(deps: ServerDeps): Promise<FastifyInstance> {
  const { bucket, ledger, queues, accounts, config } = deps;
  const { headersMs = HEADERS_MS, heartbeatMs = HEARTBEAT_MS, secretPauseMs, ...bodyTimeouts } = deps.timeouts ?? {};
  const clock = Date.now;
  const clients = openClients(config.apiKeys);
  const limits = openLimits(config.apiLimits);
  const links = openLinks({ ledger, publicUrl: config.publicUrl, publicBucketUrl: config.publicBucketUrl, clock });
  const predictions = openPredictions({ bucket, ledger });
  const holds = openHolds(ledger);
  const streams = openStreams();
  const watch = openBatchWatch((id) => reportBatch(ledger, id));

  // A board that is open polls every few seconds: a line per request would bury everything else.
  const app = Fastify({
    loggerInstance: quiet(deps.log),
    logController: new LogController({ disableRequestLogging: true }),
    clientErrorHandler: answerClientErrors,
    frameworkErrors: answerBadUrls,
    forceCloseConnections: "idle",
    return503OnClosing: false,
    http: { headersTimeout: headersMs, connectionsCheckingInterval: headersMs / 2 },
    routerOptions: { maxParamLength: 200 },
  });
  app.decorateRequest("client");
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  answerProblems(app);
  readBodies(app, bodyTimeouts);
  if (clients.open) requireLoopbackHost(app);
  closeInOrder(app, headersMs, () => {
    holds.close();
    watch.close();
  });

  const otherMethods = answerOtherMethods(app);
  await describeApi(app, links);
  await app.register(health(deps));
  await app.register(
    async (api) => {
      requireKey(api, { clients, limits });
      const services = { bucket, ledger, queues, clock };
      await api.register(
        predictionRoutes({
          accounts,
          admission: openAdmission(services),
          predictions,
          listing: services,
          canceling: services,
          holds,
          links,
          webhookHosts: ["*", ...config.webhookHosts].map(parseHostRule),
        }),
      );
      await api.register(
        batchRoutes({
          accounts,
          submitting: services,
          holding: services,
          results: services,
          ledger,
          watch,
          heartbeatMs,
          limits,
          streams,
          links,
        }),
      );
      await api.register(fileRoutes({ bucket, finding: services, predictions, clients, links }));
      await api.register(accountRoutes({ ledger }));
    },
    { prefix: "/v1" },
  );
  await app.register(
    webhookRoutes({
      accounts,
      providers: deps.providers,
      taking: {
        bucket,
        ledger,
        queues,
        clock,
        warn: (fields, message) => deps.log.warn(fields, message),
        error: (fields, message) => deps.log.error(fields, message),
      },
      selfSecret: () => ledger.secretFor("self-call"),
      count: ledger.countWebhook,
      ...(secretPauseMs !== undefined && { secretPauseMs }),
    }),
  );
  const mayOpenBoard = ({ role }: Client) => role === "operator" || !clients.severalTenants;
  const dashboard = openDashboard({ ...deps, predictions, links, streams, mayOpenBoard, open: clients.open, clock });
  app.addHook("onClose", dashboard.close);
  await app.register(async (pages) => {
    requirePerson(pages, { clients, limits });
    await pages.register(dashboard.pages);
  });
  await app.register(async (board) => {
    requirePerson(board, { clients, limits }, mayOpenBoard);
    await board.register(dashboard.board);
  });
  await app.register(async (metrics) => {
    requireKey(metrics, { clients, limits });
    requireOperator(metrics);
    await metrics.register(metricsRoute({ ledger, queues, accounts, clock }));
  });
  app.get("/", async (_request, reply) => reply.redirect("/batches"));
  otherMethods();
  await app.ready();
  return app;
}

function requireLoopbackHost(app: FastifyInstance): void {
  app.addHook("onRequest", (request, reply, done) => {
    if (request.routeOptions.config.anyHost === true || isLoopbackHost(request.hostname)) return done();
    sendProblem(reply, 421, "this server answers to the names of loopback only: localhost or 127.0.0.1");
  });
}

/** Fastify tells where it listens; whoever started it tells that better. */
function quiet(log: Logger): FastifyBaseLogger {
  return log.isLevelEnabled("info") ? log.child({}, { level: "warn" }) : log;
}

/** Throws ListenError before anything is opened, so that a mistake costs nothing. */
export function requireKeysBeyondLoopback({ host, apiKeys }: Pick<Config, "host" | "apiKeys">): void {
  if (apiKeys.length > 0 || isLoopbackHost(host)) return;
  throw new ListenError(
    `without API keys the server listens on loopback only: set OUTLAST_API_KEYS, or OUTLAST_HOST to 127.0.0.1, not ${host}`,
  );
}

/** Answers the address a person can open. */
export async function listen(app: FastifyInstance, config: Pick<Config, "host" | "port" | "apiKeys">): Promise<string> {
  requireKeysBeyondLoopback(config);
  const { host, port } = config;
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
  if (bare === "localhost" || bare === "127.0.0.1" || bare.endsWith(".localhost")) return true;
  return ipaddr.isValid(bare) && ipaddr.process(bare).range() === "loopback";
}
