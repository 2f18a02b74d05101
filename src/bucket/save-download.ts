/** Stores a download in a bucket and says what was stored. */

import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { type Bucket, BucketError } from "./bucket.ts";
import type { Download } from "./download.ts";

export type SavedFile = {
  readonly bytes: number;
  /** Of the bytes as they went by on their way into the bucket; lower-case hexadecimal. */
  readonly sha256: string;
  readonly contentType: string;
};

/**
 * Streams a download under a key, with bounded memory. If either side fails or `signal` aborts, the key is as it was,
 * the download's connection is closed, and the failing side's error is thrown (DownloadError or BucketError). So it is
 * where the store says that it holds other bytes: those are replaced by the next try.
 */
export async function saveDownload(
  bucket: Pick<Bucket, "putStream">,
  key: string,
  download: Download,
  signal: AbortSignal,
): Promise<SavedFile> {
  const contentType = download.contentType ?? "application/octet-stream";
  const hash = createHash("sha256");
  let bytes = 0;
  async function* measured(): AsyncGenerator<Buffer> {
    for await (const chunk of download.body as AsyncIterable<Buffer>) {
      hash.update(chunk);
      bytes += chunk.length;
      yield chunk;
    }
  }
  try {
    const stored = await bucket.putStream(key, Readable.from(measured(), { objectMode: false }), {
      contentType,
      signal,
      isOutput: true,
    });
    const sha256 = hash.digest("hex");
    if (stored.sha256 !== null && stored.sha256 !== sha256) {
      throw new BucketError("failed", `writing ${key} failed: the store holds other bytes than it was sent`);
    }
    return { bytes, sha256, contentType };
  } finally {
    download.body.destroy();
  }
}
