/**
 * What people open in a browser, as two Fastify plugins: the board, bull-board at `/queues`, which shows the jobs and
 * refuses every write; and the pages, where things are done. They ask nobody who they are: the server around them does,
 * and not the same of both, since the board shows every tenant's jobs.
 */

import { createBullBoard } from "@bull-board/api";
import { FastifyAdapter } from "@bull-board/fastify";
import type { FastifyPluginAsync, FastifyRequest } from "fastify";
import type { Redis } from "ioredis";
import type { Predictions } from "../batches/read-predictions.ts";
import type { Bucket } from "../bucket/bucket.ts";
import type { AccountName } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import type { Client } from "../server/clients.ts";
import type { Links } from "../server/links.ts";
import { sendProblem } from "../server/problems.ts";
import type { Streams } from "../server/streams.ts";
import { assetRoutes, assetUrl } from "./assets.ts";
import { batchPage } from "./batch-page.ts";
import { openBatchSights } from "./batch-sights.ts";
import { type BoardQueues, openBoardQueues } from "./board-queues.ts";
import { BOARD, type Viewer } from "./frame.ts";
import { itemPage } from "./item-page.ts";
import { listPage } from "./list-page.ts";
import { openLive } from "./live.ts";
import { answerProblemPages } from "./problem-page.ts";
import { redact } from "./showing.ts";

export type DashboardDeps = {
  readonly redis: Redis;
  readonly bucket: Bucket;
  readonly ledger: Ledger;
  readonly queues: Queues;
  readonly accounts: readonly {
    readonly name: AccountName;
    readonly baseUrl: string;
    readonly createsPerMinute: number;
  }[];
  readonly predictions: Predictions;
  /** Of the kept files. */
  readonly links: Pick<Links, "paths">;
  readonly streams: Streams;
  readonly mayOpenBoard: (client: Client) => boolean;
  /** Nobody is asked for a key. */
  readonly open: boolean;
  /** Predictions are made up, not bought. */
  readonly emulated: boolean;
  readonly clock: () => number;
};

/** Every open tab costs Redis six commands a queue and poll. */
const POLL_SECONDS = 5;
/** The board's page asks Google for fonts; nobody else needs to hear that it is open. */
const BOARD_POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'";

export type Dashboard = {
  readonly board: FastifyPluginAsync;
  readonly pages: FastifyPluginAsync;
  readonly close: () => Promise<void>;
};

export function openDashboard(deps: DashboardDeps): Dashboard {
  const queues = openBoardQueues(deps.redis, deps.accounts);
  return { board: board(deps, queues), pages: pages(deps, queues), close: queues.close };
}

function pages(deps: DashboardDeps, queues: BoardQueues): FastifyPluginAsync {
  const { ledger, predictions, accounts, emulated } = deps;
  const live = openLive(deps.streams);
  const sights = openBatchSights(deps);

  const viewerOf = ({ client }: Pick<FastifyRequest, "client">): Viewer => ({
    tenant: client.tenant,
    role: client.role,
    known: !deps.open,
    mayAct: client.role !== "viewer",
    mayOpenBoard: deps.mayOpenBoard(client),
  });

  return async (app) => {
    // Signed: a picture needs no password of its own.
    const common = { sights, live, viewerOf, fileUrls: deps.links.paths, emulated };
    // A browser's form sends its fields so; ours have none.
    app.addContentTypeParser(
      "application/x-www-form-urlencoded",
      { parseAs: "string", bodyLimit: 1_000 },
      (_request, _text, done) => done(null, null),
    );
    app.addHook("preClose", async () => live.close());
    answerProblemPages(app, common);
    await app.register(assetRoutes);
    await app.register(listPage(common));
    await app.register(batchPage({ ...common, ledger, holding: deps, queueUrl: (name) => boardUrl(queues, name) }));
    await app.register(
      itemPage({ ...common, predictions, canceling: deps, accounts, findErrands: queues.findErrands }),
    );
  };
}

function boardUrl(queues: BoardQueues, queue: string): string | null {
  const name = queues.boardNameOf(queue);
  return name === null ? null : `${BOARD}/queue/${encodeURIComponent(name)}`;
}

function board(deps: DashboardDeps, queues: BoardQueues): FastifyPluginAsync {
  return async (app) => {
    const server = new FastifyAdapter().setBasePath(BOARD);
    createBullBoard({
      queues: [...queues.adapters],
      serverAdapter: server,
      options: {
        // Failure reasons and stack traces pass no formatter of their own.
        handlerHooks: {
          after: (_context, result) => ({ ...result, body: redact(result.body) as typeof result.body }),
        },
        uiConfig: {
          boardTitle: "Outlast",
          boardLogo: { path: assetUrl("icon.svg"), width: 22, height: 22 },
          favIcon: { default: assetUrl("icon.svg"), alternative: assetUrl("icon.svg") },
          miscLinks: [{ text: "Batches", url: "/batches" }],
          hideDocsLink: true,
          sortQueues: true,
          pollingInterval: { showSetting: false, forceInterval: POLL_SECONDS },
          jobDetails: { defaultTab: "Data" },
          showWorkers: true,
          ...(deps.emulated && { environment: { label: "emulator", color: "#b45309", textColor: "#ffffff" } }),
        },
      },
    });
    // Thrown on, an error is the server's to answer, as on any other route: bull-board would show its message.
    server.setErrorHandler((error: unknown) => {
      throw error;
    });
    // Its queues refuse writes themselves; what it does to all of them at once is refused here.
    app.addHook("onRequest", async ({ method }, reply) => {
      if (method === "GET" || method === "HEAD") return;
      return sendProblem(reply.header("allow", "GET, HEAD"), 405, "the board only shows: things are done at /batches");
    });
    // What the hook returned would become the body.
    app.addHook("onSend", async (_request, reply) => {
      reply.header("content-security-policy", BOARD_POLICY);
    });
    await app.register(server.registerPlugin(), { prefix: BOARD });
  };
}
