import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { inspect } from "node:util";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigError, readConfig, VARIABLES } from "../src/config.ts";
import { HOUR } from "../src/core/time.ts";

const PROJECT = new URL("..", import.meta.url).pathname;

function mistakesOf(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes;
    throw error;
  }
  return [];
}

test("every setting is in .env.example and in the README, and neither names another", async () => {
  const read = new Set(VARIABLES);
  const example = await readFile(path.join(PROJECT, ".env.example"), "utf8");
  const named = [...example.matchAll(/^([A-Z][A-Z0-9_]+)=/gm)].map((match) => match[1]);
  expect(new Set(named)).toEqual(read);

  const readme = await readFile(path.join(PROJECT, "README.md"), "utf8");
  const documented = new Set(
    [...readme.matchAll(/`((?:OUTLAST_|REPLICATE_API_TOKEN|COMETAPI_KEY)[A-Z0-9_]*)`/g)].map((match) => match[1]),
  );
  expect(documented).toEqual(read);
});

test("all mistakes are told at once, each with its variable", () => {
  const mistakes = mistakesOf({
    OUTLAST_PORT: "seventy",
    OUTLAST_BUCKET: "ftp://x",
    OUTLAST_REDIS_URL: "localhost:6379",
    OUTLAST_CREATES_PER_MINUTE: "0",
    OUTLAST_OUTPUT_HOSTS: "http://x/",
    OUTLAST_BUKET: "file:x",
    OUTLAST_LOG_LEVEL: "loud",
    OUTLAST_ACCOUNTS: "/no/such/file.json",
  });
  for (const name of [
    "PORT",
    "BUCKET",
    "REDIS_URL",
    "CREATES_PER_MINUTE",
    "OUTPUT_HOSTS",
    "BUKET",
    "LOG_LEVEL",
    "ACCOUNTS",
  ]) {
    expect(mistakes.filter((mistake) => new RegExp(`^OUTLAST_${name}[ :]`).test(mistake))).toHaveLength(1);
  }
  expect(mistakes.join("\n")).toMatch(
    /LOG_LEVEL is one of silent, .*\n.*file\.json can't be read: there is no such file/s,
  );
});

test("a token or a base URL that no request could be made with is told, and what is secret in it isn't", async () => {
  const file = path.join(tmpdir(), `accounts-${process.pid}-odd.json`);
  await writeFile(
    file,
    JSON.stringify({ odd: { provider: "replicate", token: "r8_ odd", base_url: "http://h/?a=1" } }),
  );
  const mistakes = mistakesOf({
    REPLICATE_API_TOKEN: "r8_secret\r",
    COMETAPI_KEY: "sk-sécret",
    OUTLAST_REPLICATE_BASE_URL: "https://me:secret@h/v1",
    OUTLAST_COMETAPI_BASE_URL: "https://h/v1#secret",
    OUTLAST_PUBLIC_URL: "https://h?secret",
    OUTLAST_ACCOUNTS: file,
  });
  const [noToken, noUrl] = ["isn't visible ASCII without spaces", "holds a user, a query or a fragment"];
  expect(mistakes.map((mistake) => mistake.split(",")[0])).toEqual([
    `REPLICATE_API_TOKEN ${noToken}`,
    `COMETAPI_KEY ${noToken}`,
    "OUTLAST_REPLICATE_BASE_URL holds a user",
    "OUTLAST_COMETAPI_BASE_URL holds a user",
    "OUTLAST_PUBLIC_URL holds a user",
    `OUTLAST_ACCOUNTS (${file}): odd.token ${noToken}`,
    `OUTLAST_ACCOUNTS (${file}): odd.base_url holds a user`,
  ]);
  expect(mistakes.filter((mistake) => mistake.includes(noUrl))).toHaveLength(4);
  expect(mistakes.join()).not.toMatch(/secret|sécret/);
});

test("an empty variable counts as not set", () => {
  const config = readConfig({ OUTLAST_BUCKET: "", REPLICATE_API_TOKEN: "", OUTLAST_PORT: "" });
  expect(config.accounts).toEqual([]);
  expect(config.port).toBe(7_700);
  expect(config.bucket).toMatch(/^file:.*\.outlast\/bucket$/);
});

