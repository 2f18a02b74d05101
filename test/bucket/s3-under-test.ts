/** An S3 server as the suite wants it: two adapters over one prefix. */

import { openS3Bucket } from "../../src/bucket/s3-bucket.ts";
import type { S3Server } from "../support/s3-server.ts";
import type { BucketUnderTest } from "./bucket-suite.ts";

export async function s3UnderTest(
  server: S3Server,
  leftovers: () => Promise<readonly string[]>,
): Promise<BucketUnderTest> {
  const opened = { ...server.settings, bucket: server.bucket, prefix: "suite/of tests" };
  const bucket = await openS3Bucket(opened);
  const other = await openS3Bucket(opened);
  return {
    bucket,
    other,
    leftovers,
    stop: async () => {
      await bucket.close();
      await other.close();
      await server.stop();
    },
  };
}
