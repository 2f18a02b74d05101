/**
 * `up.json` in the state folder: where a running `outlast up` can be reached, for every command that has no settings
 * of its own. Written whole by `up` once everything listens, mode 0600, and removed when it ends. Never a token in it.
 *
 * A file whose process is gone counts as absent: `up` was killed. (A number that another process has by now isn't
 * noticed here; then the Redis it names doesn't answer.)
 */

import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { parseBucketAddress } from "../bucket/open-bucket.ts";
import { ConfigError } from "../config.ts";
import { parseAccountName } from "../core/naming.ts";

const upFile = z.object({
  pid: z.int().positive(),
  started_at: z.iso.datetime(),
  redis_url: z.url({ protocol: /^rediss?$/ }),
  bucket: z.string(),
  s3_endpoint: z.url().exactOptional(),
  dashboard_url: z.url(),
  accounts: z.array(
    z.object({
      name: z.string().refine((text) => parseAccountName(text) !== null),
      provider: z.enum(["replicate", "cometapi"]),
      creates_per_minute: z.number().positive(),
    }),
  ),
  emulator: z.object({ api_url: z.url(), comet_url: z.url(), files_url: z.url() }).nullable(),
});

export type UpFile = z.output<typeof upFile>;

/** What the emulator of a running `up` takes. No secret: nothing is bought with it. */
export const EMULATOR_TOKEN = "r8_emulator";

function upFilePath(stateDir: string): string {
  return path.join(stateDir, "up.json");
}

/** Writes what the schema names and nothing else. A folder as bucket gets its whole path: readers may stand elsewhere. */
export async function writeUpFile(stateDir: string, facts: UpFile): Promise<void> {
  const up = upFile.parse(facts);
  const parsed = parseBucketAddress(up.bucket);
  const bucket = parsed.kind === "folder" ? `file:${path.resolve(parsed.folder)}` : up.bucket;
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  const temporary = path.join(stateDir, `up.${randomUUID()}.tmp`);
  await writeFile(temporary, `${JSON.stringify({ ...up, bucket }, null, 2)}\n`, { mode: 0o600 });
  await rename(temporary, upFilePath(stateDir));
}

/** Null: nothing is up. Throws ConfigError where the file isn't what `up` writes. */
export async function readUpFile(stateDir: string): Promise<UpFile | null> {
  const file = upFilePath(stateDir);
  const text = await readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return null;
    throw new ConfigError([`${file} can't be read (${error.code}): set OUTLAST_REDIS_URL and OUTLAST_BUCKET instead`]);
  });
  if (text === null) return null;
  const up = parse(text);
  if (up === null) throw new ConfigError([`${file} isn't what \`outlast up\` writes there: remove it, start it again`]);
  return runs(up.pid) ? up : null;
}

/** Removes the file if it is this process's own: a newer `up` may have replaced it. */
export async function removeUpFile(stateDir: string, pid: number): Promise<void> {
  const file = upFilePath(stateDir);
  const up = parse(await readFile(file, "utf8").catch(() => ""));
  if (up?.pid === pid) await rm(file, { force: true });
}

function parse(text: string): UpFile | null {
  try {
    return upFile.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // there, and somebody else's
  }
}
