/** An S3 server for tests: the local one, on loopback, its data in a temporary folder. */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { S3Settings } from "../../src/bucket/s3-client.ts";
import { LOCAL_S3_PATH, startLocalS3 } from "../../src/embedded/local-s3.ts";

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
  const bucket = "blobs";
  const credentials = { accessKeyId: "test-key", secretAccessKey: "test-secret" };
  const host = "127.0.0.1";
  const server = await startLocalS3({ host, publicHost: host, port: 0, folder, bucket, credentials });
  return {
    bucket,
    settings: { endpoint: `http://${host}:${server.port}${LOCAL_S3_PATH}`, region: "auto", credentials },
    stop: async () => {
      await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
