/** One output file, from its URL into the bucket. */

import { type AttemptRef, OBJECT_KEYS } from "../core/naming.ts";
import type { OutputFile } from "../core/outputs.ts";
import type { CopiedFile } from "../core/receipt.ts";
import type { Bucket } from "./bucket.ts";
import { type DownloadOptions, openDownload } from "./download.ts";
import { saveDownload } from "./save-download.ts";

/** Throws DownloadError where the file is the trouble, BucketError where the bucket is; then the object isn't there. */
export async function copyOutput(
  bucket: Bucket,
  ref: AttemptRef,
  file: OutputFile,
  options: DownloadOptions,
  signal: AbortSignal,
): Promise<CopiedFile> {
  const download = await openDownload(file.url, options, signal);
  const key = OBJECT_KEYS.output(ref.batch, ref.index, ref.attempt, file.n, download.extension);
  const { bytes, sha256, contentType } = await saveDownload(bucket, key, download, signal);
  return { from: file.url, key, url: bucket.urlOf(key), bytes, sha256, content_type: contentType };
}
