import { expect, test } from "vitest";
import {
  checkRedis,
  connectRedis,
  RedisUnusable,
  requireSoundRedis,
  withoutSecrets,
} from "../../src/ledger/connect-redis.ts";
import { startTestRedis } from "../support/redis-server.ts";

test("a Redis that keeps nothing is told to a command, and refused by whoever works with money", async () => {
  await using server = await startTestRedis({ args: ["--appendonly", "no"] });
  const redis = await connectRedis(server.url, "command");
  try {
    expect((await checkRedis(redis)).map(({ level }) => level)).toEqual(["ok", "ok", "warning"]);
    await requireSoundRedis(redis, server.url, "command");
    await expect(requireSoundRedis(redis, server.url, "worker")).rejects.toThrow(/append-only.*appendonly yes/);
    await redis.config("SET", "appendonly", "yes");
    await requireSoundRedis(redis, server.url, "worker");
  } finally {
    redis.disconnect();
  }
});

test("a Redis that nobody answers at, and a password, are told in one line without the password", async () => {
  const url = "redis://me:secret@127.0.0.1:1/0";
  const refused = await connectRedis(url, "command").catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(RedisUnusable);
  expect(String(refused)).toMatch(/no Redis answers at redis:\/\/me:\*\*\*@127\.0\.0\.1:1/);
  expect(String(refused)).not.toContain("secret");
  expect(withoutSecrets("nonsense")).toBe("the given address");
  expect(withoutSecrets("redis://host:6379/2?password=secret&db=1")).toBe("redis://host:6379/2?password=***&db=1");
});
