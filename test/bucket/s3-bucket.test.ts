import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Readable } from "node:stream";
import { PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { test as base, describe, expect } from "vitest";
import { type Bucket, BucketError } from "../../src/bucket/bucket.ts";
import { checkBucket } from "../../src/bucket/check-bucket.ts";
import type { Download } from "../../src/bucket/download.ts";
import { openS3Bucket } from "../../src/bucket/s3-bucket.ts";
import type { S3Settings } from "../../src/bucket/s3-client.ts";
import { saveDownload } from "../../src/bucket/save-download.ts";
import { type S3Server, startS3Server } from "../support/s3-server.ts";
import { bucketSuite } from "./bucket-suite.ts";
import { s3UnderTest } from "./s3-under-test.ts";
import { startTcpProxy, type TcpProxy } from "./tcp-proxy.ts";

const TEXT = { contentType: "text/plain" };
const MEGABYTE = 1024 * 1024;

bucketSuite("S3 by miniflare", async () => {
  const server = await startS3Server();
  const proxy = await startTcpProxy(Number(new URL(server.settings.endpoint).port));
  const stop = async (): Promise<void> => {
    await proxy.close();
    await server.stop();
  };
  // This server can't list its unfinished uploads, so we count those begun and not ended.
  return s3UnderTest({ ...behind(proxy, server), stop }, async () => {
    const begun = proxy.lines.filter((line) => /^POST .*[?&]uploads\b/.test(line));
    const ended = proxy.lines.filter((line) => /^(POST|DELETE) .*[?&]uploadId=/.test(line));
    return begun.slice(ended.length);
  });
});

function behind(proxy: TcpProxy, server: S3Server): S3Server {
  const endpoint = new URL(server.settings.endpoint);
  endpoint.port = String(proxy.port);
  return { ...server, settings: { ...server.settings, endpoint: endpoint.href } };
}

type Answering = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;
type FakeS3 = { readonly endpoint: string; readonly requests: IncomingMessage[] };

const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("server", { scope: "file" }, async ({}, { onCleanup }) => {
    const server = await startS3Server();
    onCleanup(() => server.stop());
    return server;
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("fakeS3", async ({}, { onCleanup }) => {
    const closers: (() => void)[] = [];
    onCleanup(() => {
      for (const close of closers) close();
    });
    return async (answering: Answering): Promise<FakeS3> => {
      const requests: IncomingMessage[] = [];
      const server = createServer((request, response) => {
        requests.push(request);
        const chunks: Buffer[] = [];
        request.on("data", (chunk: Buffer) => chunks.push(chunk));
        request.on("end", () => answering(request, response, Buffer.concat(chunks)));
      });
      const sockets = new Set<Socket>();
      server.on("connection", (socket) => sockets.add(socket));
      closers.push(() => {
        server.close();
        for (const socket of sockets) socket.destroy();
      });
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("no port");
      return { endpoint: `http://127.0.0.1:${address.port}`, requests };
    };
  });

const CREDENTIALS = { accessKeyId: "an-access-key", secretAccessKey: "a-very-secret-word" };

async function openAt(endpoint: string, settings: S3Settings = {}): Promise<Bucket> {
  return openS3Bucket({
    endpoint,
    region: "auto",
    credentials: CREDENTIALS,
    bucket: "blobs",
    prefix: "p",
    ...settings,
  });
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { "content-type": "application/xml" });
  response.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>no\nand more</Message></Error>`);
}

/** Every operation; each rejects with what a person should read. */
async function refusalsOf(bucket: Bucket): Promise<BucketError[]> {
  const calls = [
    bucket.put("a.txt", "x", TEXT),
    bucket.putOnce("a.txt", "x", TEXT),
    bucket.putStream("a.txt", Readable.from([Buffer.from("x")], { objectMode: false }), TEXT),
    bucket.get("a.txt", { maxBytes: 10 }),
    bucket.getRange("a.txt", 0, 1),
    bucket.getStream("a.txt"),
    Array.fromAsync(bucket.list("")),
    bucket.delete("a.txt"),
  ];
  const ended = await Promise.allSettled(calls);
  return ended.map((end) => {
    if (end.status === "rejected" && end.reason instanceof BucketError) return end.reason;
    throw new Error("no BucketError", { cause: end.status === "rejected" ? end.reason : end.value });
  });
}

function expectOneLineEach(errors: readonly BucketError[], ...words: readonly string[]): void {
  for (const error of errors) {
    expect(error.message).toMatch(/^[^\n]{20,400}$/);
    for (const word of words) expect(error.message).toContain(word);
    const everything = `${JSON.stringify(error)} ${String(error.stack)} ${String(error.cause)} ${JSON.stringify(error.cause)}`;
    expect(everything).not.toContain(CREDENTIALS.secretAccessKey);
    expect(everything).not.toContain("Signature=");
  }
}

describe("an S3 bucket that can't be used says why in one line", () => {
  test("with wrong credentials", async ({ server }) => {
    const bucket = await openAt(server.settings.endpoint);
    const errors = await refusalsOf(bucket);
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["denied"]));
    expectOneLineEach(errors, "s3://blobs/p/", new URL(server.settings.endpoint).origin, "check the credentials");
    await bucket.close();
  });

  test("with a bucket that doesn't exist", async ({ server }) => {
    const bucket = await openS3Bucket({ ...server.settings, bucket: "no-such" });
    const errors = (await refusalsOf(bucket).catch((error: unknown) => error)) as BucketError[];
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["missing-bucket"]));
    expectOneLineEach(errors, "no bucket no-such", "OUTLAST_BUCKET");
    await bucket.close();
  });

  test("with nobody at the endpoint", async ({ fakeS3 }) => {
    const { endpoint } = await fakeS3((request) => request.socket.destroy());
    const bucket = await openAt(endpoint, { attempts: 2 });
    const errors = await refusalsOf(bucket);
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["unreachable"]));
    expectOneLineEach(errors, endpoint, "OUTLAST_S3_ENDPOINT");
    await bucket.close();

    const nowhere = await openAt("http://127.0.0.1:1", { attempts: 1 });
    expectOneLineEach(await refusalsOf(nowhere), "ECONNREFUSED");
    await nowhere.close();
  });

  test("with a store that takes requests and stays silent", async ({ fakeS3 }) => {
    const { endpoint } = await fakeS3(() => {});
    const bucket = await openAt(endpoint, { attempts: 1, requestTimeoutMs: 150 });
    const errors = await refusalsOf(bucket);
    expect(new Set(errors.map(({ code }) => code))).toEqual(new Set(["unreachable"]));
    await bucket.close();
  });

  test("with a store in trouble, after a bounded number of attempts", async ({ fakeS3 }) => {
    const { endpoint, requests } = await fakeS3((_request, response) => refuse(response, 503, "SlowDown"));
    const bucket = await openAt(endpoint, { attempts: 2 });
    const error: unknown = await bucket.put("a.txt", "x", TEXT).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "unreachable" });
    expectOneLineEach([error as BucketError], "s3://blobs/p/a.txt", "SlowDown");
    expect(requests).toHaveLength(2);
    await bucket.close();
  });

  test("to the check too, which then tries nothing else", async ({ server }) => {
    const bucket = await openAt(server.settings.endpoint);
    const report = await checkBucket(bucket);
    expect(report.ok).toBe(false);
    expect(report.findings).toEqual([
      { check: "write", ok: false, sentence: expect.stringMatching(/^Writing s3:\/\/blobs\/p\/.*\.$/) },
    ]);
    await bucket.close();
  });

  test("before anything is sent where the endpoint is no address", async () => {
    await expect(openAt("minio:9000")).rejects.toMatchObject({ name: "BucketError" });
  });
});

describe("putting once", () => {
  test("answers that it won although the store's answer was lost", async ({ server, onTestFinished }) => {
    const proxy = await startTcpProxy(Number(new URL(server.settings.endpoint).port));
    onTestFinished(() => proxy.close());
    const bucket = await openS3Bucket({ ...behind(proxy, server).settings, bucket: server.bucket, prefix: "lost" });
    proxy.loseAnswerTo(/^PUT .*a\.json/);
    expect(await bucket.putOnce("a.json", "mine", TEXT)).toBe(true);
    expect(proxy.lines.filter((line) => line.startsWith("PUT")).length).toBe(2);
    expect(await bucket.putOnce("a.json", "another", TEXT)).toBe(false);
    expect((await bucket.get("a.json", { maxBytes: 10 }))?.toString()).toBe("mine");
    await bucket.close();
  });

  test("is tried again while another write to the key is in progress", async ({ fakeS3 }) => {
    let conflicts = 2;
    const { endpoint, requests } = await fakeS3((_request, response) => {
      if (conflicts-- > 0) refuse(response, 409, "ConditionalRequestConflict");
      else response.writeHead(200, { etag: '"1"' }).end();
    });
    const bucket = await openAt(endpoint);
    expect(await bucket.putOnce("a.json", "x", TEXT)).toBe(true);
    expect(requests.map(({ headers }) => headers["if-none-match"])).toEqual(["*", "*", "*"]);
    await bucket.close();
  });

  test("gives up in words when the conflict doesn't end", async ({ fakeS3 }) => {
    const { endpoint, requests } = await fakeS3((_request, response) =>
      refuse(response, 409, "ConditionalRequestConflict"),
    );
    const bucket = await openAt(endpoint);
    const error: unknown = await bucket.putOnce("a.json", "x", TEXT).catch((caught: unknown) => caught);
    expectOneLineEach([error as BucketError], "s3://blobs/p/a.json", "ConditionalRequestConflict");
    expect(requests.length).toBe(8);
    await bucket.close();
  });

  test("is found out by the check where the store ignores the condition", async ({ fakeS3 }) => {
    const stored = new Map<string, Buffer>();
    const { endpoint } = await fakeS3((request, response, body) => {
      const key = (request.url ?? "").split("?")[0] ?? "";
      if (request.method === "PUT") stored.set(key, body);
      const found = stored.get(key) ?? Buffer.alloc(0);
      response.writeHead(200, { "content-length": request.method === "GET" ? found.length : 0 });
      response.end(request.method === "GET" ? found : undefined);
    });
    const bucket = await openAt(endpoint);
    const once = (await checkBucket(bucket)).findings.find(({ check }) => check === "put-once");
    expect(once).toMatchObject({ ok: false, sentence: expect.stringContaining("pay twice") });
    await bucket.close();
  });
});

describe("a body from the store", () => {
  test("that is shorter than announced is an error", async ({ fakeS3 }) => {
    const { endpoint } = await fakeS3((_request, response) => {
      response.writeHead(200, { "content-length": 100, etag: '"1"' });
      response.write("only this");
      setImmediate(() => response.destroy());
    });
    const bucket = await openAt(endpoint);
    await expect(bucket.get("a.txt", { maxBytes: 1_000 })).rejects.toMatchObject({ code: "unreachable" });
    const stream = await bucket.getStream("a.txt");
    await expect(Array.fromAsync(stream ?? [])).rejects.toBeInstanceOf(Error);
    await bucket.close();
  });

  test("that stalls is an error", async ({ fakeS3 }) => {
    const { endpoint } = await fakeS3((_request, response) => {
      response.writeHead(200, { "content-length": 100, etag: '"1"' });
      response.write("only this");
    });
    const bucket = await openAt(endpoint, { requestTimeoutMs: 200 });
    await expect(bucket.get("a.txt", { maxBytes: 1_000 })).rejects.toMatchObject({ code: "unreachable" });
    const stream = await bucket.getStream("a.txt");
    await expect(Array.fromAsync(stream ?? [])).rejects.toBeInstanceOf(Error);
    await bucket.close();
  });

  test("that isn't the range asked for is an error", async ({ fakeS3 }) => {
    const { endpoint } = await fakeS3((_request, response) => response.end("0123456789"));
    const bucket = await openAt(endpoint);
    await expect(bucket.getRange("a.txt", 3, 4)).rejects.toMatchObject({ code: "failed" });
    await bucket.close();
  });
});

/** Takes what is put, in parts as well. */
const taking: Answering = (request, response) => {
  const { pathname, searchParams } = new URL(request.url ?? "", "http://x");
  response.setHeader("etag", '"1"');
  if (searchParams.has("uploads")) {
    response.end(
      `<?xml version="1.0"?><InitiateMultipartUploadResult><Bucket>blobs</Bucket><Key>${pathname}</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>`,
    );
  } else if (request.method === "POST") {
    response.end(
      `<?xml version="1.0"?><CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`,
    );
  } else response.end();
};

test("what the settings say goes with everything that is written, and the storage class with outputs alone", async ({
  fakeS3,
}) => {
  const { endpoint, requests } = await fakeS3(taking);
  const bucket = await openAt(endpoint, {
    objects: {
      storageClass: "STANDARD_IA",
      encryption: { algorithm: "aws:kms", keyId: "alias/outputs" },
      tags: { team: "images & sound", "cost/center": "7" },
      metadata: { project: "nightly" },
    },
  });
  await bucket.put("a.txt", "some words", TEXT);
  await bucket.putOnce("b.txt", "some words", TEXT);
  const small = () => Readable.from([Buffer.from("some words")], { objectMode: false });
  await bucket.putStream("input-0.jsonl", small(), TEXT);
  const output = { body: small(), contentType: "text/plain", extension: "txt", expectedBytes: null };
  await saveDownload(bucket, "c.txt", output, new AbortController().signal);
  const large = Readable.from([Buffer.alloc(9 * MEGABYTE)], { objectMode: false });
  await bucket.putStream("d.bin", large, { ...TEXT, isOutput: true });
  await bucket.close();

  const written = requests.filter(({ url = "" }) => !/partNumber|uploadId/.test(url));
  expect(written.map(({ method }) => method)).toEqual(["PUT", "PUT", "PUT", "PUT", "POST"]);
  for (const { headers } of written) {
    expect(headers).toMatchObject({
      "x-amz-server-side-encryption": "aws:kms",
      "x-amz-server-side-encryption-aws-kms-key-id": "alias/outputs",
      "x-amz-tagging": "team=images%20%26%20sound&cost%2Fcenter=7",
      "x-amz-meta-project": "nightly",
    });
  }
  expect(written.map(({ headers }) => headers["x-amz-storage-class"])).toEqual([
    undefined,
    undefined,
    undefined,
    "STANDARD_IA",
    "STANDARD_IA",
  ]);
});

describe("checksums", () => {
  const captured = async (fakeS3: (answering: Answering) => Promise<FakeS3>, checksums: boolean | undefined) => {
    const { endpoint, requests } = await fakeS3(taking);
    const bucket = await openAt(endpoint, { checksums });
    await bucket.put("a.txt", "some words", TEXT);
    await bucket.putOnce("b.txt", "some words", TEXT);
    const large = Readable.from([Buffer.alloc(9 * MEGABYTE)], { objectMode: false });
    await bucket.putStream("c.bin", large, TEXT);
    await bucket.close();
    return requests.filter(({ method }) => method === "PUT");
  };

  test("go with every body on the settings for AWS", async ({ fakeS3 }) => {
    const puts = await captured(fakeS3, true);
    expect(puts).toHaveLength(4); // two objects, two parts
    for (const { headers } of puts.slice(0, 2)) {
      expect(headers["x-amz-checksum-crc32"]).toMatch(/^[A-Za-z0-9+/]{6}==$/);
    }
    for (const { headers } of puts.slice(2)) {
      expect(headers["x-amz-checksum-sha256"]).toMatch(/^[A-Za-z0-9+/]{43}=$/);
    }
  });

  test("that the store computed are those of what was sent, or the file isn't saved", async ({ fakeS3 }) => {
    const sent = Buffer.from("\u0000 some bytes");
    const sha256 = createHash("sha256").update(sent);
    const stored = { right: sha256.copy().digest("base64"), wrong: createHash("sha256").digest("base64"), none: null };
    const download = (): Download => ({
      body: Readable.from([sent], { objectMode: false }),
      contentType: "image/png",
      extension: "png",
      expectedBytes: sent.length,
    });
    const { signal } = new AbortController();
    for (const [which, told] of Object.entries(stored)) {
      const { endpoint } = await fakeS3((_request, response) => {
        if (told !== null) response.setHeader("x-amz-checksum-sha256", told);
        response.setHeader("etag", '"1"').end();
      });
      const bucket = await openAt(endpoint, { checksums: true, attempts: 1 });
      const saving = saveDownload(bucket, "a.png", download(), signal);
      if (which === "wrong") await expect(saving).rejects.toThrow(/other bytes than it was sent/);
      else expect(await saving).toMatchObject({ bytes: sent.length, sha256: sha256.copy().digest("hex") });
      await bucket.close();
    }
  });

  test("don't with an endpoint, where many stores refuse them, but bodies are signed", async ({ fakeS3 }) => {
    const puts = await captured(fakeS3, undefined);
    expect(puts).toHaveLength(4);
    for (const { headers } of puts) {
      expect(Object.keys(headers).filter((name) => name.startsWith("x-amz-checksum"))).toEqual([]);
      expect(headers["content-encoding"]).toBeUndefined();
    }
    const sha256 = createHash("sha256").update("some words").digest("hex");
    expect(puts.slice(0, 2).map(({ headers }) => headers["x-amz-content-sha256"])).toEqual([sha256, sha256]);
  });
});

describe("the prefix", () => {
  test("keeps two buckets in one apart", async ({ server }) => {
    const open = async (prefix: string): Promise<Bucket> =>
      openS3Bucket({ ...server.settings, bucket: server.bucket, prefix });
    const [one, two, all] = [await open("one"), await open("one-two"), await open("")];
    await one.put("a.txt", "1", TEXT);
    await two.put("a.txt", "2", TEXT);
    expect(one.url).toBe("s3://blobs/one");
    expect(await Array.fromAsync(one.list(""))).toEqual([{ key: "a.txt", bytes: 1, contentType: null }]);
    expect((await Array.fromAsync(all.list("one"))).map(({ key }) => key)).toEqual(["one-two/a.txt", "one/a.txt"]);
    for (const bucket of [one, two, all]) await bucket.close();
  });

  test("hides what other tools left there under names that no key has", async ({ server }) => {
    const bucket = await openS3Bucket({ ...server.settings, bucket: server.bucket, prefix: "tools" });
    await bucket.put("a.txt", "x", TEXT);
    const { endpoint, credentials } = server.settings;
    const client = new S3Client({ endpoint, credentials, region: "auto", forcePathStyle: true });
    for (const Key of ["tools/", "tools/folder/"]) {
      await client.send(new PutObjectCommand({ Bucket: server.bucket, Key, Body: Buffer.from("x") }));
    }
    client.destroy();
    expect((await Array.fromAsync(bucket.list(""))).map(({ key }) => key)).toEqual(["a.txt"]);
    await bucket.close();
  });

  test("counts towards the longest key, and must be a legal key", async ({ server }) => {
    const open = async (prefix: string): Promise<Bucket> =>
      openS3Bucket({ ...server.settings, bucket: server.bucket, prefix });
    const bucket = await open("p".repeat(200));
    await expect(bucket.put(`${"k/".repeat(420)}k`, "x", TEXT)).rejects.toMatchObject({ code: "bad-key" });
    await expect(open("../x")).rejects.toMatchObject({ code: "bad-key" });
    await bucket.close();
  });
});
