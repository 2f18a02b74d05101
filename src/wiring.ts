/**
 * Config → live objects, closed in reverse order: the only composition root. Only entry points import it.
 */

import { randomUUID } from "node:crypto";
import type { Redis } from "ioredis";
import { type HostRule, parseHostRule } from "./bucket/addresses.ts";
import type { Bucket } from "./bucket/bucket.ts";
import { openBucket } from "./bucket/open-bucket.ts";
import { type AccountConfig, type Config, ConfigError, type Secret, s3SettingsOf } from "./config.ts";
import type { AccountName } from "./core/naming.ts";
import { SECOND } from "./core/time.ts";
import { type AccountGate, openGate } from "./gates/account-gate.ts";
import { gatedProvider } from "./gates/gated-provider.ts";
import { connectRedis, type RedisUse, requireSoundRedis } from "./ledger/connect-redis.ts";
import { type Ledger, openLedger } from "./ledger/ledger.ts";
import { COMETAPI_TARGETS, createCometApi } from "./providers/cometapi.ts";
import type { Provider } from "./providers/provider.ts";
import { createReplicate, REPLICATE_TARGETS } from "./providers/replicate.ts";
import { openQueues, type Queues } from "./queues/enqueue.ts";

/** What a command knows of an account: enough to submit to it and to show it, nothing to speak with. */
export type KnownAccount = Omit<AccountConfig, "token"> & { readonly targets: Provider["targets"] };

/** An account with a provider that can be spoken to. */
export type Account = KnownAccount & {
  /** Through the gate: what it answers teaches the whole fleet. */
  readonly speak: Provider;
  readonly gate: AccountGate;
  /** For output files that ask for it, and the hosts that may see it. */
  readonly fileToken: { readonly token: string; readonly hosts: readonly HostRule[] };
};

/** What every process needs. */
export type CommandServices = AsyncDisposable & {
  readonly config: Config;
  readonly redis: Redis;
  readonly bucket: Bucket;
  readonly ledger: Ledger;
  readonly queues: Queues;
  readonly accounts: readonly KnownAccount[];
  /** Where output files may come from. */
  readonly outputHosts: readonly HostRule[];
  /** Where clients' webhooks may be. */
  readonly webhookHosts: readonly HostRule[];
};

/** What a server needs: it speaks to providers about their webhooks, for the accounts that have a token here. */
export type ServerServices = CommandServices & { readonly providers: ReadonlyMap<AccountName, Provider> };

/** What a process needs that works for its accounts. */
export type Services = Omit<CommandServices, "accounts"> & { readonly accounts: readonly Account[] };

/** What each provider runs: a command knows it without opening one. */
export const TARGETS: Readonly<Record<AccountConfig["provider"], Provider["targets"]>> = {
  replicate: REPLICATE_TARGETS,
  cometapi: COMETAPI_TARGETS,
};

/** Replicate's delivery hosts, as its pages and recorded answers name them; CometAPI passes them through. */
const DELIVERY_HOSTS = ["replicate.delivery", "*.replicate.delivery"];
const MORE_OUTPUT_HOSTS = ["storage.googleapis.com", "api.replicate.com", "stream.replicate.com"];

/** A client may be told anywhere in public, over https. */
const ANY_PUBLIC_HOST = "*";

/** A client waits for each answer. */
const SERVER_BUCKET_DEADLINE_MS = 8 * SECOND;

/** Who may see an account's token, should a file ask for it: the provider's own delivery domain, if it has one. */
const TOKEN_HOSTS: Readonly<Record<AccountConfig["provider"], readonly string[]>> = {
  replicate: [...DELIVERY_HOSTS, "api.replicate.com"],
  cometapi: [],
};

/**
 * Opens what the configuration names. A `worker` waits through an outage of Redis and speaks to its accounts'
 * providers; a `command` and a `server` fail within seconds. Throws ConfigError, RedisUnusable or BucketError.
 */
export function openServices(config: Config, use: "worker"): Promise<Services>;
export function openServices(config: Config, use: "server"): Promise<ServerServices>;
export function openServices(config: Config, use: "command"): Promise<CommandServices>;
export async function openServices(config: Config, use: RedisUse): Promise<CommandServices | ServerServices> {
  if (config.redisUrl === null) {
    throw new ConfigError(["no Redis is named: set OUTLAST_REDIS_URL, or start everything with `outlast up`"]);
  }
  await using opened = new AsyncDisposableStack();
  const speakers = use === "worker" ? config.accounts.map((account) => openAccount(account, opened)) : null;
  const speaking = use === "server" ? { providers: opened.use(openProviders(config.accounts)).providers } : {};

  const redis = await connectRedis(config.redisUrl, use);
  opened.defer(() => redis.disconnect());
  await requireSoundRedis(redis, config.redisUrl, use);

  const bucket = await openBucket(config.bucket, {
    ...s3SettingsOf(config),
    ...(use === "server" && { deadlineMs: SERVER_BUCKET_DEADLINE_MS }),
  });
  opened.defer(() => bucket.close());

  const queues = openQueues(redis);
  opened.defer(() => queues.close());

  const ledger = openLedger(redis);
  const accounts =
    speakers?.map((account): Account => {
      const gate = openGate(account, { ledger, queues, clock: Date.now, mark: randomUUID });
      opened.defer(async () => {
        if (redis.status === "ready") await gate.flush();
      });
      return { ...account, gate, speak: gatedProvider(account.speak, gate) };
    }) ?? config.accounts.map(({ token: _token, ...known }) => ({ ...known, targets: TARGETS[known.provider] }));

  const held = opened.move();
  return {
    config,
    redis,
    bucket,
    queues,
    accounts,
    ledger,
    outputHosts: [...DELIVERY_HOSTS, ...MORE_OUTPUT_HOSTS, ...config.outputHosts].map(parseHostRule),
    webhookHosts: [ANY_PUBLIC_HOST, ...config.webhookHosts].map(parseHostRule),
    ...speaking,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function openAccount({ token, ...known }: AccountConfig, opened: AsyncDisposableStack): Omit<Account, "gate"> {
  if (token === null) {
    throw new ConfigError([
      `account ${known.name} has no token: set REPLICATE_API_TOKEN or COMETAPI_KEY, or name it in OUTLAST_ACCOUNTS`,
    ]);
  }
  const speak = opened.use(openProvider(known, token));
  return {
    ...known,
    speak,
    targets: speak.targets,
    fileToken: { token: token.reveal(), hosts: TOKEN_HOSTS[known.provider].map(parseHostRule) },
  };
}

/** The providers of the accounts that have a token. */
function openProviders(
  accounts: readonly AccountConfig[],
): AsyncDisposable & { readonly providers: ServerServices["providers"] } {
  const opened = new AsyncDisposableStack();
  const providers = new Map<AccountName, Provider>();
  for (const { token, ...known } of accounts) {
    if (token !== null) providers.set(known.name, opened.use(openProvider(known, token)));
  }
  return { providers, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

export function openProvider(
  { provider, baseUrl }: Pick<AccountConfig, "provider" | "baseUrl">,
  token: Secret,
): Provider & AsyncDisposable {
  switch (provider) {
    case "replicate":
      return createReplicate({ baseUrl, token: token.reveal() });
    case "cometapi":
      return createCometApi({ baseUrl, key: token.reveal() });
    default:
      return provider satisfies never;
  }
}
