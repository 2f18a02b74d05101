/** What a Redis has done so far, read from INFO; two readings make a difference. */

import type { Redis } from "ioredis";

export type RedisUse = {
  /** Reads from sockets: what came in one piece counts once, so this is round trips. */
  readonly reads: number;
  readonly cpuMs: number;
  readonly memoryBytes: number;
  /** By command; those that scripts call are counted too. */
  readonly calls: ReadonlyMap<string, number>;
};

export async function redisUse(redis: Redis): Promise<RedisUse> {
  const text = await redis.info("stats", "cpu", "memory", "commandstats");
  const fields = new Map(text.split("\r\n").map((line) => [line.split(":", 1)[0] ?? "", line.split(":")[1] ?? ""]));
  const field = (name: string) => Number(fields.get(name) ?? 0);
  const calls = new Map<string, number>();
  for (const [name, value] of fields) {
    if (name.startsWith("cmdstat_")) calls.set(name.slice("cmdstat_".length), Number(/calls=(\d+)/.exec(value)?.[1]));
  }
  return {
    reads: field("total_reads_processed"),
    cpuMs: (field("used_cpu_user") + field("used_cpu_sys")) * 1_000,
    memoryBytes: field("used_memory"),
    calls,
  };
}

export function redisUseBetween(before: RedisUse, after: RedisUse): RedisUse {
  return {
    reads: after.reads - before.reads,
    cpuMs: after.cpuMs - before.cpuMs,
    memoryBytes: after.memoryBytes - before.memoryBytes,
    calls: new Map([...after.calls].map(([name, calls]) => [name, calls - (before.calls.get(name) ?? 0)])),
  };
}

export function callsIn({ calls }: RedisUse): number {
  return [...calls.values()].reduce((sum, count) => sum + count, 0);
}
