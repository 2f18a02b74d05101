/** What a disk's refusals mean, and how they are told to a person: one line, the address, the remedy. */

import { BucketError } from "./bucket.ts";

/** The system's short word for what went wrong (`ENOENT`); empty if it has none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

export function gone(root: string): BucketError {
  return new BucketError("missing-bucket", `the folder file:${root} is gone; bring it back (is its disk mounted?)`);
}

export function throughLink(path: string): BucketError {
  return new BucketError(
    "bad-key",
    `file:${path} goes through a symbolic link, which a bucket doesn't follow; use a real folder`,
  );
}

/** Turns the disk's error into one sentence with the address and the remedy. */
export function translated(error: unknown, doing: string, where: string): unknown {
  if (error instanceof BucketError) return error;
  const failed = `${doing} ${where} failed`;
  switch (codeOf(error)) {
    case "EACCES":
    case "EPERM":
      return new BucketError(
        "denied",
        `${failed}: no permission (or no hard links there); use a folder that this user may write`,
        error,
      );
    case "EROFS":
      return new BucketError("denied", `${failed}: its file system is read-only; use another folder`, error);
    case "ENOTSUP":
    case "EOPNOTSUPP":
    case "ENOSYS":
      return new BucketError(
        "failed",
        `${failed}: its file system lacks hard links; use a folder on a local disk, or S3`,
        error,
      );
    case "ENOSPC":
    case "EDQUOT":
      return new BucketError("failed", `${failed}: the disk is full; make room there`, error);
    case "EMFILE":
    case "ENFILE":
      return new BucketError("failed", `${failed}: too many open files; raise the limit (ulimit -n)`, error);
    case "ENOTDIR":
    case "EISDIR":
    case "ENOTEMPTY":
      return new BucketError("bad-key", `${failed}: a file and a folder would need the same name there`, error);
    case "ELOOP":
      return new BucketError("bad-key", `${failed}: it is a symbolic link, which a bucket doesn't follow`, error);
    case "ENOENT":
      return new BucketError(
        "missing-bucket",
        `${failed}: the folder is gone; bring it back (is its disk mounted?)`,
        error,
      );
    default:
      return error instanceof Error && codeOf(error) !== ""
        ? new BucketError("failed", `${failed}: ${codeOf(error)}`, error)
        : error;
  }
}
