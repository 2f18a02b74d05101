/**
 * Copies saved files out of the bucket into a folder, under their rows' ids. A file that is there with the right size
 * and SHA-256 is left alone, so that an interrupted run is finished by running it again. A file gets its name only
 * when all of it has arrived and its SHA-256 is the receipt's.
 */

import { createHash, randomUUID } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Bucket } from "../bucket/bucket.ts";
import type { KeptOutput, ResultLine } from "../core/receipt.ts";
import { CommandError } from "./failures.ts";
import { openFileNames } from "./file-names.ts";

const AT_ONCE = 8;
/** Failures that are told one by one; a bucket that is gone would make a million of them. */
const MAX_FAILURES = 100;

export type TakeOut = {
  /** Waits while enough are being copied. */
  add(line: ResultLine): Promise<void>;
  end(): Promise<{ readonly copied: number; readonly there: number; readonly failures: readonly string[] }>;
};

export async function openTakeOut(bucket: Pick<Bucket, "getStream" | "urlOf">, folder: string): Promise<TakeOut> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw new CommandError(`${folder} can't be made (${(error as NodeJS.ErrnoException).code}): name a folder`, {
      cause: error,
    });
  }
  const nameOf = openFileNames();
  const running = new Set<Promise<void>>();
  const failures: string[] = [];
  let copied = 0;
  let there = 0;

  async function takeOne(output: KeptOutput, file: string): Promise<void> {
    try {
      if (await isThere(file, output)) there++;
      else {
        await copy(bucket, output, file);
        copied++;
      }
    } catch (error) {
      failures.push(`${bucket.urlOf(output.key)} couldn't be copied: ${(error as Error).message}`);
    }
  }

  return {
    async add({ id, index, status, outputs }) {
      if (status !== "saved") return;
      for (const [n, output] of outputs.entries()) {
        if (failures.length >= MAX_FAILURES) return;
        const place = outputs.length === 1 ? { id, index, key: output.key } : { id, index, n, key: output.key };
        const one = takeOne(output, path.join(folder, nameOf(place))).finally(() => running.delete(one));
        running.add(one);
        if (running.size >= AT_ONCE) await Promise.race(running);
      }
    },
    async end() {
      await Promise.all(running);
      return { copied, there, failures };
    },
  };
}

async function isThere(file: string, { bytes, sha256 }: KeptOutput): Promise<boolean> {
  const found = await stat(file).catch(() => null);
  if (found === null || !found.isFile() || found.size !== bytes) return false;
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return hash.digest("hex") === sha256;
}

async function copy(
  bucket: Pick<Bucket, "getStream">,
  { key, bytes, sha256 }: KeptOutput,
  file: string,
): Promise<void> {
  const source = await bucket.getStream(key);
  if (source === null) throw new Error("it isn't in the bucket any more");
  const hash = createHash("sha256");
  let size = 0;
  const measured = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk);
      size += chunk.length;
      done(null, chunk);
    },
  });
  const part = path.join(path.dirname(file), `.${randomUUID()}.part`);
  try {
    await pipeline(source, measured, createWriteStream(part, { flags: "wx" }));
    if (size !== bytes || hash.digest("hex") !== sha256) {
      throw new Error(`its ${size} bytes aren't the ${bytes} that its receipt names`);
    }
    await rename(part, file);
  } catch (error) {
    await rm(part, { force: true });
    throw error;
  }
}
