/** The server over a real Redis and a folder, as a fixture: with the settings a test wants, and closed by itself. */

import { mkdtemp, rm } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import type { FastifyInstance } from "fastify";
import { Redis } from "ioredis";
import { type Logger, pino } from "pino";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { readConfig } from "../../src/config.ts";
import { type BatchId, parseBatchId } from "../../src/core/naming.ts";
import { buildServer, listen, type ServerDeps } from "../../src/server/server.ts";
import { type CommandServices, openServices } from "../../src/wiring.ts";
import { test as base } from "../support/redis.ts";
import { openAccount } from "../support/stages.ts";

export type ServeOptions = {
  /** More settings. */
  readonly env?: Readonly<Record<string, string>>;
  readonly log?: Logger;
  readonly timeouts?: ServerDeps["timeouts"];
  /** What the server is given in the place of the real things. */
  readonly over?: (services: CommandServices) => Partial<Pick<ServerDeps, "bucket" | "ledger">>;
};

export type Served = {
  readonly app: FastifyInstance;
  readonly services: CommandServices;
  /** On a free port of loopback, which it answers. */
  readonly listen: () => Promise<number>;
};

/** `serve(options)`: as often as a test likes, on one Redis. */
export const test = base.extend("serve", async ({ redis }, { onCleanup }) => {
  const opened = new AsyncDisposableStack();
  onCleanup(() => opened.disposeAsync());
  opened.defer(() => empty(redis.url)); // one test, one world
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-server-test-"));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const bucket = path.join(folder, "bucket");

  return async (options: ServeOptions = {}): Promise<Served & { readonly folder: string }> => {
    const env = { OUTLAST_REDIS_URL: redis.url, OUTLAST_BUCKET: `file:${bucket}`, ...options.env };
    return { ...opened.use(await openServer({ ...options, env })), folder: bucket };
  };
});

/** `env`: names Redis and bucket, too. */
export async function openServer(
  options: ServeOptions & { readonly env: Readonly<Record<string, string>> },
): Promise<Served & AsyncDisposable> {
  await using opened = new AsyncDisposableStack();
  const config = readConfig({ REPLICATE_API_TOKEN: "r8_not_a_token", OUTLAST_PORT: "0", ...options.env });
  const services = opened.use(await openServices(config, "server"));
  for (const { name } of services.accounts) await openAccount(services.ledger, name);
  const app = await buildServer({
    ...services,
    ...options.over?.(services),
    emulated: false,
    log: options.log ?? pino({ level: "silent" }),
    ...(options.timeouts !== undefined && { timeouts: options.timeouts }),
  });
  opened.defer(() => app.close());
  const held = opened.move();
  return {
    app,
    services,
    async listen() {
      await listen(app, config);
      return (app.server.address() as AddressInfo).port;
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function empty(url: string): Promise<void> {
  const client = new Redis(url);
  await client.flushall();
  await client.quit();
}

/** A bucket some of whose methods are the test's. */
export function bucketWith(bucket: Bucket, own: Partial<Bucket>): Bucket {
  return new Proxy(bucket, {
    get(target, name) {
      const owner = name in own ? own : target;
      const value: unknown = Reflect.get(owner, name);
      return typeof value === "function" ? (value.bind(owner) as unknown) : value;
    },
  });
}

/** Keys of three roles and two tenants. */
export const KEYS = {
  viewer: "acme-viewer-key-0001",
  producer: "acme-producer-key-0001",
  operator: "acme-operator-key-0001",
  stranger: "other-producer-key-0001",
} as const;

export const WITH_KEYS = {
  OUTLAST_API_KEYS: [
    `acme:${KEYS.viewer}:viewer`,
    `acme:${KEYS.producer}`,
    `acme:${KEYS.operator}:operator`,
    `other:${KEYS.stranger}`,
  ].join(","),
};

export const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

export const NDJSON = { "content-type": "application/x-ndjson" };

/** So many rows for `outlast/text`, a line each. */
export function rows(count: number): string {
  return Array.from({ length: count }, (_, n) => `{"input":{"prompt":"row ${n}"},"model":"outlast/text"}\n`).join("");
}

/** Submits rows over HTTP; answers the batch's id. */
export async function post(app: FastifyInstance, payload: string, options: PostOptions = {}): Promise<BatchId> {
  const { url = "/v1/batches", headers = {} } = options;
  const answer = await app.inject({ method: "POST", url, headers: { ...NDJSON, ...headers }, payload });
  const id = parseBatchId(String(answer.json<{ batch?: unknown }>().batch));
  if (id === null) throw new Error(`no batch came of it: ${answer.statusCode} ${answer.body}`);
  return id;
}

type PostOptions = { readonly url?: string; readonly headers?: Readonly<Record<string, string>> };
