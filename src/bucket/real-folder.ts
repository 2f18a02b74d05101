/** Folders of a file bucket, which are never reached through a symbolic link. */

import { lstat, realpath } from "node:fs/promises";
import { resolve } from "node:path";
import { codeOf, gone, throughLink } from "./file-errors.ts";

/** Whether a folder under `root` exists; throws if a symbolic link stands on the way to it, or `root` has gone. */
export async function isRealFolder(path: string, root: string): Promise<boolean> {
  const folder = resolve(path);
  const real = await realpath(folder).catch((error: unknown) => {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return null;
    throw error;
  });
  if (real === null) {
    if (!(await isFolder(root))) throw gone(root);
    return false;
  }
  if (real !== folder) throw throughLink(folder);
  return true;
}

export async function isFolder(path: string): Promise<boolean> {
  return lstat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
}
