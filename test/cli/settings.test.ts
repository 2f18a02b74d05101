/** Where commands without settings of their own find Redis, bucket and accounts: in what a running `up` left. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test as base, describe, expect } from "vitest";
import { commandConfig } from "../../src/cli/settings.ts";
import { ConfigError, readConfig } from "../../src/config.ts";
import { readUpFile, removeUpFile, type UpFile, writeUpFile } from "../../src/embedded/up-file.ts";
import { createCometApi } from "../../src/providers/cometapi.ts";
import { createReplicate } from "../../src/providers/replicate.ts";
import { openServices, TARGETS } from "../../src/wiring.ts";

const test = base.extend("stateDir", async ({ task: _task }, { onCleanup }) => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-settings-test-"));
  onCleanup(() => rm(folder, { recursive: true, force: true }));
  return folder;
});

const up: UpFile = {
  pid: process.pid,
  started_at: "2026-11-22T00:00:00.000Z",
  redis_url: "redis://127.0.0.1:20001",
  bucket: "file:/somewhere/bucket",
  dashboard_url: "http://127.0.0.1:7700",
  accounts: [{ name: "replicate", provider: "replicate", creates_per_minute: 120 }],
  emulator: null,
};

async function endedProcess(): Promise<number> {
  const child = spawn(process.execPath, ["-e", ""]);
  await once(child, "exit");
  return child.pid ?? 0;
}

describe("up.json", () => {
  test("is read back as it was written, by its owner alone", async ({ stateDir }) => {
    await writeUpFile(stateDir, up);
    expect(await readUpFile(stateDir)).toEqual(up);
    expect((await stat(path.join(stateDir, "up.json"))).mode & 0o777).toBe(0o600);
    expect(await readdir(stateDir)).toEqual(["up.json"]);
  });

  test("names a folder as bucket by its whole path", async ({ stateDir }) => {
    await writeUpFile(stateDir, { ...up, bucket: "file:here" });
    expect((await readUpFile(stateDir))?.bucket).toBe(`file:${path.resolve("here")}`);
  });

  test("of a process that is gone counts as absent", async ({ stateDir }) => {
    await writeUpFile(stateDir, { ...up, pid: await endedProcess() });
    expect(await readUpFile(stateDir)).toBeNull();
  });

  test("is absent in a folder that is", async ({ stateDir }) => {
    expect(await readUpFile(path.join(stateDir, "nowhere"))).toBeNull();
  });

  test("that something else wrote is told", async ({ stateDir }) => {
    await writeFile(path.join(stateDir, "up.json"), '{"pid": "one"}');
    await expect(readUpFile(stateDir)).rejects.toThrow(/up\.json isn't what `outlast up` writes there: remove it/);
  });

  test("is removed by its own process only", async ({ stateDir }) => {
    await writeUpFile(stateDir, up);
    await removeUpFile(stateDir, up.pid + 1);
    expect(await readUpFile(stateDir)).toEqual(up);
    await removeUpFile(stateDir, up.pid);
    expect(await readUpFile(stateDir)).toBeNull();
    await removeUpFile(stateDir, up.pid);
  });

  test("holds no token", async ({ stateDir }) => {
    const withToken = { ...up, accounts: up.accounts.map((account) => ({ ...account, token: "r8_secret" })) };
    await writeUpFile(stateDir, withToken);
    expect(await readFile(path.join(stateDir, "up.json"), "utf8")).not.toContain("r8_secret");
  });
});

describe("a command", () => {
  test("takes Redis, bucket and accounts from a running up, and gets no token by it", async ({ stateDir }) => {
    await writeUpFile(stateDir, { ...up, s3_endpoint: "http://127.0.0.1:9000" });
    const config = await commandConfig({ OUTLAST_STATE_DIR: stateDir, REPLICATE_API_TOKEN: "r8_mine" });
    expect(config).toMatchObject({
      redisUrl: up.redis_url,
      bucket: up.bucket,
      s3Endpoint: "http://127.0.0.1:9000",
      accounts: [{ name: "replicate", provider: "replicate", createsPerMinute: 120, token: null }],
    });
  });

  test("with a Redis of its own asks nobody", async ({ stateDir }) => {
    await writeUpFile(stateDir, up);
    const env = { OUTLAST_STATE_DIR: stateDir, OUTLAST_REDIS_URL: "redis://127.0.0.1:20002" };
    expect(await commandConfig(env)).toEqual(readConfig(env));
  });

  test("that names the same Redis and no account learns the accounts", async ({ stateDir }) => {
    await writeUpFile(stateDir, up);
    const config = await commandConfig({ OUTLAST_STATE_DIR: stateDir, OUTLAST_REDIS_URL: up.redis_url });
    expect(config.accounts).toMatchObject([{ name: "replicate", token: null }]);
  });

  test("never puts rows into another bucket than the one that up works with", async ({ stateDir }) => {
    await writeUpFile(stateDir, up);
    const env = { OUTLAST_STATE_DIR: stateDir };
    await expect(commandConfig({ ...env, OUTLAST_BUCKET: "s3://elsewhere" })).rejects.toThrow(
      /OUTLAST_BUCKET is s3:\/\/elsewhere, but the running `outlast up` keeps its objects in file:\/somewhere\/bucket/,
    );
    expect((await commandConfig({ ...env, OUTLAST_BUCKET: "file:///somewhere/./bucket" })).bucket).toBe(up.bucket);
  });

  test("finds nothing where nothing is up", async ({ stateDir }) => {
    expect((await commandConfig({ OUTLAST_STATE_DIR: stateDir })).redisUrl).toBeNull();
  });
});

describe("accounts", () => {
  test("without a token are refused by a worker before anything is opened", async ({ stateDir }) => {
    await mkdir(path.join(stateDir, "deeper"));
    await writeUpFile(stateDir, up);
    const config = await commandConfig({ OUTLAST_STATE_DIR: stateDir });
    await expect(openServices(config, "worker")).rejects.toThrow(ConfigError);
    await expect(openServices(config, "worker")).rejects.toThrow(/account replicate has no token: set REPLICATE_API/);
  });

  test("take the same forms whether or not somebody speaks to their provider", async () => {
    await using replicate = createReplicate({ baseUrl: "http://127.0.0.1:1", token: "r8_not_a_token" });
    await using comet = createCometApi({ baseUrl: "http://127.0.0.1:1", key: "sk-not-a-key" });
    expect({ replicate: replicate.targets, cometapi: comet.targets }).toEqual(TARGETS);
  });
});
