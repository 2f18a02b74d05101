/** A worker that lives while Redis is restarted or emptied. */

import { Redis } from "ioredis";
import { expect, test } from "vitest";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { openLedger } from "../../src/ledger/ledger.ts";
import { watchRedis } from "../../workers/watch-redis.ts";
import { startTestRedis } from "../support/redis-server.ts";
import { ACCOUNT } from "../support/stages.ts";

test("a Redis that was restarted, and one that was emptied, is noticed once each", { timeout: 90_000 }, async () => {
  await using server = await startTestRedis({ durable: true });
  const redis = await connectRedis(server.url, "worker");
  const ledger = openLedger(redis);
  const first = await ledger.readIdentity(ACCOUNT);
  const said: string[] = [];
  let given = 0;
  let failing = true;
  const watching = watchRedis(first, {
    readIdentity: () => ledger.readIdentity(ACCOUNT),
    giveOut: async () => {
      given++;
      // As where Redis is away again: it is done again.
      if (given === 1 && failing) throw new Error("Redis is away");
    },
    warn: (_fields, message) => said.push(message),
  });
  try {
    await server.kill();
    await server.restart();
    await expect.poll(() => given, { timeout: 30_000 }).toBe(2);
    failing = false;
    const second = await ledger.readIdentity(ACCOUNT);
    expect(second.split("/")[1], "its data are the same").toBe(first.split("/")[1]);
    expect(second).not.toBe(first);

    const other = new Redis(server.url);
    await other.flushall();
    await other.quit();
    await expect.poll(() => given, { timeout: 30_000 }).toBe(3);
    expect(said.filter((words) => words.includes("given out again"))).toHaveLength(3);
    expect((await ledger.readIdentity(ACCOUNT)).split("/")[0]).toBe(second.split("/")[0]);
  } finally {
    await watching.close();
    redis.disconnect();
  }
});
