/** `outlast up` as a person runs it: a real process with its real Redis, worker and emulator. */

import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { describe, expect } from "vitest";
import { jsonLines, outlast } from "../cli/outlast.ts";
import { startTestRedis } from "../support/redis-server.ts";
import { firstWorker, redisPid, runs, test, untilGone, upFileOf, workerPids } from "./up-place.ts";

const ROW = '{"input":{"prompt":"a red fox"},"model":"outlast/picture"}\n';
/** Generous: each takes some seconds, and many on a busy machine. */
const TIMEOUT = 150_000;

describe("a whole life of it", () => {
  test("up runs what is submitted, and SIGTERM leaves no process and no up.json behind", { timeout: TIMEOUT }, async ({
    place,
  }) => {
    const up = place.start(["up"]);
    const file = await upFileOf(place.stateDir, up);
    const pids = [await firstWorker(up), await redisPid(place.stateDir)];
    expect(pids.map(runs)).toEqual([true, true]);
    expect(file).toMatchObject({
      pid: up.child.pid,
      bucket: `file:${place.stateDir}/bucket`,
      accounts: [{ name: "replicate", provider: "replicate", creates_per_minute: 600 }],
    });
    expect(await (await fetch(`${file.dashboard_url}/ready`)).json()).toEqual({ status: "ready" });

    const submitted = await outlast(["submit", "-", "--wait", "--json"], { env: place.env, input: ROW });
    expect(submitted.code).toBe(0);
    expect(jsonLines(submitted.stdout).at(-1)).toMatchObject({ state: "finished", saved: 1 });

    up.child.kill("SIGTERM");
    expect((await up.ended).code).toBe(0);
    for (const pid of pids) expect(runs(pid)).toBe(false);
    expect(existsSync(path.join(place.stateDir, "up.json"))).toBe(false);
  });

  test("its second signal exits at once, even if a worker hangs", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up"]);
    const worker = await firstWorker(up);
    process.kill(worker, "SIGSTOP");
    up.child.kill("SIGINT");
    await up.shows(/stopping/);

    const again = setInterval(() => up.child.kill("SIGINT"), 100); // those within a second are the first one's echo
    const { code } = await up.ended.finally(() => clearInterval(again));
    expect(code).toBe(1);
    await untilGone(worker);
  });

  test("with --no-worker it tells how to start one, and starts none", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up", "--no-worker"]);
    const file = await upFileOf(place.stateDir, up);
    expect(up.written().stderr).toContain(`none; to start one: OUTLAST_REDIS_URL=${file.redis_url} `);
    const env = variablesIn(up.written().stderr);

    const worker = place.start(["worker"], env);
    await worker.shows(/"msg":"working"/);
    const submitted = await outlast(["submit", "-", "--wait"], { env: place.env, input: ROW });
    expect(submitted.code).toBe(0);
    expect(workerPids(up.written())).toEqual([]);
    worker.child.kill("SIGTERM");
    expect((await worker.ended).code).toBe(0);
  });
});

test("a password of Redis is not repeated, and a folder with a space can be pasted", { timeout: TIMEOUT }, async ({
  place,
}) => {
  await using redis = await startTestRedis();
  const own = redis.url.replace("//", "//default:hunter2@");
  const stateDir = path.join(place.stateDir, "a b");
  const up = place.start(["up", "--no-worker"], { OUTLAST_REDIS_URL: own, OUTLAST_STATE_DIR: stateDir });
  await upFileOf(stateDir, up);
  const { stderr } = up.written();
  expect(stderr).not.toContain("hunter2");
  expect(stderr).toMatch(/to start one: OUTLAST_OWN_REDIS=false /);
  expect(stderr).toContain(`| OUTLAST_STATE_DIR='${stateDir}' npm run `);
});

describe("what breaks under it", () => {
  test("a worker that is killed is replaced", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up"]);
    const first = await firstWorker(up);
    process.kill(first, "SIGKILL");
    await up.shows(/"msg":"working"[^]*"how":"SIGKILL"[^]*another takes its place[^]*"msg":"working"/);
    expect(workerPids(up.written())).toHaveLength(2);
  });

  test("its private Redis, killed, comes back on the same address with its data", { timeout: TIMEOUT }, async ({
    place,
  }) => {
    const up = place.start(["up"]);
    const file = await upFileOf(place.stateDir, up);
    await firstWorker(up);
    const { stdout } = await outlast(["submit", "-"], { env: place.env, input: ROW });
    process.kill(await redisPid(place.stateDir), "SIGKILL");
    await up.shows(/is started again/);

    await expect
      .poll(async () => (await outlast(["watch", stdout.trim()], { env: place.env })).code, { timeout: 100_000 })
      .toBe(0);
    expect(await upFileOf(place.stateDir, up)).toMatchObject({ redis_url: file.redis_url });
  });

  test("its Redis, frozen, holds up no request", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up", "--no-worker"]);
    const { dashboard_url: url } = await upFileOf(place.stateDir, up);
    const redis = await redisPid(place.stateDir);
    process.kill(redis, "SIGSTOP");
    try {
      const answer = await fetch(`${url}/v1/batches`, { signal: AbortSignal.timeout(15_000) });
      expect(answer.status).toBe(503);
    } finally {
      process.kill(redis, "SIGCONT");
    }
    up.child.kill("SIGTERM");
    expect((await up.ended).code).toBe(0);
  });

  test("after SIGKILL its worker goes by itself, and the next up adopts the Redis", { timeout: TIMEOUT }, async ({
    place,
  }) => {
    const killed = place.start(["up"]);
    const before = await upFileOf(place.stateDir, killed);
    const [worker, redis] = [await firstWorker(killed), await redisPid(place.stateDir)];
    killed.child.kill("SIGKILL");
    await untilGone(worker);
    expect(runs(redis)).toBe(true);

    const next = place.start(["up"]);
    const after = await upFileOf(place.stateDir, next);
    expect(after.redis_url).toBe(before.redis_url);
    expect(await redisPid(place.stateDir)).toBe(redis);
    const submitted = await outlast(["submit", "-", "--wait"], { env: place.env, input: ROW });
    expect(submitted.code).toBe(0);
  });
});

