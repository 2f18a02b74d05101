/**
 * A bucket that is a prefix of an S3 bucket: AWS, or any store that passes `test/bucket`.
 *
 * What of S3 we lean on: a put is atomic; `If-None-Match: *` lets one of many writers win (`checkBucket` proves it
 * before a store is trusted with money records); keys list in the order of their UTF-8 bytes.
 *
 * How the client is set up stands in `s3-client.ts`, how streams are sent in `s3-stream.ts`.
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
  type S3Client,
  type StorageClass,
} from "@aws-sdk/client-s3";
import { MINUTE } from "../core/time.ts";
import { type Bucket, BucketError, type ObjectInfo, type StreamOptions } from "./bucket.ts";
import { checkKey, checkPrefix, checkRange, keyFault } from "./keys.ts";
import type { ObjectSettings } from "./object-settings.ts";
import { checksumsOf, openS3Client, type S3Settings } from "./s3-client.ts";
import { namesNoKey, statusOf, translated, wasRefusedAsTaken } from "./s3-errors.ts";
import { sendStream } from "./s3-stream.ts";
import { withBody } from "./streamed-body.ts";

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
  const client = await openS3Client(settings);
  return new S3Bucket(client, settings.bucket, prefix, settings);
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
        const params = {
          ...this.#newObject(key),
          ContentType: options.contentType,
          ...(this.#checksums && { ChecksumAlgorithm: "SHA256" as const }),
          ...(storageClass !== undefined && { StorageClass: storageClass as StorageClass }),
        };
        sha256 = await sendStream(this.#client, params, body, { deadlineMs: this.#deadlineMs });
      },
      (error) => this.#translated(error, "writing", key),
    );
    return { sha256 };
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

  #deadline(): { readonly abortSignal: AbortSignal } {
    return { abortSignal: AbortSignal.timeout(this.#deadlineMs) };
  }

  #translated(error: unknown, doing: string, key: string): unknown {
    const where = `s3://${this.#bucket}/${this.#prefix}${key}`;
    return translated(error, { doing, where, bucket: this.#bucket, endpoint: this.#endpoint });
  }
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

function bytesOf(body: Uint8Array | string): Uint8Array {
  return typeof body === "string" ? Buffer.from(body) : body; // of an empty string the SDK doesn't know the length
}

function discard(body: unknown): void {
  if (body instanceof Readable) body.on("error", () => undefined).destroy();
}
