/** Who is behind a port on loopback: this folder's own Redis, proved by `CONFIG GET dir`, or somebody else. */

import { Redis } from "ioredis";
import { errorCode } from "./redis-server-error.ts";

export const HOST = "127.0.0.1";
const ANSWER_TIMEOUT_MS = 5_000;

export type Listener =
  | { readonly kind: "ours"; readonly pid: number; readonly loading: boolean }
  | { readonly kind: "nobody" }
  | { readonly kind: "stranger" }
  /** Takes connections and says nothing: it could be ours, stopped. */
  | { readonly kind: "silent" };

export async function whoListens(port: number, dir: string): Promise<Listener> {
  const client = connection(port);
  const failures: unknown[] = [];
  client.on("error", (error) => failures.push(error)); // what is thrown says only that the connection is closed
  try {
    await client.connect();
    const reply = await client.config("GET", "dir");
    const itsDir = Array.isArray(reply) ? reply[1] : undefined;
    const pid = Number(/process_id:(\d+)/.exec(await client.info("server"))?.[1]);
    if (itsDir !== dir || !Number.isInteger(pid)) return { kind: "stranger" };
    const loading = await client.ping().then(
      () => false,
      (error: unknown) => /LOADING/.test(String(error)),
    );
    return { kind: "ours", pid, loading };
  } catch (error) {
    failures.push(error);
    if (failures.some((failure) => errorCode(failure) === "ECONNREFUSED")) return { kind: "nobody" };
    if (failures.some((failure) => /timed out|timeout|ETIMEDOUT/i.test(String(failure)))) return { kind: "silent" };
    return { kind: "stranger" };
  } finally {
    client.disconnect();
  }
}

/** A connection, not opened yet, that gives up at its first failure and never connects again. */
export function connection(port: number): Redis {
  const client = new Redis({
    host: HOST,
    port,
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: null,
    maxRetriesPerRequest: 0,
    connectTimeout: ANSWER_TIMEOUT_MS,
    commandTimeout: ANSWER_TIMEOUT_MS,
  });
  client.on("error", () => {}); // the call that failed throws
  return client;
}
