import { readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { inspect } from "node:util";
import { expect, test } from "vitest";
import { ConfigError, readConfig, VARIABLES } from "../src/config.ts";

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

test("an empty variable counts as not set", () => {
  const config = readConfig({ OUTLAST_BUCKET: "", REPLICATE_API_TOKEN: "", OUTLAST_PORT: "" });
  expect(config.accounts).toEqual([]);
  expect(config.port).toBe(7_700);
  expect(config.bucket).toMatch(/^file:.*\.outlast\/bucket$/);
});

test("each token makes an account, and the file adds more with limits of their own", async () => {
  const file = path.join(tmpdir(), `outlast-accounts-${process.pid}.json`);
  const spare = { provider: "replicate", token: "r8_spare", creates_per_minute: 6, tolerates_burst: false };
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
  await writeFile(file, JSON.stringify({ replicate: spare, "Bad Name": spare, odd: { provider: "acme", token: "" } }));
  expect(mistakesOf(env).join("\n")).toMatch(/odd\.provider/);
  await writeFile(file, '{"spare": {"token": "r8_secret"');
  const broken = mistakesOf(env).join("\n");
  expect(broken).toMatch(/isn't JSON/);
  expect(broken).not.toContain("r8_secret");
});

test("a configuration that is printed shows no token", () => {
  const config = readConfig({ REPLICATE_API_TOKEN: "r8_secret" });
  expect(inspect(config, { depth: null })).not.toContain("r8_secret");
  expect(JSON.stringify(config)).not.toContain("r8_secret");
  expect(String(config.accounts[0]?.token)).toBe("***");
  expect(config.accounts[0]?.token?.reveal()).toBe("r8_secret");
});
