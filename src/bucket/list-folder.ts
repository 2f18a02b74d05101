/** The objects of a file bucket in key order. One folder's names are in memory at a time, for each level on the way. */

import { lstat, readdir } from "node:fs/promises";
import { join } from "node:path";
import mime from "mime";
import type { ObjectInfo } from "./bucket.ts";
import { codeOf, gone } from "./file-errors.ts";
import { compareKeys, keyFault } from "./keys.ts";
import { isFolder, isRealFolder } from "./real-folder.ts";

/** How many files the disk is asked about at once. */
const CHUNK = 64;

/** Which keys are asked for: those under `prefix` that sort behind `after`. */
type Asked = { readonly prefix: string; readonly after: string };

export async function* listFolder(root: string, asked: Asked): AsyncGenerator<ObjectInfo> {
  const folder = asked.prefix.slice(0, asked.prefix.lastIndexOf("/") + 1);
  if (folder === "" || (await isRealFolder(join(root, folder), root))) yield* walk(root, folder, asked);
}

/** `folder` is "" or ends in "/". */
async function* walk(root: string, folder: string, asked: Asked): AsyncGenerator<ObjectInfo> {
  let files: string[] = [];
  for (const name of await namesIn(root, folder, asked)) {
    const isFolderName = name.endsWith("/");
    if (!isFolderName) files.push(folder + name);
    if (files.length >= CHUNK || isFolderName) {
      yield* await infosOf(root, files);
      files = [];
    }
    if (isFolderName) yield* walk(root, folder + name, asked);
  }
  yield* await infosOf(root, files);
}

/** The names in a folder that can lead to a key that is asked for, in key order; folders end in "/". */
async function namesIn(root: string, folder: string, { prefix, after }: Asked): Promise<string[]> {
  const names: string[] = [];
  try {
    for (const entry of await readdir(join(root, folder), { withFileTypes: true })) {
      if (!entry.isFile() && !entry.isDirectory()) continue;
      const key = folder + entry.name;
      if (keyFault(key) !== null) continue; // put there by somebody else: it couldn't be read by any key
      if (entry.isDirectory()) {
        const inside = `${key}/`;
        const underPrefix = inside.startsWith(prefix) || prefix.startsWith(inside);
        if (underPrefix && (compareKeys(inside, after) > 0 || after.startsWith(inside))) names.push(`${entry.name}/`);
      } else if (key.startsWith(prefix) && compareKeys(key, after) > 0) {
        names.push(entry.name);
      }
    }
  } catch (error) {
    if (codeOf(error) !== "ENOENT" && codeOf(error) !== "ENOTDIR") throw error;
    if (!(await isFolder(root))) throw gone(root);
  }
  return names.sort(compareKeys);
}

/** In the given order; a file that has gone meanwhile is left out. */
async function infosOf(root: string, keys: readonly string[]): Promise<ObjectInfo[]> {
  const found = await Promise.all(
    keys.map(async (key) => {
      try {
        const stats = await lstat(join(root, key));
        return stats.isFile() ? infoOf(key, stats.size) : null;
      } catch (error) {
        if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return null;
        throw error;
      }
    }),
  );
  return found.filter((info) => info !== null);
}

export function infoOf(key: string, bytes: number): ObjectInfo {
  return { key, bytes, contentType: mime.getType(key) };
}
