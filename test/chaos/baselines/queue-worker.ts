/**
 * What people write next: a BullMQ worker that holds a slot for each prediction, a hundred at once, with the official
 * client's `run()` in its processor and three attempts.
 *
 *     node queue-worker.ts BASE_URL REDIS_URL FOLDER [CREATES_PER_MINUTE [block|poll]]
 */

import { Worker } from "bullmq";
import type { Item } from "../items.ts";
import { openOfficialClient, waitOf } from "./client.ts";
import { keep } from "./keep.ts";

export const QUEUE = "predictions";

if (import.meta.main) {
  const [baseUrl = "", redisUrl = "", folder = "", perMinute, mode = "block"] = process.argv.slice(2);
  const replicate = openOfficialClient(baseUrl);
  const worker = new Worker<Item>(
    QUEUE,
    async ({ data: { id, model, input } }) => {
      await keep(folder, id, await replicate.run(model as `${string}/${string}`, { input, wait: waitOf(mode) }));
    },
    {
      connection: { url: redisUrl },
      concurrency: 100,
      ...(perMinute !== undefined && { limiter: { max: 1, duration: 60_000 / Number(perMinute) } }),
    },
  );
  worker.on("failed", (job, error) => console.error(`${job?.data.id}: ${error.message}`));
}
