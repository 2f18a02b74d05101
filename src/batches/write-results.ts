/** `results.jsonl`: what became of a batch, a line an item, streamed into the bucket. */

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { OBJECT_KEYS } from "../core/naming.ts";
import type { BatchStanding } from "../ledger/ledger.ts";
import { type ResultsSource, readResults } from "./read-results.ts";

export async function writeResults(
  source: ResultsSource,
  { batch }: BatchStanding,
  signal: AbortSignal,
): Promise<{ readonly bytes: number; readonly sha256: string }> {
  const hash = createHash("sha256");
  let bytes = 0;
  async function* lines() {
    for await (const result of readResults(source, batch)) {
      const line = Buffer.from(`${JSON.stringify(result)}\n`);
      hash.update(line);
      bytes += line.length;
      yield line;
    }
  }
  await source.bucket.putStream(OBJECT_KEYS.results(batch.id), Readable.from(lines(), { objectMode: false }), {
    contentType: "application/x-ndjson",
    signal,
  });
  return { bytes, sha256: hash.digest("hex") };
}
