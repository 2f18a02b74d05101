/**
 * Where a command finds Redis, bucket and accounts: in the environment, and where that names no Redis, in what a
 * running `outlast up` left in the state folder. The two are never mixed: rows put into one bucket and fed by workers
 * of another would be lost from sight.
 */

import path from "node:path";
import { parseBucketAddress } from "../bucket/open-bucket.ts";
import { type Config, ConfigError, knownAccount, readConfig } from "../config.ts";
import { parseAccountName } from "../core/naming.ts";
import { readUpFile, type UpFile } from "../embedded/up-file.ts";

/** Its accounts may have no token: commands don't speak to providers. Throws ConfigError. */
export async function commandConfig(env: Readonly<Record<string, string | undefined>>): Promise<Config> {
  const config = readConfig(env);
  const up = await readUpFile(config.stateDir);
  if (up === null) return config;

  if (config.redisUrl !== null) {
    const knowsNobody = config.accounts.length === 0 && config.redisUrl === up.redis_url;
    return knowsNobody ? { ...config, accounts: accountsOf(up) } : config;
  }
  const namesBucket = (env["OUTLAST_BUCKET"] ?? "") !== "";
  if (namesBucket && placeOf(config.bucket) !== placeOf(up.bucket)) {
    throw new ConfigError([
      `OUTLAST_BUCKET is ${config.bucket}, but the running \`outlast up\` keeps its objects in ${up.bucket}: ` +
        "unset it, or set OUTLAST_REDIS_URL too",
    ]);
  }
  return {
    ...config,
    redisUrl: up.redis_url,
    bucket: up.bucket,
    s3Endpoint: up.s3_endpoint ?? config.s3Endpoint,
    accounts: accountsOf(up),
  };
}

function accountsOf(up: UpFile): Config["accounts"] {
  return up.accounts.flatMap(({ name, provider, creates_per_minute }) => {
    const parsed = parseAccountName(name);
    return parsed === null ? [] : [knownAccount(parsed, provider, creates_per_minute)];
  });
}

/** An address by which two spellings of one bucket are equal. */
function placeOf(address: string): string {
  const parsed = parseBucketAddress(address);
  return parsed.kind === "folder" ? `file:${path.resolve(parsed.folder)}` : `s3://${parsed.bucket}/${parsed.prefix}`;
}
