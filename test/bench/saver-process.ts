/**
 * Saves files as a process of its own, in one of several ways, so many at once:
 *
 *   ours       as the stages copy and record do: streamed with length and SHA-256, then the receipt, once
 *   socket     from the socket to a file, nothing else: what the machine can do
 *   buffered   the usual recipe: fetch, the whole body in memory, then one write or one PutObject
 *
 * `flush`: what goes to a file is on the disk before the next begins, as ours always is. Told to save, it answers when all
 * is saved.
 */

import { createWriteStream } from "node:fs";
import { mkdir, open, writeFile } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { Agent, request } from "undici";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { copyOutput } from "../../src/bucket/copy-output.ts";
import { openDownloadAgent } from "../../src/bucket/download-agent.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { writeReceipt } from "../../src/bucket/records.ts";
import { openS3Bucket } from "../../src/bucket/s3-bucket.ts";
import { type AttemptRef, batchIdFrom, parseAccountName } from "../../src/core/naming.ts";
import { buildReceipt } from "../../src/core/receipt.ts";

export type Way = "ours" | "socket" | "buffered";

export type S3Place = {
  readonly bucket: string;
  readonly endpoint: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
};

export type SaveOrder = {
  readonly kind: "save";
  readonly way: Way;
  readonly flush: boolean;
  readonly urls: readonly string[];
  readonly atOnce: number;
  /** A folder, or a bucket of S3. */
  readonly to: { readonly folder: string } | S3Place;
};

export type Saved = { readonly kind: "saved"; readonly tookMs: number; readonly error: string | null };

type Save = (url: string, n: number) => Promise<void>;

process.channel?.ref(); // the parent is what it lives for
process.once("disconnect", () => process.exit());
process.on("message", (message: SaveOrder | { readonly kind: string }) => {
  if (!("urls" in message)) return;
  run(message).then(
    (tookMs) => tell({ kind: "saved", tookMs, error: null }),
    (error: unknown) => tell({ kind: "saved", tookMs: Number.NaN, error: String(error) }),
  );
});

function tell(saved: Saved): void {
  process.send?.(saved);
}

async function run(order: SaveOrder): Promise<number> {
  const save = await openWay(order);
  const startMs = performance.now();
  const waiting = order.urls.entries();
  // As p-limit does: so many at once, the next as soon as one is done.
  await Promise.all(
    Array.from({ length: order.atOnce }, async () => {
      for (const [n, url] of waiting) await save(url, n);
    }),
  );
  return performance.now() - startMs;
}

async function openWay({ way, flush, to, urls }: SaveOrder): Promise<Save> {
  if (way === "ours") return openOurs(to, new URL(urls[0] ?? "").host);
  if ("folder" in to) {
    await mkdir(to.folder, { recursive: true });
    return way === "socket" ? socketToFile(to.folder, flush) : bufferedToFile(to.folder, flush);
  }
  return bufferedToS3(to);
}

async function openOurs(to: SaveOrder["to"], host: string): Promise<Save> {
  const bucket: Bucket =
    "folder" in to ? await openFileBucket(to.folder) : await openS3Bucket({ ...to, prefix: "ours" });
  const agent = openDownloadAgent({ hosts: [parseHostRule(host)] });
  const account = parseAccountName("replicate");
  if (account === null) throw new TypeError("replicate is an account's name");
  const batch = batchIdFrom(crypto.getRandomValues(new Uint8Array(20)));
  const { signal } = new AbortController();
  return async (url, index) => {
    const ref: AttemptRef = { account, batch, index, attempt: 1 };
    const options = { agent, maxBytes: Number.MAX_SAFE_INTEGER };
    const copied = await copyOutput(bucket, ref, { n: 0, url }, options, signal);
    const receipt = buildReceipt({
      ref,
      rowId: null,
      replyTo: null,
      webhookEvents: [],
      predictionId: "p",
      claimedAtMs: Date.now(),
      recordedAtMs: Date.now(),
      ending: { end: "saved", error: null, answer: null, copied: [copied] },
      earlier: [],
    });
    await writeReceipt(bucket, ref, receipt);
  };
}

function socketToFile(folder: string, flush: boolean): Save {
  const dispatcher = new Agent({ connections: 64 });
  return async (url, n) => {
    const { body } = await request(url, { dispatcher });
    await pipeline(body, createWriteStream(path.join(folder, `${n}.png`), { flush }));
  };
}

function bufferedToFile(folder: string, flush: boolean): Save {
  return async (url, n) => {
    const body = Buffer.from(await (await fetch(url)).arrayBuffer());
    await writeFile(path.join(folder, `${n}.png`), body, { flush });
    if (!flush) return;
    const names = await open(folder);
    await names.sync();
    await names.close();
  };
}

function bufferedToS3({ bucket, endpoint, credentials }: S3Place): Save {
  const client = new S3Client({ endpoint, credentials, region: "auto", forcePathStyle: true });
  return async (url, n) => {
    const body = Buffer.from(await (await fetch(url)).arrayBuffer());
    await client.send(
      new PutObjectCommand({ Bucket: bucket, Key: `buffered/${n}.png`, Body: body, ContentType: "image/png" }),
    );
  };
}
