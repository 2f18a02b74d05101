/**
 * Finds a Redis server on PATH that is new enough: `redis-server` >= 7 or `valkey-server` >= 8.
 *
 * Needs Node's own modules only, since `src/cli/setup.ts` uses it before anything is installed.
 */

import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { RedisServerError } from "./redis-server-error.ts";

const ANSWER_TIMEOUT_MS = 5_000;
const OLDEST = { Redis: 7, Valkey: 8 };

export type RedisBinary = {
  readonly path: string;
  readonly product: keyof typeof OLDEST;
  readonly version: string;
};

/** The first server on `searchPath` that is new enough, and those before it that aren't. */
export async function findRedisBinary(
  searchPath: string,
): Promise<{ readonly found: RedisBinary | null; readonly tooOld: readonly RedisBinary[] }> {
  const tooOld: RedisBinary[] = [];
  for (const name of ["redis-server", "valkey-server"]) {
    for (const folder of searchPath.split(delimiter).filter((part) => part !== "")) {
      const binary = await readVersion(join(folder, name), name);
      if (binary === null) continue;
      if (Number.parseInt(binary.version, 10) >= OLDEST[binary.product]) return { found: binary, tooOld };
      tooOld.push(binary);
    }
  }
  return { found: null, tooOld };
}

export async function requireRedisBinary(searchPath = process.env["PATH"] ?? ""): Promise<RedisBinary> {
  const { found, tooOld } = await findRedisBinary(searchPath);
  if (found !== null) return found;
  const [old] = tooOld;
  const reason =
    old === undefined
      ? "no redis-server or valkey-server on PATH"
      : `${old.path} is ${old.product} ${old.version}, but Redis 7 or Valkey 8 is needed`;
  throw new RedisServerError(`${reason}: run \`npm run setup\`, or set OUTLAST_REDIS_URL to a Redis of your own`);
}

async function readVersion(path: string, name: string): Promise<RedisBinary | null> {
  try {
    await access(path, constants.X_OK);
    const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: ANSWER_TIMEOUT_MS });
    // `redis-server` may be Valkey under its old name: the answer counts, not the file's name.
    const match = /^(Redis |Valkey )?server v=(\d+\.\d+\.\d+)/i.exec(stdout);
    if (match?.[2] === undefined) return null;
    const isValkey = (match[1] ?? name).toLowerCase().startsWith("valkey");
    return { path, product: isValkey ? "Valkey" : "Redis", version: match[2] };
  } catch {
    return null; // missing, not executable, or not able to say its version: not a server we can use
  }
}