test("each token makes an account, and the file adds more with limits of their own", async () => {
  const file = path.join(tmpdir(), `outlast-accounts-${process.pid}.json`);
  const spare = {
    provider: "replicate",
    token: "r8_spare",
    creates_per_minute: 6,
    tolerates_burst: false,
    files_kept_seconds: 86_400,
  };
  await writeFile(file, JSON.stringify({ spare }));
  const env = { REPLICATE_API_TOKEN: "r8_one", COMETAPI_KEY: "sk-two", OUTLAST_ACCOUNTS: file };
  const { accounts } = readConfig(env);
  expect(
    accounts.map(({ name, createsPerMinute, toleratesBurst }) => [name, createsPerMinute, toleratesBurst]),
  ).toEqual([
    ["replicate", 600, true],
    ["cometapi", 300, true],
    ["spare", 6, false],
  ]);
  expect(accounts.map(({ filesKeptMs }) => filesKeptMs)).toEqual([HOUR, HOUR, 24 * HOUR]);
  await writeFile(file, JSON.stringify({ replicate: spare, "Bad Name": spare, odd: { provider: "acme", token: "" } }));
  expect(mistakesOf(env).join("\n")).toMatch(/odd\.provider/);
  await writeFile(file, '{"spare": {"token": "r8_secret"');
  const broken = mistakesOf(env).join("\n");
  expect(broken).toMatch(/isn't JSON/);
  expect(broken).not.toContain("r8_secret");
});

test("how S3 is to store objects is read, and what it would refuse is told", () => {
  expect(
    readConfig({
      OUTLAST_S3_STORAGE_CLASS: "STANDARD_IA",
      OUTLAST_S3_ENCRYPTION: "aws:kms:arn:aws:kms:eu-west-1:123456789012:key/1234-abcd",
      OUTLAST_S3_TAGS: "team=images and sound, stage = live",
      OUTLAST_S3_METADATA: "project=nightly",
    }).objects,
  ).toEqual({
    storageClass: "STANDARD_IA",
    encryption: { algorithm: "aws:kms", keyId: "arn:aws:kms:eu-west-1:123456789012:key/1234-abcd" },
    tags: { team: "images and sound", stage: "live" },
    metadata: { project: "nightly" },
  });
  expect(readConfig({ OUTLAST_S3_ENCRYPTION: "AES256" }).objects).toEqual({ encryption: { algorithm: "AES256" } });
  for (const [name, values] of [
    ["STORAGE_CLASS", ["standard ia", "GLACIER"]],
    ["ENCRYPTION", ["aes256", "aws:kms:", "aws:kms:a key"]],
    ["TAGS", ["team", "=x", "a=b,a=c", "a=<b>", Array.from({ length: 11 }, (_, n) => `tag${n}=x`).join(",")]],
    ["METADATA", ["Name=x", "a=", "a=ü", "outlast-writer=me", `a=${"x".repeat(513)}`]],
  ] as const) {
    for (const value of values) {
      const mistakes = mistakesOf({ [`OUTLAST_S3_${name}`]: value });
      expect(mistakes, `${name}: ${value}`).toHaveLength(1);
      expect(mistakes[0]).toMatch(new RegExp(`^OUTLAST_S3_${name} (is|isn't|has) `));
    }
  }
});

describe("API keys", () => {
  const KEY = "0123456789abcdef";
  const keysIn = (text: string) =>
    readConfig({ OUTLAST_API_KEYS: text }).apiKeys.map(({ key, ...rest }) => ({ ...rest, key: key.reveal() }));

  test("name a tenant, and a role and an account where they aren't the usual ones", () => {
    expect(readConfig({}).apiKeys).toEqual([]);
    expect(
      keysIn(`acme:${KEY}, other-1:${KEY}.~+/=_-:operator ,acme:${KEY}2:viewer,third:${KEY}3:producer:cometapi`),
    ).toEqual([
      { tenant: "acme", key: KEY, role: "producer", account: null },
      { tenant: "other-1", key: `${KEY}.~+/=_-`, role: "operator", account: null },
      { tenant: "acme", key: `${KEY}2`, role: "viewer", account: null },
      { tenant: "third", key: `${KEY}3`, role: "producer", account: "cometapi" },
    ]);
  });

  test("that can't be read are all told, each by its place, and none is shown", () => {
    const secret = "tell-nobody-12345";
    const entries: readonly (readonly [entry: string, reason: RegExp | null])[] = [
      [`acme:${secret}`, null],
      [`Acme:${secret}1`, /has no tenant/],
      [`${secret}2`, /has no (tenant|key)/],
      [`:${secret}3`, /has no tenant/],
      ["acme:tell-nobody", /has no key of 16 to 200/],
      [`acme:${secret} and more`, /has no key/],
      [`acme:${secret.repeat(20)}`, /has no key/],
      ["acme:", /has no key/],
      [`acme:${secret}4:admin`, /has a role that isn't viewer, producer, operator/],
      [`acme:${secret}5:`, /has a role/],
      [`acme:${secret}6:viewer:No Account`, /names no account at its end/],
      [`acme:${secret}7:viewer:replicate:more`, /names no account at its end/],
      [`other:${secret}`, /has the key of another/],
      [`fine:${secret}8`, null],
    ];
    const mistakes = mistakesOf({ OUTLAST_API_KEYS: entries.map(([entry]) => entry).join(",") });
    expect(mistakes).toEqual(
      entries.flatMap(([, reason], at) =>
        reason === null
          ? []
          : [expect.stringMatching(new RegExp(`^OUTLAST_API_KEYS entry ${at + 1} .*${reason.source}.*tenant:key`))],
      ),
    );
    expect(mistakes.join("\n")).not.toMatch(/tell-nobody/);
  });

  test("are never shown, whatever is wrong with them", () => {
    const part = fc.stringMatching(/^[a-cX-Z019:_. -]{12,40}$/);
    fc.assert(
      fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
        const text = parts.join(",");
        const told = mistakesOf({ OUTLAST_API_KEYS: text }).join("\n");
        for (const piece of text.split(/[,:]/)) if (piece.trim().length >= 12) expect(told).not.toContain(piece.trim());
      }),
    );
  });
});

