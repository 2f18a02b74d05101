/**
 * An S3 server for whoever has none: miniflare's local R2 with one bucket, signatures enforced, its objects in a folder.
 * Tests start it, and `docker-compose.yml` runs this file as its service `s3`:
 *
 *     node local-s3.ts --host 0.0.0.0 --public-host s3 --port 7820 --folder /data --bucket outlast
 *
 * with the one accepted pair of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, until a signal ends it.
 *
 * miniflare is a dev dependency, and the only package named here: the image of that service holds nothing else.
 */

import { parseArgs } from "node:util";
import { Miniflare } from "miniflare";

export type LocalS3Options = {
  readonly host: string;
  /** The name by which others reach it. Beside it the names of loopback are answered, and no other. */
  readonly publicHost: string;
  /** 0: any free one. */
  readonly port: number;
  /** Where the objects lie; they are there again after a restart. */
  readonly folder: string;
  /** The bucket that exists; no other does. */
  readonly bucket: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
};

export type LocalS3 = {
  readonly port: number;
  stop(): Promise<void>;
};

/** What stands behind host and port in the address of its S3 API. */
export const LOCAL_S3_PATH = "/cdn-cgi/local/r2/s3";

export async function startLocalS3(options: LocalS3Options): Promise<LocalS3> {
  const { host, publicHost, port, folder, bucket, credentials } = options;
  const miniflare = new Miniflare({
    host,
    port,
    modules: true,
    script: "export default { fetch() { return new Response('here'); } };",
    routes: [`${publicHost}/*`], // a name that no route has gets a 403
    cf: false,
    r2Persist: folder,
    r2Buckets: { OBJECTS: { id: bucket, s3Credentials: credentials } },
  });
  const url = await miniflare.ready;
  return { port: Number(url.port), stop: () => miniflare.dispose() };
}

if (import.meta.main) {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: { host: text, "public-host": text, port: text, folder: text, bucket: text },
  });
  const { host = "127.0.0.1", "public-host": publicHost = host, port = "0", folder, bucket } = values;
  const { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey } = process.env;
  if (!folder || !bucket || !accessKeyId || !secretAccessKey) {
    throw new Error("name --folder and --bucket, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
  }
  const credentials = { accessKeyId, secretAccessKey };
  const server = await startLocalS3({ host, publicHost, port: Number(port), folder, bucket, credentials });
  console.error(`the bucket ${bucket} is at http://${publicHost}:${server.port}${LOCAL_S3_PATH}`);
}
