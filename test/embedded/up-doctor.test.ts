/** `outlast doctor`, beside a running `up` and alone. */

import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect } from "vitest";
import { clockFinding } from "../../src/cli/doctor.ts";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { outlast } from "../cli/outlast.ts";
import { startTestRedis } from "../support/redis-server.ts";
import { test, upFileOf } from "./up-place.ts";

const TIMEOUT = 60_000;

describe("doctor", () => {
  test("beside a running up it finds all well", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up"]);
    const { dashboard_url } = await upFileOf(place.stateDir, up);
    const { code, stdout, stderr } = await outlast(["doctor"], { env: place.env });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain(`ok    server: ${dashboard_url} is ready\n`);
    expect(stdout).toContain("ok    redis: keeps an append-only file\n");
    expect(stdout).toContain("ok    bucket put-once: ");
    expect(stdout).toContain("ok    clock: agrees with that of Redis\n");
    expect(stdout).toContain("ok    account replicate: played by the emulator at ");
    for (const line of stdout.trimEnd().split("\n")) expect(line).toMatch(/^ok {4}/);
  });

  test("a good token is proved, a bad one refused, and neither is shown", { timeout: TIMEOUT }, async ({ place }) => {
    await using emulator = await startEmulator({ tokens: ["r8_good_token"] });
    await using redis = await startTestRedis({ args: ["--appendonly", "no"] });
    const env = { ...place.env, OUTLAST_REDIS_URL: redis.url, OUTLAST_REPLICATE_BASE_URL: emulator.apiUrl };
    const good = await outlast(["doctor"], { env: { ...env, REPLICATE_API_TOKEN: "r8_good_token" } });
    expect(good.code).toBe(0);
    expect(good.stdout).toContain(`ok    account replicate: its token is good at ${emulator.apiUrl}`);
    expect(good.stdout).toContain("ok    clock: agrees with that of the provider of replicate\n");
    expect(good.stdout).toContain("warn  redis: it keeps no append-only file");

    const bad = await outlast(["doctor", "--json"], { env: { ...env, REPLICATE_API_TOKEN: "r8_bad_token" } });
    expect(bad.code).toBe(1);
    const report = JSON.parse(bad.stdout) as { ok: boolean; findings: { level: string; what: string }[] };
    expect(report.ok).toBe(false);
    expect(report.findings.filter(({ level }) => level === "fail")).toEqual([
      { level: "fail", what: "account replicate", sentence: expect.stringContaining("is refused") },
    ]);
    expect(JSON.stringify([good, bad])).not.toMatch(/r8_(good|bad)_token/);
  });

  test("a Redis that may evict, and one that isn't there, are faults", { timeout: TIMEOUT }, async ({ place }) => {
    await using redis = await startTestRedis({ args: ["--maxmemory-policy", "allkeys-lru"] });
    const evicting = await outlast(["doctor"], { env: { ...place.env, OUTLAST_REDIS_URL: redis.url } });
    expect(evicting.code).toBe(1);
    expect(evicting.stdout).toMatch(/^FAIL {2}redis: its policy allkeys-lru may evict/m);

    const url = "redis://:secret@127.0.0.1:1";
    const absent = await outlast(["doctor"], { env: { ...place.env, OUTLAST_REDIS_URL: url } });
    expect(absent.code).toBe(1);
    expect(absent.stdout).toMatch(/^FAIL {2}redis: no Redis answers at redis:\/\/:\*\*\*@127\.0\.0\.1:1/m);
    expect(absent.stdout).toMatch(/^ok {4}bucket: /m);
  });

  test("mistakes in the settings are told all at once", async ({ place }) => {
    const env = { ...place.env, OUTLAST_PORT: "many", OUTLAST_SPEED: "fast", OUTLAST_BUCKET: "ftp://x" };
    const { code, stdout } = await outlast(["doctor"], { env });
    expect(code).toBe(1);
    expect(stdout.match(/^FAIL {2}settings: OUTLAST_(PORT|SPEED|BUCKET) .*$/gm)).toHaveLength(3);
  });

  test("without anything set it says what up would do", async ({ place }) => {
    const { code, stdout } = await outlast(["doctor"], { env: place.env });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ok {4}redis: none is named and none runs; `outlast up` will start (Redis|Valkey) \d/m);
    expect(stdout).toMatch(/^warn {2}account: none: /m);

    const bare = await outlast(["doctor"], { env: { ...place.env, PATH: "/nowhere" } });
    expect(bare.code).toBe(1);
    expect(bare.stdout).toMatch(/^FAIL {2}redis: no redis-server is on PATH: run `npm run setup`/m);
  });

  test("a bucket that is a file is a fault", async ({ place }) => {
    const file = path.join(place.stateDir, "note.txt");
    await mkdir(place.stateDir, { recursive: true });
    await writeFile(file, "not a folder");
    const { code, stdout } = await outlast(["doctor"], { env: { ...place.env, OUTLAST_BUCKET: `file:${file}` } });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^FAIL {2}bucket.*note\.txt/m);
  });
});

describe("clocks", () => {
  test("two seconds are forgiven, half a minute isn't", () => {
    const levels = [0, 1_999, -2_000, 2_100, -5_000, 30_000, 30_001, -3_600_000].map((skewMs) => {
      const { level, sentence } = clockFinding("Redis", skewMs);
      return `${skewMs}: ${level}, ${sentence}`;
    });
    expect(levels).toMatchInlineSnapshot(`
      [
        "0: ok, agrees with that of Redis",
        "1999: ok, agrees with that of Redis",
        "-2000: ok, agrees with that of Redis",
        "2100: warn, this machine's is 2.1 s behind that of Redis: set it by NTP",
        "-5000: warn, this machine's is 5.0 s ahead of that of Redis: set it by NTP",
        "30000: warn, this machine's is 30.0 s behind that of Redis: set it by NTP",
        "30001: fail, this machine's is 30.0 s behind that of Redis: set it by NTP",
        "-3600000: fail, this machine's is 3600.0 s ahead of that of Redis: set it by NTP",
      ]
    `);
  });
});