test("limits of the API are set one by one, and the others stay", () => {
  const limits = (text: string) => readConfig({ OUTLAST_API_LIMITS: text }).apiLimits;
  const usual = { requests: 60_000, bytes: 4_294_967_296, rows: 5_000_000 };
  expect(readConfig({}).apiLimits).toEqual(usual);
  expect(limits("rows=10")).toEqual({ ...usual, rows: 10 });
  expect(limits("requests=1, bytes=2,rows=3")).toEqual({ requests: 1, bytes: 2, rows: 3 });
  expect(mistakesOf({ OUTLAST_API_LIMITS: "rows=0,speed=9,requests=5,bytes=1e9,rows" })).toEqual(
    ["rows=0", "speed=9", "bytes=1e9", "rows"].map(
      (part) => `OUTLAST_API_LIMITS is requests=N,bytes=N,rows=N a minute, not ${part}`,
    ),
  );
});

test("the server's public address and its clients' webhook hosts are read, and refused where they aren't any", () => {
  const { publicUrl, webhookHosts } = readConfig({
    OUTLAST_PUBLIC_URL: "https://predictions.example/",
    OUTLAST_WEBHOOK_HOSTS: "hooks.internal:8080, *.client.example",
  });
  expect({ publicUrl, webhookHosts }).toEqual({
    publicUrl: "https://predictions.example",
    webhookHosts: ["hooks.internal:8080", "*.client.example"],
  });
  expect(readConfig({})).toMatchObject({ publicUrl: null, webhookHosts: [] });
  expect(mistakesOf({ OUTLAST_PUBLIC_URL: "predictions", OUTLAST_WEBHOOK_HOSTS: "http://x/" })).toEqual([
    expect.stringMatching(/^OUTLAST_PUBLIC_URL /),
    expect.stringMatching(/^OUTLAST_WEBHOOK_HOSTS /),
  ]);
});

test("a configuration that is printed shows no token and no key", () => {
  const apiKey = "acme:r8_secret-of-a-client";
  expect(inspect(readConfig({ OUTLAST_API_KEYS: apiKey }), { depth: null })).not.toContain("r8_secret");
  expect(JSON.stringify(readConfig({ OUTLAST_API_KEYS: apiKey }))).not.toContain("r8_secret");
  const config = readConfig({ REPLICATE_API_TOKEN: "r8_secret" });
  expect(inspect(config, { depth: null })).not.toContain("r8_secret");
  expect(JSON.stringify(config)).not.toContain("r8_secret");
  expect(String(config.accounts[0]?.token)).toBe("***");
  expect(config.accounts[0]?.token?.reveal()).toBe("r8_secret");
});
