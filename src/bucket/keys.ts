/**
 * Which keys and ranges a bucket takes, and in what order keys stand: the same for every adapter, so that what one
 * bucket holds can be moved into another. Keys are made in `src/core/naming.ts`; this is the guard, not the maker.
 */

import { BucketError } from "./bucket.ts";

/** S3 allows 1,024 bytes for prefix and key together; a file name 255 on every file system in use. */
const LONGEST_KEY_BYTES = 1_024;
const LONGEST_SEGMENT_BYTES = 255;

/** Where the file bucket keeps half-written files. No key may begin with it, and no list shows it. */
export const TEMPORARY_FOLDER = ".outlast-tmp";

/** Throws a `bad-key` unless the key is safe as an object's key and as a file's path under a folder. */
export function checkKey(key: string): void {
  const fault = keyFault(key);
  if (fault !== null) throw new BucketError("bad-key", `the key ${shown(key)} ${fault}`);
}

/** A prefix to list by: empty, or the beginning of a legal key, which may end in the middle of a name or in `/`. */
export function checkPrefix(prefix: string): void {
  if (prefix === "") return;
  const fault = prefix.endsWith("/") ? keyFault(prefix.slice(0, -1)) : keyFault(prefix, "prefix");
  if (fault !== null) throw new BucketError("bad-key", `the prefix ${shown(prefix)} ${fault}`);
}

/** Says what is wrong with a key, or null. */
export function keyFault(key: string, of: "key" | "prefix" = "key"): string | null {
  if (key === "") return "is empty";
  if (!key.isWellFormed()) return "isn't well-formed Unicode";
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/[\u0000-\u001f\u007f-\u009f]/.test(key)) return "holds a control character";
  if (key.includes("\\")) return "holds a backslash";
  if (key.startsWith("/")) return "is absolute";
  if (Buffer.byteLength(key) > LONGEST_KEY_BYTES) return `is longer than ${LONGEST_KEY_BYTES} bytes`;
  const segments = key.split("/");
  for (const [place, segment] of segments.entries()) {
    if (segment === "") return "has an empty segment";
    const unfinished = of === "prefix" && place === segments.length - 1;
    if (!unfinished && (segment === "." || segment === "..")) return `has the segment ${segment}`;
    if (Buffer.byteLength(segment) > LONGEST_SEGMENT_BYTES) {
      return `has a segment longer than ${LONGEST_SEGMENT_BYTES} bytes`;
    }
  }
  if (segments[0] === TEMPORARY_FOLDER) return `begins with ${TEMPORARY_FOLDER}, which is kept for half-written files`;
  return null;
}

function shown(key: string): string {
  return JSON.stringify(key.length > 200 ? `${key.slice(0, 200)}…` : key);
}

/** Ranges are whole numbers from 0; anything else is a mistake in our own code. */
export function checkRange(start: number, length: number): void {
  if (!Number.isSafeInteger(start) || start < 0 || !Number.isSafeInteger(length) || length < 0) {
    throw new RangeError(`not a range of bytes: ${length} from ${start}`);
  }
}

/**
 * Compares two well-formed strings by their UTF-8 bytes, as S3 orders keys. JavaScript compares UTF-16 units, where
 * the surrogates of everything above U+FFFF sort before U+E000 to U+FFFF; so those two ranges change places.
 */
export function compareKeys(left: string, right: string): number {
  const length = Math.min(left.length, right.length);
  for (let i = 0; i < length; i++) {
    const a = left.charCodeAt(i);
    const b = right.charCodeAt(i);
    if (a !== b) return utf8Rank(a) - utf8Rank(b);
  }
  return left.length - right.length;
}

function utf8Rank(unit: number): number {
  if (unit >= 0xe000) return unit - 0x800;
  return unit >= 0xd800 ? unit + 0x2000 : unit;
}
