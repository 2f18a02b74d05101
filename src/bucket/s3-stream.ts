/**
 * A body of unknown length on its way to S3, with bounded memory: what fits into a part as one put, all else in parts.
 *
 * Where checksums are sent, S3 computes the SHA-256 of a single put as well and answers it: what is stored can then be
 * compared with what was sent. Of what came in parts it answers a digest of their digests, which proves each part.
 */

import { Readable } from "node:stream";
import { PutObjectCommand, type PutObjectCommandInput, type S3Client } from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

/** A stream keeps at most two parts in flight and one being filled: some 32 MB. 10,000 parts make 80 GB. */
const PART_BYTES = 8 * 1024 * 1024;
const PARTS_IN_FLIGHT = 2;

type Params = Omit<PutObjectCommandInput, "Body">;

/** Answers the SHA-256 of the object's bytes as the store computed it, in hexadecimal; null where it tells none. */
export async function sendStream(
  client: S3Client,
  params: Params,
  body: Readable,
  { deadlineMs }: { readonly deadlineMs: number },
): Promise<string | null> {
  const { chunks, rest } = await firstPart(body);
  if (rest !== null) {
    await sendParts(client, params, Readable.from(joined(chunks, rest), { objectMode: false }));
    return null;
  }
  const whole = new PutObjectCommand({ ...params, Body: Buffer.concat(chunks) });
  const stored = await client.send(whole, { abortSignal: AbortSignal.timeout(deadlineMs) });
  return hexOf(stored.ChecksumSHA256);
}

/**
 * An abort fails the body, and Upload then waits for its parts in flight and aborts the multipart upload before it answers.
 * Its own abort() answers at once, and what its parts leave behind would stay and cost.
 */
async function sendParts(client: S3Client, params: Params, body: Readable): Promise<void> {
  const upload = new Upload({
    client,
    params: { ...params, Body: body },
    partSize: PART_BYTES,
    queueSize: PARTS_IN_FLIGHT,
    leavePartsOnError: false,
  });
  await upload.done();
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

/** Null where the store tells none, or another thing than the digest of the bytes. */
function hexOf(base64: string | undefined): string | null {
  return base64 !== undefined && /^[A-Za-z0-9+/]{43}=$/.test(base64)
    ? Buffer.from(base64, "base64").toString("hex")
    : null;
}
