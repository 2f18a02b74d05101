/**
 * The environment → Config. Entry points hand over `process.env`; nobody else knows the names of settings.
 *
 * All mistakes are reported at once. Secrets are wrapped, so that printing the configuration prints stars.
 */

import { readFileSync } from "node:fs";
import path from "node:path";
import { inspect } from "node:util";
import { z } from "zod";
import { parseHostRule } from "./bucket/addresses.ts";
import {
  type ObjectSettings,
  parseEncryption,
  parseMetadata,
  parseStorageClass,
  parseTags,
} from "./bucket/object-settings.ts";
import { parseBucketAddress } from "./bucket/open-bucket.ts";
import type { S3Settings } from "./bucket/s3-client.ts";
import { type AccountName, isTenantName, parseAccountName } from "./core/naming.ts";
import { OUTPUT_LIFETIME_MS } from "./core/polling.ts";
import { SECOND } from "./core/time.ts";

/** A value that may be used, but not shown. */
export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return "***";
  }
  toJSON(): string {
    return "***";
  }
  [inspect.custom](): string {
    return "***";
  }
}

export type AccountConfig = {
  readonly name: AccountName;
  readonly provider: "replicate" | "cometapi";
  /** Null: known from `up.json` only. Commands never speak to a provider; a worker refuses such an account. */
  readonly token: Secret | null;
  readonly baseUrl: string;
  readonly createsPerMinute: number;
  readonly readsPerMinute: number;
  /** False: the provider refuses two creates that come closer together than the rate's interval. */
  readonly toleratesBurst: boolean;
  /** What becomes of an item whose request surely never arrived; null: `resend`, where the provider has a list. */
  readonly onUnclear: (typeof ON_UNCLEAR)[number] | null;
  /** For so long after its creation the provider keeps a prediction's files. */
  readonly filesKeptMs: number;
};

export const ROLES = ["viewer", "producer", "operator"] as const;
export type Role = (typeof ROLES)[number];

/** Whoever has the key acts for the tenant. */
export type ApiKey = {
  readonly tenant: string;
  readonly key: Secret;
  readonly role: Role;
  /** Who pays for what the key asks for; null: the only account, else `replicate`. */
  readonly account: AccountName | null;
};

/** What one key may ask for in a minute, of one server. */
export type ApiLimits = { readonly requests: number; readonly bytes: number; readonly rows: number };

const ON_UNCLEAR = ["resend", "hold", "fail"] as const;

export type Config = {
  readonly accounts: readonly AccountConfig[];
  /** Null: nobody named one; `up` starts its own. */
  readonly redisUrl: string | null;
  /** Whether `up` started it, for itself alone: then it syncs every write. */
  readonly ownRedis: boolean;
  readonly bucket: string;
  readonly s3Endpoint: string | null;
  /** How S3 is to store what is written. */
  readonly objects: ObjectSettings;
  /** Where others read what is kept, in place of the bucket's own address; null: they don't. */
  readonly publicBucketUrl: string | null;
  /** Beside the providers' own delivery hosts. */
  readonly outputHosts: readonly string[];
  readonly host: string;
  readonly port: number;
  /** Where clients reach the server; null: wherever they say they did. */
  readonly publicUrl: string | null;
  /** Empty: the server asks nobody, and listens on loopback alone. */
  readonly apiKeys: readonly ApiKey[];
  readonly apiLimits: ApiLimits;
  /** Hosts that clients' webhooks may be on, beside all public ones. */
  readonly webhookHosts: readonly string[];
  /** How late a prediction may show on the provider's list, and how long its input stays there. */
  readonly settlingMs: number;
  readonly listHorizonMs: number;
  readonly stateDir: string;
  readonly logLevel: (typeof LOG_LEVELS)[number];
};

/** Every mistake of the settings, a line each. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(`settings: ${mistakes.join("; ")}`);
    this.mistakes = mistakes;
  }
}

/** Replicate's documented limits (its rate-limits page); CometAPI publishes none, so half of that. */
const DEFAULT_LIMITS = {
  replicate: { creates: 600, reads: 3_000 },
  cometapi: { creates: 300, reads: 1_500 },
} as const;

const DEFAULT_BASE_URLS = {
  replicate: "https://api.replicate.com/v1",
  cometapi: "https://api.cometapi.com/replicate/v1",
} as const;

const perMinute = z.coerce
  .number({ error: "isn't a number" })
  .positive("must be above 0")
  .max(6_000_000, "must be at most 6000000");
