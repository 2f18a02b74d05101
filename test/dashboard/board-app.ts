/** The server with its dashboard over a real Redis and a folder, as a fixture, and a batch to look at. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { FastifyInstance } from "fastify";
import { Redis } from "ioredis";
import { pino } from "pino";
import { readConfig } from "../../src/config.ts";
import { batchIdFrom, parseAccountName } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { buildServer } from "../../src/server/server.ts";
import { type CommandServices, openServices } from "../../src/wiring.ts";
import { test as base } from "../support/redis.ts";

export const ACCOUNT = parseAccountName("replicate") ?? raise();
export const BATCH = batchIdFrom(new Uint8Array(20).fill(7));
export const PREDICTION = predictionId("gm3qorzdhgbfurvjtvhg6dckhu");

export const test = base
  .extend("services", async ({ redis }, { onCleanup }): Promise<CommandServices> => {
    const folder = await mkdtemp(path.join(tmpdir(), "outlast-board-test-"));
    const services = await openServices(
      readConfig({
        REPLICATE_API_TOKEN: "r8_not_a_token",
        OUTLAST_REDIS_URL: redis.url,
        OUTLAST_BUCKET: `file:${folder}`,
        OUTLAST_STATE_DIR: folder,
      }),
      "command",
    );
    onCleanup(async () => {
      await services[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
      const client = new Redis(redis.url);
      await client.flushall(); // one test, one world
      await client.quit();
    });
    return services;
  })
  .extend("app", async ({ services }, { onCleanup }): Promise<FastifyInstance> => {
    const app = await buildServer({ ...services, emulated: true, log: pino({ level: "silent" }) });
    onCleanup(() => app.close());
    return app;
  });

/** A batch of ten; the prediction of its fourth item runs. */
export async function openRunningBatch({ ledger, queues }: CommandServices, name = "foxes") {
  const batch = {
    id: BATCH,
    kind: "file",
    name,
    tenant: "default",
    account: ACCOUNT,
    items: 10,
    openedAtMs: 0,
  } as const;
  await ledger.openBatch(batch);
  const ref = { account: ACCOUNT, batch: BATCH, index: 3, attempt: 1 };
  await ledger.move(ref, "claim", { nowMs: 1_000, nonce: "n", set: { row_id: "Fox/3" } });
  await ledger.move(ref, "bind", { nowMs: 2_000, nonce: "n", predictionId: PREDICTION });
  await queues.follow(ref, { id: PREDICTION, startedAtMs: 1_000 }, 60_000);
  return ref;
}

function raise(): never {
  throw new Error("the tests' account has no name");
}
