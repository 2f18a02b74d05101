/**
 * Where everything that must last is kept: an S3 bucket with a prefix, or a folder of plain files.
 *
 * One narrow port, two adapters (`s3-bucket.ts`, `file-bucket.ts`), one suite for both (`test/bucket`).
 * Keys are relative, `/`-separated and made in `src/core/naming.ts`; an adapter refuses any that would
 * leave its prefix.
 */

import type { Readable } from "node:stream";

export type ObjectInfo = {
  readonly key: string;
  readonly bytes: number;
  readonly contentType: string | null;
};

export type StreamOptions = {
  readonly contentType: string;
  readonly signal?: AbortSignal;
  /** A prediction's output, which is read seldom: the settings may have a storage class for such. */
  readonly isOutput?: boolean;
};

export interface Bucket {
  /** The address a person recognises: `s3://name/prefix` or `file:/absolute/folder`. */
  readonly url: string;

  /** The address of one object, in the same form as `url`. */
  urlOf(key: string): string;

  /** Writes an object whole, replacing what was there; a reader sees the old one or the new one, never a part. */
  put(key: string, body: Uint8Array | string, options: { readonly contentType: string }): Promise<void>;

  /**
   * Writes an object from a stream of unknown length with bounded memory. If the stream fails or `signal` aborts,
   * the object isn't there (or is the old one) and the stream's error is thrown. Answers the SHA-256 of the object's bytes
   * as the store computed it itself, in hexadecimal; null where it tells none.
   */
  putStream(key: string, body: Readable, options: StreamOptions): Promise<{ readonly sha256: string | null }>;

  /** Writes an object only if the key is free. Answers whether this call wrote it; of many racers exactly one does. */
  putOnce(key: string, body: Uint8Array | string, options: { readonly contentType: string }): Promise<boolean>;

  /** The whole object, or null if there is none. Throws if it is larger than `maxBytes`. */
  get(key: string, options: { readonly maxBytes: number }): Promise<Buffer | null>;

  /** `length` bytes from `start` (fewer at the object's end), or null if there is no such object. */
  getRange(key: string, start: number, length: number): Promise<Buffer | null>;

  /**
   * The object, or `length` bytes of it from `start`, as a stream; null if there is none. The caller consumes or
   * destroys it.
   */
  getStream(key: string, range?: { readonly start: number; readonly length: number }): Promise<Readable | null>;

  head(key: string): Promise<ObjectInfo | null>;

  /** Objects under a prefix in key order, fetched page by page. `after`: only keys that sort behind it. */
  list(prefix: string, options?: { readonly after?: string }): AsyncIterable<ObjectInfo>;

  delete(key: string): Promise<void>;

  close(): Promise<void>;
}

/** The store said no, or said nothing; `code` is stable, the message names key and store. */
export class BucketError extends Error {
  override readonly name = "BucketError";
  readonly code: "unreachable" | "denied" | "missing-bucket" | "bad-key" | "too-large" | "failed";

  constructor(code: BucketError["code"], message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}