describe("what it refuses, in one line", () => {
  test("a second up in the same folder", { timeout: TIMEOUT }, async ({ place }) => {
    const up = place.start(["up"]);
    const { dashboard_url } = await upFileOf(place.stateDir, up);
    const second = await place.start(["up"]).ended;
    expect(second).toMatchObject({ code: 1, stdout: "" });
    expect(second.stderr).toBe(
      `outlast is up already in ${place.stateDir} (process ${up.child.pid}, ${dashboard_url}): ` +
        "use that one, or set OUTLAST_STATE_DIR to another folder\n",
    );
    expect((await fetch(`${dashboard_url}/health`)).ok).toBe(true);
  });

  test("batches of a provider's where it finds no token, and the emulator's where it finds one", {
    timeout: TIMEOUT,
  }, async ({ place }) => {
    const token = { REPLICATE_API_TOKEN: "r8_real", OUTLAST_REPLICATE_BASE_URL: "http://127.0.0.1:1/v1" };
    for (const [first, second, refusal] of [
      [token, {}, "no token is set, and batch BATCH is a provider's to run: set REPLICATE_API_TOKEN,"],
      [{}, token, "batch BATCH was given to the emulator, and would be bought now: start without"],
    ] as const) {
      const OUTLAST_STATE_DIR = path.join(place.stateDir, String(refusal.length));
      const up = place.start(["up", "--no-worker"], { ...first, OUTLAST_STATE_DIR });
      await upFileOf(OUTLAST_STATE_DIR, up);
      const submitted = await outlast(["submit", "-"], { env: { ...place.env, OUTLAST_STATE_DIR }, input: ROW });
      up.child.kill("SIGTERM");
      expect((await up.ended).code).toBe(0);

      const other = await place.start(["up", "--no-worker"], { ...second, OUTLAST_STATE_DIR }).ended;
      expect(other).toMatchObject({ code: 1, stdout: "" });
      expect(other.stderr.replace(submitted.stdout.trim(), "BATCH")).toMatch(new RegExp(`^${refusal} .*\n$`));
      const again = place.start(["up", "--no-worker"], { ...first, OUTLAST_STATE_DIR });
      await upFileOf(OUTLAST_STATE_DIR, again);
      again.child.kill("SIGTERM");
      expect((await again.ended).code).toBe(0);
    }
  });

  test("a port in use, after which nothing is left running", { timeout: TIMEOUT }, async ({ place }) => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    const { code, stderr } = await place.start(["up"], { OUTLAST_PORT: String(port) }).ended;
    other.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`^port ${port} on 127\\.0\\.0\\.1 is in use: .* OUTLAST_PORT .*\\n$`));
    expect(runs(await redisPid(place.stateDir))).toBe(false);
  });

  test("an address that others can reach", async ({ place }) => {
    const { code, stderr } = await place.start(["up"], { OUTLAST_HOST: "0.0.0.0" }).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^without API keys the server listens on loopback only: .* not 0\.0\.0\.0\n$/);
  });

  test("a machine without Redis", async ({ place }) => {
    const { code, stderr } = await place.start(["up"], { PATH: "/nowhere" }).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^no redis-server or valkey-server on PATH: run `npm run setup`, .*\n$/);
  });

  test("a bucket that can't be written", async ({ place }) => {
    const { code, stderr } = await place.start(["up"], { OUTLAST_BUCKET: "file:/dev/null/bucket" }).ended;
    expect(code).toBe(1);
    expect(stderr).toMatch(/^.*\/dev\/null\/bucket.*\n$/);
  });
});

/** The variables in the command that starts a worker. */
function variablesIn(text: string): Record<string, string> {
  const command = /to start one: (.*)/.exec(text)?.[1] ?? "";
  return Object.fromEntries(
    [...command.matchAll(/([A-Z_0-9]+)=(\S+)/g)].map((match) => [match[1] ?? "", match[2] ?? ""]),
  );
}
