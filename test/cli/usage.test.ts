/** What a person reads who types something wrong, or whose surroundings are wrong: lines that say what to do. */

import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect } from "vitest";
import { startTestRedis } from "../support/redis-server.ts";
import { lines, outlast } from "./outlast.ts";
import { test } from "./place.ts";

const COMMANDS = [
  "demo",
  "up",
  "submit",
  "watch",
  "status",
  "results",
  "pause",
  "resume",
  "cancel",
  "audit",
  "verify",
  "serve",
  "worker",
  "doctor",
  "emulator",
];

const NOBODYS = "0123456789abcdefghjk";

const nowhere = test.extend("folder", async ({ task: _task }, { onCleanup }) => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-usage-test-"));
  onCleanup(() => rm(folder, { recursive: true, force: true }));
  return folder;
});

describe("help", () => {
  nowhere("every command explains itself, with an example", { timeout: 90_000 }, async ({ folder }) => {
    const helps = await Promise.all(COMMANDS.map((command) => outlast([command, "--help"], { env: {}, cwd: folder })));
    for (const [at, { code, stdout, stderr }] of helps.entries()) {
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toMatch(new RegExp(`^Usage: outlast ${COMMANDS[at]}`));
      expect(stdout).toMatch(/Examples?:\n {2}.*npm run -s outlast -- /);
    }
    const { stdout } = await outlast(["--help"], { env: {}, cwd: folder });
    for (const command of COMMANDS) expect(stdout).toContain(`\n  ${command} `);
  });
});

describe("a mistake in what was typed is one line and exit code 1", () => {
  nowhere.for([
    [["submit", "rows.jsonl", "--nonsense"], /^error: unknown option '--nonsense'$/],
    [["submit"], /^error: missing required argument 'file'$/],
    [["resume"], /^name a batch, or an account: npm run -s outlast -- resume --help$/],
    [["resume", NOBODYS, "--account", "replicate"], /^name a batch, or an account: /],
    [["pause"], /^error: missing required argument 'batch'$/],
    [["cancel"], /^error: missing required argument 'id'$/],
    [["status", "--limit", "no"], /^error: option '--limit <n>' argument 'no' is invalid\. It is a whole number/],
    [["submit", "a.tsv", "--map", "prompt"], /^error: .* --map is INPUT=COLUMN/],
    [["submit", "a.jsonl", "--model", "fox"], /^"model" is owner\/name, .* not "fox"$/],
    [
      ["submit", "a.jsonl", "--model", "a/b", "--deployment", "a/b"],
      /^both "model" and "deployment": name one of them$/,
    ],
    [["submit", "a.txt", "--model", "a/b"], /^the format of a\.txt doesn't show in its name: add --format/],
    [["submit", "missing.jsonl", "--check"], /^missing\.jsonl can't be opened: there is no such file$/],
    [["submit", ".", "--format", "csv", "--check"], /^\. is a folder: name the file with the rows$/],
    [["worker", "feeed"], /^there is no stage "feeed"; the stages are admit, feed/],
    [["status"], /^settings: no Redis is named: set OUTLAST_REDIS_URL, or start everything with `outlast up`$/],
  ] as const)("%j", async ([args, line], { folder }) => {
    const { code, stdout, stderr } = await outlast(args, { env: {}, cwd: folder });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(lines(stderr)).toEqual([expect.stringMatching(line)]);
  });

  nowhere("every mistake in the settings has a line of its own", async ({ folder }) => {
    const env = { OUTLAST_PORT: "http", OUTLAST_BUCKET: "ftp://x", OUTLAST_CREATES_PER_MINUTE: "0" };
    const { code, stderr } = await outlast(["status"], { env, cwd: folder });
    expect(code).toBe(1);
    expect(lines(stderr)).toEqual([
      expect.stringMatching(/^settings: OUTLAST_BUCKET "ftp:\/\/x" is no bucket/),
      "settings: OUTLAST_CREATES_PER_MINUTE must be above 0",
      "settings: OUTLAST_PORT isn't a number",
    ]);
  });
});

describe("surroundings that can't be worked with are one line and exit code 1", () => {
  test("no Redis", async ({ place }) => {
    const env = { ...place.env, OUTLAST_REDIS_URL: "redis://:secret@127.0.0.1:1" };
    const { code, stderr } = await outlast(["status"], { env });
    expect(code).toBe(1);
    expect(lines(stderr)).toEqual([expect.stringMatching(/^no Redis answers at redis:\/\/:\*\*\*@127\.0\.0\.1:1\b/)]);
  });

  test("a Redis that may evict what was paid for", async ({ place }) => {
    await using redis = await startTestRedis({ args: ["--maxmemory-policy", "allkeys-lru"] });
    const { code, stderr } = await outlast(["status"], { env: { ...place.env, OUTLAST_REDIS_URL: redis.url } });
    expect(code).toBe(1);
    expect(lines(stderr)).toEqual([expect.stringMatching(/allkeys-lru may evict .*: CONFIG SET maxmemory-policy/)]);
  });

  test("a bucket that can't be opened", async ({ place }) => {
    const file = path.join(place.folder, "a file");
    await writeFile(file, "");
    const { code, stderr } = await outlast(["status"], {
      env: { ...place.env, OUTLAST_BUCKET: `file:${file}/bucket` },
    });
    expect(code).toBe(1);
    expect(lines(stderr)).toHaveLength(1);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test("a bucket without rights, in the middle of submitting", async ({ place, skip }) => {
    if (process.getuid?.() === 0) skip("root may write everywhere");
    await mkdir(path.join(place.folder, "bucket", "batches"), { recursive: true, mode: 0o500 });
    const { code, stderr } = await outlast(["submit", "-", "--model", "a/b"], {
      env: place.env,
      input: '{"input":{}}',
    });
    expect({ code, lines: lines(stderr).length }).toEqual({ code: 1, lines: 1 });
  });

  test("a batch that nobody knows", async ({ place }) => {
    const run = (command: string, id: string) => outlast([command, id], { env: place.env });
    const commands = ["watch", "status", "results", "pause", "resume", "cancel"];
    const [noBatch, noItem, ...all] = await Promise.all([
      run("watch", "fox"),
      run("cancel", `${NOBODYS}000007`),
      ...commands.map((command) => run(command, NOBODYS)),
    ]);
    for (const unknown of all) {
      expect(unknown).toEqual({
        code: 1,
        stdout: "",
        stderr: `there is no batch ${NOBODYS} here: see npm run -s outlast -- status\n`,
      });
    }
    expect(noBatch.stderr).toMatch(/^"fox" is no batch's id \(20 characters\)/);
    expect(noItem).toEqual({
      code: 1,
      stdout: "",
      stderr: `there is no item ${NOBODYS}000007 here: see npm run -s outlast -- status\n`,
    });
  });

  test("a mistake of ours is one line too, and says how to see where", async ({ place, redis, services }) => {
    await services.redis.set("outlast:batches", "not a sorted set");
    const short = await outlast(["status"], { env: place.env });
    expect(short.code).toBe(1);
    expect(lines(short.stderr)).toEqual([expect.stringMatching(/WRONGTYPE.*OUTLAST_LOG_LEVEL=debug shows where/)]);
    const long = await outlast(["status"], { env: { ...place.env, OUTLAST_LOG_LEVEL: "debug" } });
    expect(long.stderr).toMatch(/WRONGTYPE[\s\S]*\n {4}at /);
    expect(redis.url).not.toBe("");
  });
});
