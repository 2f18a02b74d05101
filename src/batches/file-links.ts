/**
 * Addresses of kept files, as the API hands them out. Where the bucket is public (`OUTLAST_PUBLIC_BUCKET_URL`), the
 * public's, which last; else `/v1/files/<item>/<name>?expires=…&signature=…`, whose signature stands in for the
 * tenant's key, since official clients fetch outputs without one. It opens one file, for a week at least; reading again
 * gives a fresh one.
 */

import { createHmac, timingSafeEqual } from "node:crypto";
import type { ItemId } from "../core/naming.ts";
import { DAY, SECOND } from "../core/time.ts";

const LIFETIME_DAYS = 7;

/** How whoever asks over HTTP finds a kept file. `baseUrl`: where the server is reached, without a slash at its end. */
export function fileUrls(given: {
  readonly publicBucketUrl: string | null;
  readonly secret: Buffer;
  readonly baseUrl: string;
  readonly nowMs: number;
}): (item: ItemId, key: string) => string {
  const { publicBucketUrl, secret, baseUrl, nowMs } = given;
  if (publicBucketUrl !== null) return (_item, key) => publicFileUrl(publicBucketUrl, key);
  return (item, key) => signedFileUrl(secret, baseUrl, item, key, nowMs);
}

/** `key`: the object's. Addresses of one day are the same, so that caches may keep what they lead to. */
export function signedFileUrl(secret: Buffer, baseUrl: string, item: ItemId, key: string, nowMs: number): string {
  const name = fileNameOf(key);
  const expires = ((Math.floor(nowMs / DAY) + 1 + LIFETIME_DAYS) * DAY) / SECOND;
  const signature = sign(secret, item, name, expires).toString("base64url");
  return `${baseUrl}/v1/files/${item}/${name}?expires=${expires}&signature=${signature}`;
}

/** Where a bucket that is public shows an object: `publicUrl` stands for the place of OUTLAST_BUCKET. */
export function publicFileUrl(publicUrl: string, key: string): string {
  return `${publicUrl}/${key.split("/").map(encodeURIComponent).join("/")}`;
}

/** `output-0.png`: an object's name within its item. */
export function fileNameOf(key: string): string {
  return key.slice(key.lastIndexOf("/") + 1);
}

export function isSignedFor(
  secret: Buffer,
  item: ItemId,
  name: string,
  query: { readonly expires?: string | undefined; readonly signature?: string | undefined },
  nowMs: number,
): boolean {
  const expires = Number(query.expires);
  if (!Number.isSafeInteger(expires) || expires * SECOND < nowMs) return false;
  const given = Buffer.from(query.signature ?? "", "base64url");
  const right = sign(secret, item, name, expires);
  return given.length === right.length && timingSafeEqual(given, right);
}

function sign(secret: Buffer, item: ItemId, name: string, expires: number): Buffer {
  return createHmac("sha256", secret).update(`${item}/${name}/${expires}`).digest();
}
