/** The address of a bucket, as a person writes it in OUTLAST_BUCKET, and the bucket it opens. */

import type { Bucket } from "./bucket.ts";
import { openFileBucket } from "./file-bucket.ts";
import { keyFault } from "./keys.ts";
import { openS3Bucket } from "./s3-bucket.ts";
import type { S3Settings } from "./s3-client.ts";

export type BucketAddress =
  | { readonly kind: "folder"; readonly folder: string }
  | { readonly kind: "s3"; readonly bucket: string; readonly prefix: string };

/** Reads `s3://name`, `s3://name/prefix`, `file:folder` or `file:/absolute/folder`. Throws a TypeError that says how. */
export function parseBucketAddress(address: string): BucketAddress {
  if (address.startsWith("s3://")) return parseS3Address(address);
  if (address.startsWith("file:")) return parseFileAddress(address);
  throw new TypeError(`${JSON.stringify(address)} is no bucket: write s3://name/prefix, or file:folder for a folder`);
}

/** Opens what the address names. Nothing is written yet; `checkBucket` proves that it works. */
export async function openBucket(address: string, s3: S3Settings = {}): Promise<Bucket> {
  const parsed = parseBucketAddress(address);
  switch (parsed.kind) {
    case "folder":
      return openFileBucket(parsed.folder);
    case "s3":
      return openS3Bucket({ ...s3, bucket: parsed.bucket, prefix: parsed.prefix });
    default:
      return parsed satisfies never;
  }
}

function parseS3Address(address: string): BucketAddress {
  const rest = address.slice("s3://".length);
  const slash = rest.indexOf("/");
  const bucket = slash === -1 ? rest : rest.slice(0, slash);
  const prefix = slash === -1 ? "" : rest.slice(slash + 1).replace(/\/$/, "");
  if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}$/.test(bucket)) {
    throw new TypeError(
      `${JSON.stringify(address)} has no bucket name behind s3:// (letters, digits, dots and hyphens): write s3://name/prefix`,
    );
  }
  const fault = prefix === "" ? null : keyFault(prefix);
  if (fault !== null) throw new TypeError(`the prefix in ${JSON.stringify(address)} ${fault}: write s3://name/prefix`);
  return { kind: "s3", bucket, prefix };
}

function parseFileAddress(address: string): BucketAddress {
  const rest = address.slice("file:".length);
  // file:///folder is the same folder as file:/folder; file://host/folder would be another machine's.
  if (rest.startsWith("//") && !rest.startsWith("///")) {
    throw new TypeError(`${JSON.stringify(address)} names a host: write file:/absolute/folder, or file:folder`);
  }
  const folder = rest.startsWith("///") ? rest.slice(2) : rest;
  if (folder === "") throw new TypeError(`${JSON.stringify(address)} names no folder: write file:folder`);
  if (folder.includes("\0")) throw new TypeError("the folder of a bucket can't hold a NUL");
  return { kind: "folder", folder };
}
