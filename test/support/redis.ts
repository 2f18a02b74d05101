/**
 * Vitest's `test` with one private Redis per file, closed by itself.
 *
 *     import { test } from "../support/redis.ts";
 *     test("a sentence", async ({ redis }) => { … redis.url … });
 */

import { test as base } from "vitest";
import { startTestRedis } from "./redis-server.ts";

// oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
export const test = base.extend("redis", { scope: "file" }, async ({}, { onCleanup }) => {
  const redis = await startTestRedis();
  onCleanup(() => redis.close());
  return redis;
});
