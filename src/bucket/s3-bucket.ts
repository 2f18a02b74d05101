/**
 * A bucket that is a prefix of an S3 bucket: AWS, or any store that passes `test/bucket`.
 *
 * What of S3 we lean on: a put is atomic; `If-None-Match: *` lets one of many writers win (`checkBucket` proves it
 * before a store is trusted with money records); keys list in the order of their UTF-8 bytes.
 *
 * AWS gets the SDK's defaults, which send a CRC32 with every body, and of a stream the SHA-256, which it computes as well and
 * answers: what is stored is then compared with what was sent. A custom endpoint gets checksums only where an
 * operation demands them, because many stores refuse the SDK's streamed ones; there, as everywhere, the signature
 * covers the SHA-256 of what we send over plain http.
 *
 * Deadlines: a request has `requestTimeoutMs` per attempt and at most four attempts; a socket that is silent for as
 * long is closed, so somebody who stops reading a `getStream` for that time loses it. Whatever fails is a BucketError
 * of one line with the address and the remedy; no error carries a header, a signature or a credential.
 */

import { randomUUID } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import {
  DeleteObjectCommand,
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type PutObjectCommandInput,
  S3Client,
  type S3ClientConfig,
  type StorageClass,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { MINUTE, SECOND } from "../core/time.ts";
import { type Bucket, BucketError, type ObjectInfo, type StreamOptions } from "./bucket.ts";
import { checkKey, checkPrefix, checkRange, keyFault } from "./keys.ts";
import type { ObjectSettings } from "./object-settings.ts";
import { namesNoKey, statusOf, translated, wasRefusedAsTaken } from "./s3-errors.ts";
import { withBody } from "./streamed-body.ts";

export type S3Settings = {
  /** Another store than AWS: `http://host:port` or https, with a path if it has one. */
  readonly endpoint?: string | undefined;
  /** Where unset, the SDK's own (AWS_REGION, profile); with an endpoint at last `us-east-1`. */
  readonly region?: string | undefined;
  /** Where unset, the SDK's own chain: environment, profile, container, machine. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string } | undefined;
  /** Checksums with every body. Where unset: yes on AWS, no with an endpoint. */
  readonly checksums?: boolean | undefined;
  /** How long one attempt of a request may take, and how long a socket may be silent. */
  readonly requestTimeoutMs?: number | undefined;
  /** First and later attempts of one request. */
  readonly attempts?: number | undefined;
  /** How objects are to be stored. */
  readonly objects?: ObjectSettings | undefined;
  /** How long all attempts of one request may take together, where no stream is written. Twice the timeout where unset. */
  readonly deadlineMs?: number | undefined;
};

/** What is in flight over the network from one process; as many sockets are kept open. */
const SOCKETS = 64;

/** A stream keeps at most two parts in flight and one being filled: some 32 MB. 10,000 parts make 80 GB. */
const PART_BYTES = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT = 2;

/** How often a conditional put is sent again because another write to the key was in progress. */
const CONFLICT_TRIES = 8;

/** Marks the writer of a put-once, so that a winner whose answer was lost knows its object again. */
const WRITER = "outlast-writer";

/** Opens a prefix of an S3 bucket. Nothing is sent yet; `checkBucket` proves that it works. */
export async function openS3Bucket(
  settings: S3Settings & { readonly bucket: string; readonly prefix?: string },
): Promise<Bucket> {
  const prefix = settings.prefix ?? "";
  if (prefix !== "") checkKey(prefix);
  if (settings.endpoint !== undefined && !/^https?:$/.test(URL.parse(settings.endpoint)?.protocol ?? "")) {
    throw new BucketError("failed", `the S3 endpoint isn't an http or https address; write http://host:port`);
  }
  const client = await openClient(settings);
  return new S3Bucket(client, settings.bucket, prefix, settings);
}

async function openClient(settings: S3Settings): Promise<S3Client> {
  const client = new S3Client(clientConfig(settings));
  try {
    await client.config.region();
    return client;
  } catch (error) {
    client.destroy();
    if (settings.endpoint === undefined) {
      throw new BucketError("failed", "no AWS region is set; set AWS_REGION to the bucket's region", error);
    }
    // Stores other than AWS take any region, as long as both sides sign with the same.
    return new S3Client(clientConfig({ ...settings, region: "us-east-1" }));
  }
}

function clientConfig(settings: S3Settings): S3ClientConfig {
  const { endpoint, region, credentials } = settings;
  const checksums = checksumsOf(settings);
  const timeoutMs = settings.requestTimeoutMs ?? MINUTE;
  const silent = (): void => {};
  return {
    ...(region === undefined ? {} : { region }),
    ...(credentials === undefined ? {} : { credentials }),
    ...(endpoint === undefined ? { followRegionRedirects: true } : { endpoint, forcePathStyle: true }),
    requestChecksumCalculation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
    responseChecksumValidation: checksums ? "WHEN_SUPPORTED" : "WHEN_REQUIRED",
    // Some stores never answer `Expect: 100-continue`, which costs six seconds for every body over 2 MB.
    ...(endpoint === undefined ? {} : { expectContinueHeader: false }),
    maxAttempts: settings.attempts ?? 4,
    requestHandler: {
      connectionTimeout: Math.min(5 * SECOND, timeoutMs),
      requestTimeout: timeoutMs,
      throwOnRequestTimeout: true,
      socketTimeout: timeoutMs,
      httpAgent: { keepAlive: true, maxSockets: SOCKETS },
      httpsAgent: { keepAlive: true, maxSockets: SOCKETS },
      logger: { debug: silent, info: silent, warn: silent, error: silent },
    },
  };
}

function checksumsOf({ checksums, endpoint }: S3Settings): boolean {
  return checksums ?? endpoint === undefined;
}

class S3Bucket implements Bucket {
  readonly url: string;
  readonly #client: S3Client;
  readonly #bucket: string;
  /** Empty, or ending in "/". */
  readonly #prefix: string;
  readonly #endpoint: string | null;
  readonly #deadlineMs: number;
  readonly #objects: ObjectSettings;
  readonly #checksums: boolean;

  constructor(client: S3Client, bucket: string, prefix: string, settings: S3Settings) {
    this.#client = client;
    this.#bucket = bucket;
    this.#prefix = prefix === "" ? "" : `${prefix}/`;
    this.#endpoint = settings.endpoint === undefined ? null : new URL(settings.endpoint).origin;
    this.#checksums = checksumsOf(settings);
    // All attempts of a request and the pauses between them.
    this.#deadlineMs = settings.deadlineMs ?? 2 * (settings.requestTimeoutMs ?? MINUTE);
    this.#objects = settings.objects ?? {};
    this.url = prefix === "" ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
  }

  urlOf(key: string): string {
    return `s3://${this.#bucket}/${this.#key(key)}`;
  }

  async put(key: string, body: Uint8Array | string, options: { readonly contentType: string }): Promise<void> {
    const command = new PutObjectCommand({
      ...this.#newObject(key),
      Body: bytesOf(body),
      ContentType: options.contentType,
    });
    try {
      await this.#client.send(command, this.#deadline());
    } catch (error) {
      throw this.#translated(error, "writing", key);
    }
  }

  async putStream(key: string, body: Readable, options: StreamOptions): Promise<{ readonly sha256: string | null }> {
    const storageClass = options.isOutput === true ? this.#objects.storageClass : undefined;
    let sha256: string | null = null;
    await withBody(
      body,
      options.signal,
      async () => {
        const { chunks, rest } = await firstPart(body);
        const params = {
          ...this.#newObject(key),
          ContentType: options.contentType,
          ...this.#proof(),
          ...(storageClass !== undefined && { StorageClass: storageClass as StorageClass }),
        };
        if (rest === null) {
          const whole = new PutObjectCommand({ ...params, Body: Buffer.concat(chunks) });
          sha256 = hexOf((await this.#client.send(whole, this.#deadline())).ChecksumSHA256);
        } else {
          await this.#uploadParts(params, Readable.from(joined(chunks, rest), { objectMode: false }));
        }
      },
      (error) => this.#translated(error, "writing", key),
    );
    return { sha256 };
  }

  /**
   * An abort fails the body, and Upload then waits for its parts in flight and aborts the multipart upload before it answers.
   * Its own abort() answers at once, and what its parts leave behind would stay and cost.
   */
  async #uploadParts(params: Omit<PutObjectCommandInput, "Body">, body: Readable): Promise<void> {
    const upload = new Upload({
      client: this.#client,
      params: { ...params, Body: body },
      partSize: PART_BYTES,
      queueSize: PARTS_IN_FLIGHT,
      leavePartsOnError: false,
    });
    await upload.done();
  }

  async putOnce(key: string, body: Uint8Array | string, options: { readonly contentType: string }): Promise<boolean> {
    const writer = randomUUID();
    const command = new PutObjectCommand({
      ...this.#newObject(key),
      Body: bytesOf(body),
      ContentType: options.contentType,
      IfNoneMatch: "*",
      Metadata: { ...this.#objects.metadata, [WRITER]: writer },
    });
    for (let conflicts = 1; ; conflicts++) {
      try {
        await this.#client.send(command, this.#deadline());
        return true;
      } catch (error) {
        switch (wasRefusedAsTaken(error)) {
          case "taken":
            return await this.#isWriter(key, writer);
          case "conflict":
            // Another write to this key is going on; whether it or we win shows only after it.
            if (conflicts >= CONFLICT_TRIES) throw this.#translated(error, "writing", key);
            await sleep(conflicts * 50 * (0.5 + Math.random()));
            break;
          case "no":
            throw this.#translated(error, "writing", key);
        }
      }
    }
  }

  async get(key: string, options: { readonly maxBytes: number }): Promise<Buffer | null> {
    try {
      const answer = await this.#client.send(new GetObjectCommand(this.#object(key)), this.#deadline());
      const bytes = answer.ContentLength;
      if (bytes === undefined || bytes > options.maxBytes) {
        discard(answer.Body);
        const size = bytes === undefined ? "an unknown number of" : bytes;
        throw new BucketError(
          "too-large",
          `${this.urlOf(key)} holds ${size} bytes, over the ${options.maxBytes} asked for`,
        );
      }
      return await whole(answer.Body, bytes);
    } catch (error) {
      if (namesNoKey(error)) return null;
      throw this.#translated(error, "reading", key);
    }
  }

  async getRange(key: string, start: number, length: number): Promise<Buffer | null> {
    checkRange(start, length);
    if (length === 0) return (await this.head(key)) === null ? null : Buffer.alloc(0); // no range says "nothing"
    const command = new GetObjectCommand({ ...this.#object(key), Range: `bytes=${start}-${start + length - 1}` });
    try {
      const answer = await this.#client.send(command, this.#deadline());
      return await whole(answer.Body, this.#bytesOfRange(key, answer, start, length));
    } catch (error) {
      if (namesNoKey(error)) return null;
      if (statusOf(error) === 416) return Buffer.alloc(0); // begins at the object's end or behind it
      throw this.#translated(error, "reading", key);
    }
  }

  /** How many bytes of the range came. Throws BucketError where the answer is something else. */
  #bytesOfRange(key: string, answer: GetObjectCommandOutput, start: number, length: number): number {
    const bytes = answer.ContentLength;
    const asked = answer.ContentRange?.startsWith(`bytes ${start}-`) ?? (start === 0 && bytes !== undefined);
    if (bytes !== undefined && bytes <= length && asked) return bytes;
    discard(answer.Body);
    throw new BucketError(
      "failed",
      `reading ${this.urlOf(key)} failed: the store ignored the range that was asked for; use a store that serves ranges`,
    );
  }

  async getStream(key: string, range?: { readonly start: number; readonly length: number }): Promise<Readable | null> {
    if (range !== undefined) {
      checkRange(range.start, range.length);
      if (range.length === 0) return (await this.head(key)) === null ? null : Readable.from([]); // no range says "nothing"
    }
    const part = range === undefined ? {} : { Range: `bytes=${range.start}-${range.start + range.length - 1}` };
    // The deadline ends with the headers; the body may take as long as its reader, but no pause over the timeout.
    const deadline = new AbortController();
    const timer = setTimeout(() => deadline.abort(new DOMException("deadline", "TimeoutError")), this.#deadlineMs);
    try {
      const command = new GetObjectCommand({ ...this.#object(key), ...part });
      const answer = await this.#client.send(command, { abortSignal: deadline.signal });
      if (range !== undefined) this.#bytesOfRange(key, answer, range.start, range.length);
      if (!(answer.Body instanceof Readable)) throw new TypeError("the SDK gave no Node stream");
      return answer.Body;
    } catch (error) {
      if (namesNoKey(error)) return null;
      throw this.#translated(error, "reading", key);
    } finally {
      clearTimeout(timer);
    }
  }

  async head(key: string): Promise<ObjectInfo | null> {
    try {
      const answer = await this.#client.send(new HeadObjectCommand(this.#object(key)), this.#deadline());
      return { key, bytes: answer.ContentLength ?? 0, contentType: answer.ContentType ?? null };
    } catch (error) {
      if (namesNoKey(error)) return null;
      throw this.#translated(error, "looking at", key);
    }
  }

  async *list(prefix: string, options: { readonly after?: string } = {}): AsyncGenerator<ObjectInfo> {
    checkPrefix(prefix);
    let startAfter = options.after === undefined ? undefined : this.#prefix + options.after;
    for (;;) {
      const page = await this.#page(prefix, startAfter);
      for (const object of page.objects) yield object;
      // By the last key and not by a token, so that every page says where it begins and none can come twice.
      if (page.next === null) return;
      startAfter = page.next;
    }
  }

  async delete(key: string): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand(this.#object(key)), this.#deadline());
    } catch (error) {
      if (namesNoKey(error)) return;
      throw this.#translated(error, "deleting", key);
    }
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  async #page(
    prefix: string,
    startAfter: string | undefined,
  ): Promise<{ readonly objects: readonly ObjectInfo[]; readonly next: string | null }> {
    const command = new ListObjectsV2Command({
      Bucket: this.#bucket,
      Prefix: this.#prefix + prefix,
      ...(startAfter === undefined || startAfter === "" ? {} : { StartAfter: startAfter }),
      MaxKeys: 1_000,
    });
    try {
      const answer = await this.#client.send(command, this.#deadline());
      const found = answer.Contents ?? [];
      const objects = found.flatMap(({ Key, Size }): ObjectInfo[] => {
        const key = Key?.slice(this.#prefix.length) ?? "";
        // Other tools leave objects such as `folder/`, which no key of ours could name.
        return keyFault(key) === null ? [{ key, bytes: Size ?? 0, contentType: null }] : [];
      });
      return { objects, next: answer.IsTruncated === true ? (found.at(-1)?.Key ?? null) : null };
    } catch (error) {
      throw this.#translated(error, "listing", prefix);
    }
  }

  /** Whether the object at a key that is taken is our own, written by a request whose answer was lost. */
  async #isWriter(key: string, writer: string): Promise<boolean> {
    try {
      const answer = await this.#client.send(new HeadObjectCommand(this.#object(key)), this.#deadline());
      return answer.Metadata?.[WRITER] === writer;
    } catch (error) {
      if (namesNoKey(error)) return false; // deleted since: it was somebody's
      throw this.#translated(error, "looking at", key);
    }
  }

  #key(key: string): string {
    checkKey(key);
    const whole = this.#prefix + key;
    if (this.#prefix !== "") checkKey(whole); // together they may be too long
    return whole;
  }

  #object(key: string): { readonly Bucket: string; readonly Key: string } {
    return { Bucket: this.#bucket, Key: this.#key(key) };
  }

  /** One that is written: with what the settings say about all of them. */
  #newObject(key: string) {
    const { encryption, tags, metadata } = this.#objects;
    return {
      ...this.#object(key),
      ...(encryption !== undefined && { ServerSideEncryption: encryption.algorithm }),
      ...(encryption?.keyId !== undefined && { SSEKMSKeyId: encryption.keyId }),
      ...(tags !== undefined && { Tagging: new URLSearchParams(tags).toString().replaceAll("+", "%20") }),
      ...(metadata !== undefined && { Metadata: metadata }),
    };
  }

  #proof(): { readonly ChecksumAlgorithm?: "SHA256" } {
    return this.#checksums ? { ChecksumAlgorithm: "SHA256" } : {};
  }

  #deadline(): { readonly abortSignal: AbortSignal } {
    return { abortSignal: AbortSignal.timeout(this.#deadlineMs) };
  }

  #translated(error: unknown, doing: string, key: string): unknown {
    const where = `s3://${this.#bucket}/${this.#prefix}${key}`;
    return translated(error, { doing, where, bucket: this.#bucket, endpoint: this.#endpoint });
  }
}

type Chunks = AsyncIterator<Buffer | string, undefined>;

/** What a stream begins with, up to a part's length; `rest`: what follows, null where that was all. */
async function firstPart(body: Readable): Promise<{ readonly chunks: Buffer[]; readonly rest: Chunks | null }> {
  const rest = body[Symbol.asyncIterator]() as Chunks;
  const chunks: Buffer[] = [];
  for (let bytes = 0; bytes <= PART_BYTES; ) {
    const { done, value } = await rest.next();
    if (done === true) return { chunks, rest: null };
    const chunk = typeof value === "string" ? Buffer.from(value) : value;
    chunks.push(chunk);
    bytes += chunk.length;
  }
  return { chunks, rest };
}

/** Empties `chunks`: what has gone on needn't be held until the last part has. */
async function* joined(chunks: Buffer[], rest: Chunks): AsyncGenerator<Buffer | string> {
  for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) yield chunk;
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
}

/** A body that ends early is an error, not a shorter object. */
async function whole(body: unknown, bytes: number): Promise<Buffer> {
  if (!(body instanceof Readable)) throw new TypeError("the SDK gave no Node stream");
  const read = await buffer(body);
  if (read.length !== bytes) {
    throw Object.assign(new Error(`the body ended after ${read.length} of ${bytes} bytes`), { code: "ECONNRESET" });
  }
  return read;
}

/** Of what came in parts S3 answers a digest of the parts' digests, with their number behind it; that of the bytes is null then. */
function hexOf(base64: string | undefined): string | null {
  return base64 !== undefined && /^[A-Za-z0-9+/]{43}=$/.test(base64)
    ? Buffer.from(base64, "base64").toString("hex")
    : null;
}

function bytesOf(body: Uint8Array | string): Uint8Array {
  return typeof body === "string" ? Buffer.from(body) : body; // of an empty string the SDK doesn't know the length
}

function discard(body: unknown): void {
  if (body instanceof Readable) body.on("error", () => undefined).destroy();
}
