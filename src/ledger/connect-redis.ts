/** One way to reach Redis, and what is asked of it before money depends on it. */

import { Redis } from "ioredis";

/** A finding about the server: `fault` stops a start, `warning` is told. */
export type RedisFinding = { readonly level: "ok" | "warning" | "fault"; readonly sentence: string };

/** Redis can't be used; the message says what to do. */
export class RedisUnusable extends Error {
  override readonly name = "RedisUnusable";
}

/** What a connection is for. */
export type RedisUse = "worker" | "server" | "command";

/**
 * `worker`: waits through outages, since work must go on afterwards. `command`: fails within seconds, since a person
 * waits. `server`: the same for each request, also where Redis takes a command and says nothing. Throws RedisUnusable
 * if nobody answers at the start.
 */
export async function connectRedis(url: string, use: RedisUse): Promise<Redis> {
  const shown = withoutSecrets(url);
  const redis = new Redis(url, {
    lazyConnect: true,
    // BullMQ demands null of its workers: a command waits for the connection to come back.
    maxRetriesPerRequest: use === "worker" ? null : 3,
    ...(use === "server" && { commandTimeout: 5_000 }),
    connectTimeout: 5_000,
    retryStrategy: (tries) => Math.min(100 * tries, 2_000),
  });
  let lastError: Error | null = null;
  redis.on("error", (error: Error) => {
    lastError = error;
  });
  try {
    await redis.connect();
  } catch (error) {
    redis.disconnect();
    const cause = lastError ?? (error as Error);
    throw new RedisUnusable(`no Redis answers at ${shown} (${cause.message}): start it, or set OUTLAST_REDIS_URL`, {
      cause,
    });
  }
  return redis;
}

/** Throws RedisUnusable with the first fault. Who works with money demands more: a warning is a fault to it. */
export async function requireSoundRedis(redis: Redis, url: string, use: RedisUse): Promise<void> {
  const fault = (await checkRedis(redis)).find(
    ({ level }) => level === "fault" || (use === "worker" && level === "warning"),
  );
  if (fault !== undefined) throw new RedisUnusable(`Redis at ${withoutSecrets(url)}: ${fault.sentence}`);
}

export async function checkRedis(redis: Redis): Promise<readonly RedisFinding[]> {
  const info = readInfo(await redis.info());
  return [versionFinding(info), await policyFinding(redis, info), persistenceFinding(info)];
}

function versionFinding(info: ReadonlyMap<string, string>): RedisFinding {
  const valkey = info.get("valkey_version");
  const [name, version, oldest] =
    valkey === undefined ? ["Redis", info.get("redis_version") ?? "0", 7] : ["Valkey", valkey, 8];
  if (Number.parseInt(version, 10) >= oldest) return { level: "ok", sentence: `${name} ${version}` };
  return { level: "fault", sentence: `${name} ${version} is too old: use Redis 7 or Valkey 8, or newer` };
}

async function policyFinding(redis: Redis, info: ReadonlyMap<string, string>): Promise<RedisFinding> {
  const policy =
    info.get("maxmemory_policy") ?? ((await redis.config("GET", "maxmemory-policy")) as string[])[1] ?? "unknown";
  if (policy === "noeviction") return { level: "ok", sentence: "evicts nothing (noeviction)" };
  return {
    level: "fault",
    sentence: `its policy ${policy} may evict what was paid for: CONFIG SET maxmemory-policy noeviction`,
  };
}

function persistenceFinding(info: ReadonlyMap<string, string>): RedisFinding {
  if (info.get("aof_enabled") === "1") return { level: "ok", sentence: "keeps an append-only file" };
  return {
    level: "warning",
    sentence:
      "it keeps no append-only file, so a crash would forget what was bought, and no worker starts: CONFIG SET appendonly yes",
  };
}

function readInfo(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split("\r\n").flatMap((line) => {
      const colon = line.indexOf(":");
      return colon > 0 ? [[line.slice(0, colon), line.slice(colon + 1)] as const] : [];
    }),
  );
}

/** A URL as it may be shown: without the password, which the client also takes from the query. */
export function withoutSecrets(url: string): string {
  if (!URL.canParse(url)) return "the given address";
  const shown = new URL(url);
  if (shown.password !== "") shown.password = "***";
  for (const name of new Set(shown.searchParams.keys())) {
    if (/password/i.test(name)) shown.searchParams.set(name, "***");
  }
  return shown.href;
}
