/** The copy stage as a worker runs it, on buckets that refuse: a real queue, real sockets, a real full disk. */

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmdirSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type RequestListener, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Writable } from "node:stream";
import { pino } from "pino";
import { describe, expect, onTestFinished } from "vitest";
import { reportAccount } from "../../src/batches/report-account.ts";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { openS3Bucket } from "../../src/bucket/s3-bucket.ts";
import { type AttemptRef, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { answerOf } from "../../src/core/receipt.ts";
import { HOUR, SECOND } from "../../src/core/time.ts";
import { feedBatches } from "../../workers/feed-batches.ts";
import { copy } from "../../workers/saving-consumers.ts";
import { feedEffects } from "../support/effects.ts";
import { ACCOUNT, type Line, predictionOf, test } from "../support/stages.ts";

const FILE_BYTES = 100_000;
const ITEMS = 12;
const PUBLIC_URL = "https://files.example/outputs";
const JPEG = Buffer.alloc(FILE_BYTES, "x");
JPEG.set([0xff, 0xd8, 0xff, 0xe0]);

async function listen(handler: RequestListener): Promise<string> {
  const server: Server = createServer(handler);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return `127.0.0.1:${address.port}`;
}

const serveJpeg: RequestListener = (_request, response) => {
  response.writeHead(200, { "content-type": "image/jpeg", "content-length": FILE_BYTES });
  response.end(JPEG);
};

/** Items whose predictions have succeeded, and a worker that copies their files; what it logs. */
async function startCopying(line: Line, bucket: Bucket, serve: RequestListener = serveJpeg) {
  const host = await listen(serve);
  const batch = await line.submit(Array.from({ length: ITEMS + 20 }, (_, n) => ({ prompt: `${n}` })));
  const refs = Array.from(
    { length: ITEMS },
    (_, index): AttemptRef => ({ account: ACCOUNT, batch, index, attempt: 1 }),
  );
  await line.ledger.advance(ACCOUNT, batch, { before: 0, after: ITEMS }, refs, Date.now());
  for (const ref of refs) {
    await line.ledger.move(ref, "claim", { nowMs: Date.now(), nonce: "n" });
    await line.ledger.move(ref, "bind", { nowMs: Date.now(), predictionId: predictionId(`p${ref.index}`) });
    const output = `http://${host}/${ref.index}.jpg`;
    const answer = answerOf(predictionOf(`p${ref.index}`, { status: "succeeded", output }));
    const ending = await keepEnding(bucket, ref, { end: "saved", error: null, answer, copied: [] });
    await line.ledger.move(ref, "succeed", { nowMs: Date.now(), set: { ending } });
    await line.ledger.noteUnsaved(ref, Date.now() + HOUR + ref.index * SECOND);
    await line.queues.copy(ref, Date.now() + HOUR + ref.index * SECOND);
  }
  const logged: { level: number; msg: string }[] = [];
  const log = pino(
    { level: "info" },
    new Writable({
      write(chunk: Buffer, _encoding, done) {
        logged.push(JSON.parse(chunk.toString()) as (typeof logged)[number]);
        done();
      },
    }),
  );
  const { redis, ledger, queues } = line;
  // Nothing is refused here, so nobody is asked again.
  const gate = { enter: async () => ({ waitMs: 0, leave: async () => undefined }), takeRead: async () => 0 };
  const speak = { get: async (id: string) => predictionOf(id, {}) };
  const accounts = [{ name: ACCOUNT, fileToken: { token: "t", hosts: [] }, speak, gate }];
  const config = { publicBucketUrl: PUBLIC_URL };
  const consumer = copy({ bucket, redis, ledger, queues, accounts, config, outputHosts: [parseHostRule(host)] }, log);
  onTestFinished(() => consumer.close());
  const states = async () => {
    const items = await line.ledger.readStates(ACCOUNT, batch, 0, ITEMS);
    return { copying: items.filter(({ state }) => state === "copying").length, items };
  };
  return { logged, states, batch };
}

const feed = (line: Line) => feedBatches({ account: ACCOUNT }, { ...feedEffects(line, 60), clock: Date.now });
const report = (line: Line) => reportAccount(ACCOUNT, { ...line, clock: Date.now });

/** While `faulty`, nothing is saved or bought and one line says why; then all is saved by itself. */
async function expectHeldAndMended(line: Line, bucket: Bucket, why: RegExp, mend: () => Promise<void>): Promise<void> {
  const { logged, states, batch } = await startCopying(line, bucket);
  await expect.poll(async () => (await line.ledger.bucketBreaker()).state, { timeout: 20_000 }).toBe("open");
  await feed(line);
  expect(await line.jobs(QUEUE_NAMES.create(ACCOUNT))).toEqual([]);
  expect((await report(line)).saving).toMatchObject({
    held: expect.stringMatching(why),
    bucket: { reason: expect.stringMatching(why) },
    copies: ITEMS,
    oldest_unsaved: { expires_at: expect.any(String), bought_at: expect.any(String) },
  });
  expect((await states()).copying).toBe(ITEMS);
  await mend();
  await expect.poll(async () => (await states()).copying, { timeout: 60_000 }).toBe(0);
  await expect.poll(async () => (await line.ledger.bucketBreaker()).state).toBe("closed");

  expect(logged.filter(({ level }) => level >= 50).map(({ msg }) => msg)).toEqual([
    expect.stringMatching(new RegExp(`^the bucket takes no files: .*${why.source}.*Nothing more is bought`, "s")),
  ]);
  expect(logged.filter(({ msg }) => msg === "the bucket takes files again")).toHaveLength(1);
  expect(logged, "nothing is said of each file").toHaveLength(2);
  expect(await line.jobs(QUEUE_NAMES.copy)).toEqual([]);
  expect((await report(line)).saving).toMatchObject({ oldest_unsaved: null, copies: 0, records: ITEMS });
  await feed(line);
  expect((await line.jobs(QUEUE_NAMES.create(ACCOUNT))).length).toBeGreaterThan(0);
  expect((await line.ledger.accountHolds(ACCOUNT)).held).toBeNull();
  const { fields } = await line.ledger.readItem({ account: ACCOUNT, batch, index: 3 });
  expect(fields.ending, "others read it there").toContain(
    `"${PUBLIC_URL}/batches/${batch}/items/00000003/output-0.jpg"`,
  );
  for await (const { key, bytes } of bucket.list(`batches/${batch}/items/`)) {
    if (key.endsWith(".jpg")) expect(bytes).toBe(FILE_BYTES);
  }
}

test("a copy that is refused and waits isn't counted as a save", async ({ line }) => {
  await line.clear();
  const folder = await mkdtemp(join(tmpdir(), "outlast-refused-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const { states } = await startCopying(line, await openFileBucket(folder), (_request, response) => {
    response.writeHead(404).end();
  });
  const busyMs = async () => {
    const minutes = await line.ledger.savingMinutes(Date.now());
    return minutes.reduce((sum, minute) => sum + minute.busyMs, 0);
  };
  await expect.poll(busyMs, { timeout: 10_000 }).toBeGreaterThan(0);
  expect((await states()).copying).toBe(ITEMS);
  expect((await report(line)).saving.saves_per_minute).toBe(0);
});

describe("while the bucket refuses, copies wait, nothing is bought, and one line says why:", () => {
  for (const [status, code, why] of [
    [503, "SlowDown", /SlowDown, HTTP 503/],
    [403, "AccessDenied", /AccessDenied, HTTP 403.*check the credentials/],
  ] as const) {
    test(`S3 that answers ${status} ${code}`, { timeout: 120_000 }, async ({ line }) => {
      await line.clear();
      let faulty = true;
      let puts = 0;
      const host = await listen((request, response) => {
        request.resume().on("end", () => {
          if (request.method !== "PUT") {
            response.writeHead(200, { "content-type": "application/xml" });
            return response.end("<ListBucketResult></ListBucketResult>");
          }
          if (!faulty) {
            puts++;
            return response.writeHead(200, { etag: `"${puts}"` }).end();
          }
          response.writeHead(status, { "content-type": "application/xml" });
          return response.end(`<Error><Code>${code}</Code><Message>no</Message></Error>`);
        });
      });
      const bucket = await openS3Bucket({
        bucket: "blobs",
        endpoint: `http://${host}`,
        credentials: { accessKeyId: "key", secretAccessKey: "secret" },
        attempts: 1,
      });
      onTestFinished(() => bucket.close());
      await expectHeldAndMended(line, bucket, why, async () => {
        faulty = false;
      });
      expect(puts).toBe(ITEMS);
    });
  }

  test.skipIf(!canMount())("a folder whose disk is full (a small tmpfs)", { timeout: 120_000 }, async ({ line }) => {
    await line.clear();
    const folder = await mkdtemp(join(tmpdir(), "outlast-full-"));
    mount(folder, "4m");
    onTestFinished(async () => {
      execFileSync("umount", ["--lazy", folder]);
      await rm(folder, { recursive: true, force: true });
    });
    const filler = join(folder, "filler");
    const bucket = await openFileBucket(join(folder, "bucket"));
    // To the last byte: what doesn't fit is what fills it.
    await expect(writeFile(filler, Buffer.alloc(8 * 1024 * 1024))).rejects.toThrow(/ENOSPC/);
    await expectHeldAndMended(line, bucket, /the disk is full; make room there/, () => rm(filler));
  });
});

function mount(folder: string, size: string): void {
  execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder], { stdio: "ignore" });
}

/** Only who may mount can fill a disk of its own; others' disks aren't filled. */
function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "outlast-mount-"));
  try {
    mount(folder, "64k");
    execFileSync("umount", [folder], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  } finally {
    rmdirSync(folder);
  }
}