const seconds = z.coerce.number({ error: "isn't a number" }).positive("must be above 0").max(86_400, "is over a day");
/** Paths are put behind it, and others may be told of it. */
const baseUrl = z
  .url({ protocol: /^https?$/, error: "isn't an http(s) URL" })
  .refine((url) => !/[?#]|\/\/[^/]*@/.test(url), "holds a user, a query or a fragment, and may not")
  .transform((url) => url.replace(/\/+$/, ""));
/** As it goes into a header. */
const token = z
  .string({ error: "is missing: the provider's token, as text" })
  .regex(/^[\x21-\x7e]+$/, "isn't visible ASCII without spaces, as tokens are");
const checked = (parse: (text: string) => unknown) =>
  z.string().superRefine((text, context) => {
    try {
      parse(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message });
    }
  });

/** What `parse` makes of a text; what it throws is told. */
const parsed = <T>(parse: (text: string) => T) =>
  z.string().transform((text, context): T => {
    try {
      return parse(text);
    } catch (error) {
      context.addIssue({ code: "custom", message: (error as Error).message });
      return z.NEVER;
    }
  });

/** Generous: they stop a runaway program, not a busy one. */
const DEFAULT_API_LIMITS: ApiLimits = { requests: 60_000, bytes: 4 * 1024 ** 3, rows: 5_000_000 };

const apiLimits = z.string().transform((text, context): ApiLimits => {
  const limits: { -readonly [Name in keyof ApiLimits]: number } = { ...DEFAULT_API_LIMITS };
  for (const part of listOf(text)) {
    const [, name, amount] = /^(requests|bytes|rows)=([1-9]\d{0,14})$/.exec(part) ?? [];
    if (name === undefined) {
      context.addIssue({ code: "custom", message: `is requests=N,bytes=N,rows=N a minute, not ${part}` });
    } else {
      limits[name as keyof ApiLimits] = Number(amount);
    }
  }
  return limits;
});

/** Never repeats the text: it holds keys. */
const apiKeys = z.string().transform((text, context): readonly ApiKey[] => {
  const keys: ApiKey[] = [];
  for (const [at, part] of listOf(text).entries()) {
    const read = readApiKey(part, keys);
    if (typeof read !== "string") keys.push(read);
    else {
      const message = `entry ${at + 1} ${read}; each is tenant:key[:role[:account]]`;
      context.addIssue({ code: "custom", message });
    }
  }
  return keys;
});

/** A text says what is wrong. */
function readApiKey(entry: string, others: readonly ApiKey[]): ApiKey | string {
  const [tenant = "", key = "", role = "producer", account, ...more] = entry.split(":");
  const name = account === undefined ? null : parseAccountName(account);
  if (!isTenantName(tenant)) return "has no tenant (a-z, 0-9 and -, up to 31)";
  if (!/^[\w.~+/=-]{16,200}$/.test(key)) return "has no key of 16 to 200 letters, digits or ._~+/=-";
  if (!(ROLES as readonly string[]).includes(role)) return `has a role that isn't ${ROLES.join(", ")}`;
  if ((account !== undefined && name === null) || more.length > 0) return "names no account at its end";
  if (others.some((other) => other.key.reveal() === key)) return "has the key of another";
  return { tenant, key: new Secret(key), role: role as Role, account: name };
}

const LOG_LEVELS = ["silent", "fatal", "error", "warn", "info", "debug", "trace"] as const;

const environment = z.object({
  REPLICATE_API_TOKEN: token.optional(),
  COMETAPI_KEY: token.optional(),
  OUTLAST_ACCOUNTS: z.string().optional(),
  OUTLAST_REDIS_URL: z.url({ protocol: /^rediss?$/, error: "isn't a redis:// or rediss:// URL" }).optional(),
  OUTLAST_OWN_REDIS: z.stringbool({ error: "is true or false" }).default(false),
  OUTLAST_BUCKET: checked(parseBucketAddress).optional(),
  OUTLAST_S3_ENDPOINT: z.url({ protocol: /^https?$/, error: "isn't an http(s) URL" }).optional(),
  OUTLAST_S3_STORAGE_CLASS: parsed(parseStorageClass).optional(),
  OUTLAST_S3_ENCRYPTION: parsed(parseEncryption).optional(),
  OUTLAST_S3_TAGS: parsed(parseTags).optional(),
  OUTLAST_S3_METADATA: parsed(parseMetadata).optional(),
  OUTLAST_PUBLIC_BUCKET_URL: baseUrl.optional(),
  OUTLAST_REPLICATE_BASE_URL: baseUrl.default(DEFAULT_BASE_URLS.replicate),
  OUTLAST_COMETAPI_BASE_URL: baseUrl.default(DEFAULT_BASE_URLS.cometapi),
  OUTLAST_OUTPUT_HOSTS: checked((text) => listOf(text).forEach(parseHostRule)).optional(),
  OUTLAST_CREATES_PER_MINUTE: perMinute.optional(),
  OUTLAST_READS_PER_MINUTE: perMinute.optional(),
  OUTLAST_HOST: z.string().default("127.0.0.1"),
  OUTLAST_PORT: z.coerce.number({ error: "isn't a number" }).int().min(0).max(65_535).default(7_700),
  OUTLAST_PUBLIC_URL: baseUrl.optional(),
  OUTLAST_API_KEYS: apiKeys.default([]),
  OUTLAST_API_LIMITS: apiLimits.default(DEFAULT_API_LIMITS),
  OUTLAST_WEBHOOK_HOSTS: checked((text) => listOf(text).forEach(parseHostRule)).optional(),
  OUTLAST_SETTLING_SECONDS: seconds.default(600),
  OUTLAST_LIST_HORIZON_SECONDS: seconds.default(3_000),
  OUTLAST_STATE_DIR: z.string().default(".outlast"),
  OUTLAST_LOG_LEVEL: z.enum(LOG_LEVELS, { error: `is one of ${LOG_LEVELS.join(", ")}` }).default("info"),
});

/** An account that somebody else works for: enough to submit to it and to show it. */
export function knownAccount(
  name: AccountName,
  provider: AccountConfig["provider"],
  createsPerMinute: number = DEFAULT_LIMITS[provider].creates,
): AccountConfig {
  return {
    name,
    provider,
    token: null,
    baseUrl: DEFAULT_BASE_URLS[provider],
    createsPerMinute,
    readsPerMinute: DEFAULT_LIMITS[provider].reads,
    toleratesBurst: true,
    onUnclear: null,
    filesKeptMs: OUTPUT_LIFETIME_MS,
  };
}

/** Every variable that is read here, for the documentation's test. */
export const VARIABLES: readonly string[] = Object.keys(environment.shape);

const accountsFile = z.record(
  z.string(),
  z.strictObject({
    provider: z.enum(["replicate", "cometapi"], { error: "is replicate or cometapi" }),
    token,
    base_url: baseUrl.optional(),
    creates_per_minute: perMinute.optional(),
    reads_per_minute: perMinute.optional(),
    tolerates_burst: z.boolean().default(true),
    on_unclear: z.enum(ON_UNCLEAR, { error: `is ${ON_UNCLEAR.join(", ")}` }).optional(),
    files_kept_seconds: z
      .number({ error: "isn't a number" })
      .min(1, "must be at least 1")
      .max(31_536_000, "is over a year")
      .optional(),
  }),
);

/** Throws ConfigError with every mistake. An empty variable counts as not set. */
export function readConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const set = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== undefined && value !== ""));
  const mistakes: string[] = [];
  for (const name of Object.keys(set)) {
    if (name.startsWith("OUTLAST_") && !VARIABLES.includes(name) && !name.startsWith("OUTLAST_TEST_")) {
      mistakes.push(
        `${name} isn't a setting (known: ${VARIABLES.filter((known) => known.startsWith("OUTLAST_")).join(", ")})`,
      );
    }
  }
  const read = environment.safeParse(set);
  if (!read.success) {
    mistakes.push(...read.error.issues.map((issue) => `${issue.path.join(".")} ${issue.message}`));
    // The file has mistakes of its own to tell.
    readAccountsFile(set["OUTLAST_ACCOUNTS"], mistakes);
    throw new ConfigError(mistakes);
  }
  const settings = read.data;
  const accounts = readAccounts(settings, mistakes);
  if (mistakes.length > 0) throw new ConfigError(mistakes);

  const stateDir = path.resolve(settings.OUTLAST_STATE_DIR);
  return {
    accounts,
    redisUrl: settings.OUTLAST_REDIS_URL ?? null,
    ownRedis: settings.OUTLAST_OWN_REDIS,
    bucket: settings.OUTLAST_BUCKET ?? `file:${path.join(stateDir, "bucket")}`,
    s3Endpoint: settings.OUTLAST_S3_ENDPOINT ?? null,
    objects: {
      ...(settings.OUTLAST_S3_STORAGE_CLASS !== undefined && { storageClass: settings.OUTLAST_S3_STORAGE_CLASS }),
      ...(settings.OUTLAST_S3_ENCRYPTION !== undefined && { encryption: settings.OUTLAST_S3_ENCRYPTION }),
      ...(settings.OUTLAST_S3_TAGS !== undefined && { tags: settings.OUTLAST_S3_TAGS }),
      ...(settings.OUTLAST_S3_METADATA !== undefined && { metadata: settings.OUTLAST_S3_METADATA }),
    },
    publicBucketUrl: settings.OUTLAST_PUBLIC_BUCKET_URL ?? null,
    outputHosts: listOf(settings.OUTLAST_OUTPUT_HOSTS ?? ""),
    host: settings.OUTLAST_HOST,
    port: settings.OUTLAST_PORT,
    publicUrl: settings.OUTLAST_PUBLIC_URL ?? null,
    apiKeys: settings.OUTLAST_API_KEYS,
    apiLimits: settings.OUTLAST_API_LIMITS,
    webhookHosts: listOf(settings.OUTLAST_WEBHOOK_HOSTS ?? ""),
    settlingMs: settings.OUTLAST_SETTLING_SECONDS * 1_000,
    listHorizonMs: settings.OUTLAST_LIST_HORIZON_SECONDS * 1_000,
    stateDir,
    logLevel: settings.OUTLAST_LOG_LEVEL,
  };
}

