/**
 * Makes folders, and makes what was named in them last through a loss of power, with as few flushes as that takes.
 *
 * A new name is lasting once the folder that holds it was flushed. Many puts into one folder share a flush: one that
 * begins after a rename covers it. A folder's own name stands in its parent, which is flushed once in the life of a
 * process, before the first object in it is reported as written; another process's flush may not have come yet, so
 * finding the folder there is no proof.
 */

import { constants } from "node:fs";
import { mkdir, open, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import { BucketError } from "./bucket.ts";

/** Each folder remembered is a string of some 100 bytes; forgetting one costs a flush, nothing else. */
const REMEMBERED_FOLDERS = 20_000;

type Flush = { readonly running: Promise<void>; next: Promise<void> | null };

export class FolderFlusher {
  readonly #root: string;
  /** Folders whose names are known to be lasting. */
  readonly #lasting = new Set<string>();
  readonly #ensuring = new Map<string, Promise<void>>();
  readonly #flushes = new Map<string, Flush>();

  /** `root` is an existing real path; nothing above it is made. */
  constructor(root: string) {
    this.#root = root;
  }

  /** Makes a folder under the root, if need be, and its name lasting. Refuses one behind a symbolic link. */
  async ensure(folder: string): Promise<void> {
    if (folder === this.#root || this.#lasting.has(folder)) return;
    let ensuring = this.#ensuring.get(folder);
    if (ensuring === undefined) {
      ensuring = this.#make(folder).finally(() => this.#ensuring.delete(folder));
      this.#ensuring.set(folder, ensuring);
    }
    await ensuring;
  }

  /** Something in the folder wasn't as remembered: look at it and its parents again next time. */
  forget(folder: string): void {
    for (let path = folder; path.length > this.#root.length; path = dirname(path)) this.#lasting.delete(path);
  }

  /** Resolves once a flush of the folder that began after this call is done. */
  async flush(folder: string): Promise<void> {
    const current = this.#flushes.get(folder);
    if (current === undefined) return this.#start(folder);
    // The running flush may have begun before our rename. All who come while it runs share the next one.
    current.next ??= current.running.then(
      () => this.#start(folder),
      () => this.#start(folder),
    );
    return current.next;
  }

  async #make(folder: string): Promise<void> {
    const parent = dirname(folder);
    await this.ensure(parent);
    const isNew = await mkdir(folder).then(
      () => true,
      (error: unknown) => {
        if (!(error instanceof Error && "code" in error && error.code === "EEXIST")) throw error;
        return false;
      },
    );
    // Its parent is known to be real, and so is what was made in it just now.
    if (!isNew && (await realpath(folder)) !== folder) {
      throw new BucketError(
        "bad-key",
        `file:${folder} goes through a symbolic link, which a bucket doesn't follow; use a real folder`,
      );
    }
    await this.flush(parent);
    if (this.#lasting.size >= REMEMBERED_FOLDERS) this.#forgetOldest();
    this.#lasting.add(folder);
  }

  /** A Set keeps the order of insertion, so its first is the one remembered longest. */
  #forgetOldest(): void {
    for (const folder of this.#lasting) {
      this.#lasting.delete(folder);
      return;
    }
  }

  #start(folder: string): Promise<void> {
    const running = flushFolder(folder);
    const flush: Flush = { running, next: null };
    this.#flushes.set(folder, flush);
    const done = (): void => {
      if (flush.next === null) this.#flushes.delete(folder);
    };
    running.then(done, done);
    return running;
  }
}

async function flushFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } catch (error) {
    // Some network and user-space file systems can't flush a folder; their renames are as lasting as they get.
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code !== "EINVAL" && code !== "ENOTSUP" && code !== "EOPNOTSUPP") throw error;
  } finally {
    await handle.close();
  }
}
