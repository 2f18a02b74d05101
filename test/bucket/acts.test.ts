/** What people decided, read back from the bucket. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate as turn } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { readBatchActs, writeBatchAct } from "../../src/bucket/acts.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { wrappedBucket } from "../../src/bucket/wrapped-bucket.ts";
import { batchNamed, NOON } from "../support/stages.ts";

test("acts come in the order in which they were decided, and many are read at once, though not all", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-acts-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const real = await openFileBucket(folder);
  const batch = batchNamed("acts");
  for (let n = 1; n <= 100; n++) await writeBatchAct(real, batch, n, { act: "cancel", items: [n] }, NOON - n);

  let [reading, most] = [0, 0];
  const bucket = wrappedBucket(real, {
    async get(key, options) {
      most = Math.max(most, ++reading);
      await turn();
      reading--;
      return real.get(key, options);
    },
  });
  const acts = await readBatchActs(bucket, batch);
  expect(acts.map(({ n }) => n)).toEqual(Array.from({ length: 100 }, (_, at) => 100 - at));
  expect(most).toBe(32);
});
