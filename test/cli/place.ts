/** A private Redis (one per test file) and a folder for bucket and state (one per test), as settings of a command. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Redis } from "ioredis";
import { readConfig } from "../../src/config.ts";
import { batchIdFrom, parseAccountName } from "../../src/core/naming.ts";
import { type CommandServices, openServices } from "../../src/wiring.ts";
import { test as base } from "../support/redis.ts";
import { openAccount } from "../support/stages.ts";

export type Place = {
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
};

/** `place`: settings; `services`: the same opened in the test's own process. */
export const test = base
  .extend("place", async ({ redis }, { onCleanup }): Promise<Place> => {
    const folder = await mkdtemp(path.join(tmpdir(), "outlast-cli-test-"));
    onCleanup(async () => {
      await rm(folder, { recursive: true, force: true });
      const client = new Redis(redis.url);
      await client.flushall(); // one test, one world
      await client.quit();
    });
    return {
      folder,
      env: {
        REPLICATE_API_TOKEN: "r8_not_a_token",
        OUTLAST_REDIS_URL: redis.url,
        OUTLAST_BUCKET: `file:${path.join(folder, "bucket")}`,
        OUTLAST_STATE_DIR: path.join(folder, "state"),
      },
    };
  })
  .extend("services", async ({ place }, { onCleanup }): Promise<CommandServices> => {
    const services = await openServices(readConfig(place.env), "command");
    onCleanup(() => services[Symbol.asyncDispose]());
    await openAccount(services.ledger, ACCOUNT);
    return services;
  });

const account = parseAccountName("replicate");
if (account === null) throw new Error("the tests' account has no name");
export const ACCOUNT = account;

/** A batch in Redis alone, opened at the epoch plus `n` seconds. */
export async function openBatch({ ledger }: CommandServices, n: number, items: number, name = `batch ${n}`) {
  const id = batchIdFrom(new Uint8Array(20).fill(n));
  const batch = {
    id,
    kind: "file",
    name,
    tenant: "default",
    account: ACCOUNT,
    items,
    openedAtMs: n * 1_000,
    retryFailed: 0,
  } as const;
  await ledger.openBatch(batch);
  return batch;
}
