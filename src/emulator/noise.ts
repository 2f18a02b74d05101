/**
 * Any number of bytes that look random, from any place on, without keeping them: AES in counter mode, keyed by the
 * input's digest. The same input always gives the same bytes, and a range the same as the whole.
 */

import { createCipheriv } from "node:crypto";

const CHUNK_BYTES = 64 * 1_024;
const BLOCK_BYTES = 16;

export function* noise(digest: string, fromByte: number, toByte: number): Generator<Buffer> {
  const firstBlock = Math.floor(fromByte / BLOCK_BYTES);
  const counter = Buffer.alloc(BLOCK_BYTES);
  counter.writeBigUInt64BE(BigInt(firstBlock), 8);
  const cipher = createCipheriv("aes-128-ctr", Buffer.from(digest, "hex").subarray(0, 16), counter);
  cipher.update(Buffer.alloc(fromByte - firstBlock * BLOCK_BYTES));

  const zeros = Buffer.alloc(CHUNK_BYTES);
  for (let at = fromByte; at < toByte; at += CHUNK_BYTES) {
    yield cipher.update(zeros.subarray(0, Math.min(CHUNK_BYTES, toByte - at)));
  }
}
