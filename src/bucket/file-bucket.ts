/**
 * A bucket that is a folder: every object a plain file, at the path its key says, which a person can open.
 *
 * How files are written so that they are whole and last stands in `file-writer.ts`, how they are listed in
 * `list-folder.ts`. Symbolic links in the folder are neither followed nor objects.
 *
 * What a folder can't do and S3 can: hold an object `a` beside an object `a/b`; such a put is refused as `bad-key`.
 * The content type isn't stored; it is told from the key's extension.
 */

import { constants } from "node:fs";
import { type FileHandle, mkdir, open, realpath } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { Readable } from "node:stream";
import { type Bucket, BucketError, type ObjectInfo } from "./bucket.ts";
import { codeOf, gone, translated } from "./file-errors.ts";
import { type FileWriter, openFileWriter } from "./file-writer.ts";
import { checkKey, checkPrefix, checkRange } from "./keys.ts";
import { infoOf, listFolder } from "./list-folder.ts";
import { isFolder, isRealFolder } from "./real-folder.ts";
import { withBody } from "./streamed-body.ts";

/** Opens a folder as a bucket, making it where it is missing. */
export async function openFileBucket(folder: string): Promise<Bucket> {
  const wanted = resolve(folder);
  try {
    await mkdir(wanted, { recursive: true });
    const root = await realpath(wanted);
    return new FileBucket(root, await openFileWriter(root));
  } catch (error) {
    throw translated(error, "opening the folder", wanted);
  }
}

class FileBucket implements Bucket {
  readonly url: string;
  readonly #root: string;
  readonly #writer: FileWriter;

  constructor(root: string, writer: FileWriter) {
    this.url = `file:${root}`;
    this.#root = root;
    this.#writer = writer;
  }

  urlOf(key: string): string {
    return `file:${this.#path(key)}`;
  }

  async put(key: string, body: Uint8Array | string): Promise<void> {
    const path = this.#path(key);
    try {
      await this.#writer.put(path, (file) => file.writeFile(body));
    } catch (error) {
      throw await this.#faultOf(error, "writing", `file:${path}`);
    }
  }

  async putStream(
    key: string,
    body: Readable,
    options: { readonly signal?: AbortSignal },
  ): Promise<{ readonly sha256: null }> {
    const path = this.#path(key);
    await withBody(
      body,
      options.signal,
      async () => {
        await this.#writer.put(path, (file) => writeStream(file, body));
      },
      (error) => this.#faultOf(error, "writing", `file:${path}`),
    );
    return { sha256: null };
  }

  async putOnce(key: string, body: Uint8Array | string): Promise<boolean> {
    const path = this.#path(key);
    try {
      return await this.#writer.putOnce(path, (file) => file.writeFile(body));
    } catch (error) {
      throw await this.#faultOf(error, "writing", `file:${path}`);
    }
  }

