/** The same line with an S3 store for a bucket, spoken to over the wire. */

import { expect, test, vi } from "vitest";
import { expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { startFleet } from "../support/fleet.ts";
import { startS3Server } from "../support/s3-server.ts";

test("a batch ends in an S3 bucket, its objects under the batch's prefix", async () => {
  const s3 = await startS3Server();
  // The SDK's own variables, for this process as for the workers.
  vi.stubEnv("AWS_ACCESS_KEY_ID", s3.settings.credentials.accessKeyId);
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", s3.settings.credentials.secretAccessKey);
  vi.stubEnv("AWS_REGION", "auto");
  try {
    await using fleet = await startFleet({
      env: {
        OUTLAST_BUCKET: `s3://${s3.bucket}/kept/here`,
        OUTLAST_S3_ENDPOINT: s3.settings.endpoint,
        AWS_ACCESS_KEY_ID: s3.settings.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: s3.settings.credentials.secretAccessKey,
        AWS_REGION: "auto",
      },
    });
    const batch = await submit(fleet, prompts(40));
    const worker = fleet.startWorker();
    await expect.poll(async () => (await report(fleet, batch)).state, { timeout: 60_000 }).toBe("finished");
    expect(await report(fleet, batch)).toMatchObject({ items: 40, saved: 40, unclear: 0 });
    await expectRightBytes(fleet, batch);

    const keys = await Array.fromAsync(fleet.services.bucket.list(`batches/${batch}/`), ({ key }) => key);
    expect(keys.filter((key) => key.endsWith("/receipt.json"))).toHaveLength(40);
    expect(keys.filter((key) => key.endsWith(".png"))).toHaveLength(40);
    expect(keys.filter((key) => !key.includes("/items/"))).toEqual(
      ["batch.json", "input-0.idx", "input-0.jsonl", "manifest.json", "results.jsonl", "windows/0.json"].map(
        (name) => `batches/${batch}/${name}`,
      ),
    );
    expect(fleet.services.bucket.urlOf("x")).toBe(`s3://${s3.bucket}/kept/here/x`);
    expect(await worker.stop()).toBe(0);
  } finally {
    vi.unstubAllEnvs();
    await s3.stop();
  }
});
