/** The batches that a bucket has, in the order of their ids: a list of one object each, however many a batch has. */

import { type BatchId, OBJECT_KEYS, parseBatchId } from "../core/naming.ts";
import type { Bucket } from "./bucket.ts";

export async function* listBatchIds(bucket: Bucket): AsyncGenerator<BatchId> {
  let after = "";
  for (;;) {
    let folder: string | null = null;
    for await (const { key } of bucket.list(OBJECT_KEYS.batches, after === "" ? {} : { after })) {
      folder = key.slice(OBJECT_KEYS.batches.length).split("/", 1)[0] ?? "";
      break;
    }
    if (folder === null) return;
    const id = parseBatchId(folder);
    if (id !== null) yield id;
    // The character behind «/»: so all that begins with the folder is left out.
    after = `${OBJECT_KEYS.batches}${folder}0`;
  }
}
