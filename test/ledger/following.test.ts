import { expect } from "vitest";
import { REDIS_KEYS } from "../../src/core/naming.ts";
import { bucketOf } from "../../src/core/run-times.ts";
import { DAY, SECOND } from "../../src/core/time.ts";
import { ACCOUNT, NOON, test } from "../support/stages.ts";

test("run times are counted by model and day, and read of today and yesterday", async ({ line }) => {
  await line.clear();
  const { ledger } = line;
  await ledger.learnRun(ACCOUNT, "a/b", 5 * SECOND, NOON - 2 * DAY);
  await ledger.learnRun(ACCOUNT, "a/b", 5 * SECOND, NOON - DAY);
  await ledger.learnRun(ACCOUNT, "a/b", 5 * SECOND, NOON);
  await ledger.learnRun(ACCOUNT, "a/b", 9 * SECOND, NOON);
  await ledger.learnRun(ACCOUNT, "strange name\n7", SECOND, NOON);
  expect(await ledger.runCounts(ACCOUNT, NOON)).toEqual(
    new Map([
      [
        "a/b",
        new Map([
          [bucketOf(5 * SECOND), 2],
          [bucketOf(9 * SECOND), 1],
        ]),
      ],
      ["strange name\n7", new Map([[bucketOf(SECOND), 1]])],
    ]),
  );
  expect(await line.redis.ttl(REDIS_KEYS.runs(ACCOUNT, NOON / DAY - 0.5))).toBeGreaterThan(0);
});

test("so many models that their counts would grow without bound are counted together", async ({ line }) => {
  await line.clear();
  const { ledger } = line;
  for (let n = 0; n < 2_100; n++) await ledger.learnRun(ACCOUNT, `model ${n}`, SECOND, NOON);
  await ledger.learnRun(ACCOUNT, "x".repeat(10_000), SECOND, NOON);
  const counts = await ledger.runCounts(ACCOUNT, NOON);
  expect(counts.size).toBe(2_001);
  expect(counts.get("")).toEqual(new Map([[bucketOf(SECOND), 101]]));
  expect(counts.get("model 0"), "what is known stays known").toEqual(new Map([[bucketOf(SECOND), 1]]));
});
