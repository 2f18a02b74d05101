/**
 * The dashboard as one Fastify plugin: bull-board at `/queues`, which shows the jobs, and `/jobs/<errand id>`, which
 * follows one item through its stages. Read-only: the board's server refuses every write. It asks nobody who they
 * are; the server around it listens on loopback only.
 */

import { createBullBoard } from "@bull-board/api";
import { FastifyAdapter } from "@bull-board/fastify";
import type { FastifyPluginAsync } from "fastify";
import type { Redis } from "ioredis";
import type { AccountName } from "../core/naming.ts";
import { openBoardQueues } from "./board-queues.ts";
import { type JobPageDeps, jobPages } from "./job-page.ts";
import { redact } from "./showing.ts";

export type DashboardDeps = Omit<JobPageDeps, "findErrand" | "board"> & {
  readonly redis: Redis;
  readonly accounts: readonly { readonly name: AccountName; readonly baseUrl: string }[];
  /** Predictions are made up, not bought. */
  readonly emulated: boolean;
};

const BOARD = "/queues";
/** Every open tab costs Redis six commands a queue and poll. */
const POLL_SECONDS = 5;
/** The board's page asks Google for fonts; nobody else needs to hear that it is open. */
const BOARD_POLICY =
  "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'self'";

export function dashboard(deps: DashboardDeps): FastifyPluginAsync {
  return async (app) => {
    const queues = openBoardQueues(
      deps.redis,
      deps.accounts.map((account) => account.name),
    );
    app.addHook("onClose", () => queues.close());

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
          hideDocsLink: true,
          sortQueues: true,
          pollingInterval: { showSetting: false, forceInterval: POLL_SECONDS },
          jobDetails: { defaultTab: "Data" },
          showWorkers: true,
          ...(deps.emulated && { environment: { label: "emulator", color: "#b45309", textColor: "#ffffff" } }),
        },
      },
    });
    await app.register(async (board) => {
      // What the hook returned would become the body.
      board.addHook("onSend", async (_request, reply) => {
        reply.header("content-security-policy", BOARD_POLICY);
      });
      await board.register(server.registerPlugin(), { prefix: BOARD });
    });
    await app.register(jobPages({ ...deps, board: BOARD, findErrand: queues.findErrand }));
  };
}
