/**
 * The suite against Ceph's object gateway: `OUTLAST_TEST_CEPH=1`, with Debian's radosgw, ceph-mon, ceph-osd,
 * ceph-common.
 */

import { ListMultipartUploadsCommand, S3Client } from "@aws-sdk/client-s3";
import { test } from "vitest";
import { missingCephBinaries, startCeph } from "../support/ceph.ts";
import type { S3Server } from "../support/s3-server.ts";
import { bucketSuite } from "./bucket-suite.ts";
import { s3UnderTest } from "./s3-under-test.ts";

const wanted = process.env["OUTLAST_TEST_CEPH"] === "1";
const missing = wanted ? await missingCephBinaries() : [];

if (wanted && missing.length === 0) {
  bucketSuite("S3 by Ceph", async () => {
    const server = await startCeph();
    return s3UnderTest(server, async () => unfinishedUploads(server));
  });
} else {
  const why = wanted ? `not installed here: ${missing.join(", ")}` : "set OUTLAST_TEST_CEPH=1 to run it";
  test("the suite against Ceph", ({ skip }) => skip(why));
}

async function unfinishedUploads({ settings, bucket }: S3Server): Promise<string[]> {
  const { endpoint, credentials } = settings;
  const client = new S3Client({ endpoint, credentials, forcePathStyle: true, region: "us-east-1" });
  try {
    const answer = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket }));
    return (answer.Uploads ?? []).map(({ Key, UploadId }) => `${Key} ${UploadId}`);
  } finally {
    client.destroy();
  }
}