  async get(key: string, options: { readonly maxBytes: number }): Promise<Buffer | null> {
    return this.#read(key, async (file, size) => {
      if (size > options.maxBytes) {
        throw new BucketError(
          "too-large",
          `${this.urlOf(key)} holds ${size} bytes, over the ${options.maxBytes} asked for`,
        );
      }
      return readAt(file, 0, size);
    });
  }

  async getRange(key: string, start: number, length: number): Promise<Buffer | null> {
    checkRange(start, length);
    return this.#read(key, async (file, size) => readAt(file, start, Math.min(length, Math.max(0, size - start))));
  }

  async getStream(key: string, range?: { readonly start: number; readonly length: number }): Promise<Readable | null> {
    if (range !== undefined) checkRange(range.start, range.length);
    const found = await this.#open(key);
    if (found === null) return null;
    if (range?.length === 0) {
      await found.file.close();
      return Readable.from([]);
    }
    const part = range === undefined ? {} : { start: range.start, end: range.start + range.length - 1 };
    return found.file.createReadStream({ autoClose: true, ...part });
  }

  async head(key: string): Promise<ObjectInfo | null> {
    return this.#read(key, async (_file, size) => infoOf(key, size));
  }

  async *list(prefix: string, options: { readonly after?: string } = {}): AsyncGenerator<ObjectInfo> {
    checkPrefix(prefix);
    try {
      yield* listFolder(this.#root, { prefix, after: options.after ?? "" });
    } catch (error) {
      throw translated(error, "listing", `file:${join(this.#root, prefix)}`);
    }
  }

  async delete(key: string): Promise<void> {
    const path = this.#path(key);
    try {
      if (!(await isRealFolder(dirname(path), this.#root)) || (await isFolder(path))) return;
      await this.#writer.remove(path);
    } catch (error) {
      if (!(await this.#leadsNowhere(error))) throw await this.#faultOf(error, "deleting", `file:${path}`);
    }
  }

  async close(): Promise<void> {
    // Every file is closed by the call that opened it.
  }

  #path(key: string): string {
    checkKey(key);
    return join(this.#root, key);
  }

  /** Opens an object for reading; null if there is none. Symbolic links are neither followed nor objects. */
  async #open(key: string): Promise<{ readonly file: FileHandle; readonly size: number } | null> {
    const path = this.#path(key);
    try {
      if (!(await isRealFolder(dirname(path), this.#root))) return null;
      // O_NONBLOCK: a pipe in the folder must not hold us up; it has no effect on files.
      const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      try {
        const stats = await file.stat();
        if (stats.isFile()) return { file, size: stats.size };
      } catch (error) {
        await file.close();
        throw error;
      }
      await file.close();
      return null;
    } catch (error) {
      if (await this.#leadsNowhere(error)) return null;
      throw await this.#faultOf(error, "reading", `file:${path}`);
    }
  }

  /** There is no object at the path that was asked for. */
  async #leadsNowhere(error: unknown): Promise<boolean> {
    return ["ENOENT", "ENOTDIR", "ENXIO"].includes(codeOf(error)) && !(await this.#isGone(error));
  }

  async #faultOf(error: unknown, doing: string, where: string): Promise<unknown> {
    return (await this.#isGone(error)) ? gone(this.#root) : translated(error, doing, where);
  }

  /** A file in the way is a key's fault, unless it stands where the bucket's own folder was. */
  async #isGone(error: unknown): Promise<boolean> {
    return codeOf(error) === "ENOTDIR" && !(await isFolder(this.#root));
  }

  async #read<T>(key: string, use: (file: FileHandle, size: number) => Promise<T>): Promise<T | null> {
    const found = await this.#open(key);
    if (found === null) return null;
    try {
      return await use(found.file, found.size);
    } catch (error) {
      throw translated(error, "reading", this.urlOf(key));
    } finally {
      await found.file.close();
    }
  }
}

/** So much is collected before it is written, and collected again while it is: fewer and larger writes. */
const WRITE_BYTES = 1024 * 1024;

async function writeStream(file: FileHandle, body: Readable): Promise<void> {
  let writing: Promise<void> = Promise.resolve();
  let chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of body as AsyncIterable<Buffer | string>) {
      const piece = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
      chunks.push(piece);
      bytes += piece.length;
      if (bytes < WRITE_BYTES) continue;
      await writing;
      writing = writeAll(file, chunks);
      writing.catch(() => undefined); // who waits for it next hears of it
      if (bytes > 2 * WRITE_BYTES) await writing; // of chunks that are large themselves one at a time is in memory
      chunks = [];
      bytes = 0;
    }
  } finally {
    await writing; // before the file is closed, whatever the body did
  }
  await writeAll(file, chunks);
}

/** Goes on where the file was. */
async function writeAll(file: FileHandle, chunks: readonly Buffer[]): Promise<void> {
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  if (bytes === 0) return;
  const { bytesWritten } = await file.writev(chunks);
  if (bytesWritten < bytes) await file.writeFile(Buffer.concat(chunks).subarray(bytesWritten));
}

async function readAt(file: FileHandle, start: number, length: number): Promise<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(buffer, filled, length - filled, start + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}