export function s3SettingsOf({ s3Endpoint, objects }: Pick<Config, "s3Endpoint" | "objects">): S3Settings {
  return { ...(s3Endpoint !== null && { endpoint: s3Endpoint }), objects };
}

type Settings = z.output<typeof environment>;

function readAccounts(settings: Settings, mistakes: string[]): readonly AccountConfig[] {
  const accounts: AccountConfig[] = [];
  const add = (name: string, provider: AccountConfig["provider"], own: Partial<AccountConfig> & { token: Secret }) => {
    const parsed = parseAccountName(name);
    if (parsed === null) {
      mistakes.push(`OUTLAST_ACCOUNTS: ${JSON.stringify(name)} is no name for an account (a-z, 0-9 and -, up to 31)`);
      return;
    }
    accounts.push({
      name: parsed,
      provider,
      token: own.token,
      baseUrl:
        own.baseUrl ?? settings[provider === "replicate" ? "OUTLAST_REPLICATE_BASE_URL" : "OUTLAST_COMETAPI_BASE_URL"],
      createsPerMinute: own.createsPerMinute ?? settings.OUTLAST_CREATES_PER_MINUTE ?? DEFAULT_LIMITS[provider].creates,
      readsPerMinute: own.readsPerMinute ?? settings.OUTLAST_READS_PER_MINUTE ?? DEFAULT_LIMITS[provider].reads,
      toleratesBurst: own.toleratesBurst ?? true,
      onUnclear: own.onUnclear ?? null,
      filesKeptMs: own.filesKeptMs ?? OUTPUT_LIFETIME_MS,
    });
  };

  if (settings.REPLICATE_API_TOKEN !== undefined)
    add("replicate", "replicate", { token: new Secret(settings.REPLICATE_API_TOKEN) });
  if (settings.COMETAPI_KEY !== undefined) add("cometapi", "cometapi", { token: new Secret(settings.COMETAPI_KEY) });
  for (const [name, own] of Object.entries(readAccountsFile(settings.OUTLAST_ACCOUNTS, mistakes))) {
    if (accounts.some((account) => account.name === name)) {
      mistakes.push(`OUTLAST_ACCOUNTS: the account ${name} is also made by a variable of its own`);
      continue;
    }
    add(name, own.provider, {
      token: new Secret(own.token),
      toleratesBurst: own.tolerates_burst,
      onUnclear: own.on_unclear ?? null,
      ...(own.base_url !== undefined && { baseUrl: own.base_url }),
      ...(own.creates_per_minute !== undefined && { createsPerMinute: own.creates_per_minute }),
      ...(own.reads_per_minute !== undefined && { readsPerMinute: own.reads_per_minute }),
      ...(own.files_kept_seconds !== undefined && { filesKeptMs: own.files_kept_seconds * SECOND }),
    });
  }
  return accounts;
}

function readAccountsFile(file: string | undefined, mistakes: string[]): z.output<typeof accountsFile> {
  if (file === undefined) return {};
  try {
    const read = accountsFile.safeParse(JSON.parse(readFileSync(file, "utf8")));
    if (read.success) return read.data;
    mistakes.push(
      ...read.error.issues.map((issue) => `OUTLAST_ACCOUNTS (${file}): ${issue.path.join(".")} ${issue.message}`),
    );
  } catch (error) {
    // A JSON error may quote the file's text, and with it a token: only its kind is told.
    const { code } = error as NodeJS.ErrnoException;
    const why = error instanceof SyntaxError ? "it isn't JSON" : code === "ENOENT" ? "there is no such file" : code;
    mistakes.push(`OUTLAST_ACCOUNTS: ${file} can't be read: ${why}`);
  }
  return {};
}

function listOf(text: string): readonly string[] {
  return text
    .split(",")
    .map((entry) => entry.trim())
    .filter((entry) => entry !== "");
}
