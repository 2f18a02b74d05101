/** An S3 server for tests: miniflare's local R2 on loopback, with signatures enforced, its data in a temporary folder. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Miniflare } from "miniflare";
import type { S3Settings } from "../../src/bucket/s3-bucket.ts";

export type S3Server = {
  /** The bucket that exists there; no other does. */
  readonly bucket: string;
  /** What `openS3Bucket` needs to reach it. */
  readonly settings: S3Settings & {
    readonly endpoint: string;
    readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  };
  stop(): Promise<void>;
};

export async function startS3Server(): Promise<S3Server> {
  const folder = await mkdtemp(join(tmpdir(), "outlast-s3-"));
  const credentials = { accessKeyId: "test-key", secretAccessKey: "test-secret" };
  const miniflare = new Miniflare({
    host: "127.0.0.1",
    port: 0,
    modules: true,
    script: "export default { fetch() { return new Response('here'); } };",
    cf: false,
    r2Persist: folder,
    r2Buckets: { BLOBS: { id: "blobs", s3Credentials: credentials } },
  });
  const url = await miniflare.ready;
  return {
    bucket: "blobs",
    settings: { endpoint: `http://127.0.0.1:${url.port}/cdn-cgi/local/r2/s3`, region: "auto", credentials },
    stop: async () => {
      await miniflare.dispose();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
