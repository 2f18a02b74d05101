/**
 * What people write next: a BullMQ worker that holds a slot for each prediction, a hundred at once, with the official
 * client's `run()` in its processor and three attempts.
 *
 *     node queue-worker.ts BASE_URL REDIS_URL FOLDER
 */

import { Worker } from "bullmq";
import type { Item } from "../items.ts";
import { openOfficialClient } from "./client.ts";
import { keep } from "./keep.ts";

export const QUEUE = "predictions";

if (import.meta.main) {
  const [baseUrl = "", redisUrl = "", folder = ""] = process.argv.slice(2);
  const replicate = openOfficialClient(baseUrl);
  const worker = new Worker<Item>(
    QUEUE,
    async ({ data: { id, model, input } }) => {
      await keep(folder, id, await replicate.run(model as `${string}/${string}`, { input }));
    },
    { connection: { url: redisUrl }, concurrency: 100 },
  );
  worker.on("failed", (job, error) => console.error(`${job?.data.id}: ${error.message}`));
}
