/** Whole runs by real processes: emulator, worker and commands, each started as a person would. */

import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import type { BatchReport } from "../../src/batches/report-batch.ts";
import type { ResultLine } from "../../src/core/receipt.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { startTestRedis } from "../support/redis-server.ts";
import { jsonLines, lines, outlast, startOutlast } from "./outlast.ts";

const QUICK = { runMs: { medianMs: 200, spread: 0.2 }, queueMs: { medianMs: 20, spread: 0 } };

function rows(count: number): string {
  const models = ["picture", "picture", "pictures", "text", "moderated"];
  return Array.from({ length: count }, (_, n) =>
    JSON.stringify({ input: { prompt: `a fox, number ${n}` }, id: `Fox/${n}`, model: `outlast/${models[n % 5]}` }),
  ).join("\n");
}

async function filesIn(fleet: Fleet, folder: string): Promise<ReadonlyMap<string, string>> {
  const place = path.join(fleet.folder, folder);
  const names = await readdir(place);
  const hashes = names.map(async (name) =>
    createHash("sha256")
      .update(await readFile(path.join(place, name)))
      .digest("hex"),
  );
  return new Map((await Promise.all(hashes)).map((hash, at) => [names[at] ?? "", hash]));
}

describe("submit, wait, results, files", () => {
  test("thirty rows of several kinds end where they belong", { timeout: 120_000 }, async () => {
    await using fleet = await startFleet({ emulator: QUICK });
    fleet.startWorker();
    const { env } = fleet;

    const submitted = await outlast(["submit", "-", "--name", "foxes", "--wait", "--json"], { env, input: rows(30) });
    const [first, last] = jsonLines<BatchReport>(submitted.stdout);
    const batch = first?.batch ?? "";
    expect(first).toEqual({ batch, items: 30 });
    expect(last).toMatchObject({
      batch,
      name: "foxes",
      state: "finished",
      items: 30,
      saved: 24,
      failed: 6,
      waiting: 0,
    });
    expect(submitted.code).toBe(2);
    expect(submitted.stderr).toContain("30 items: 24 saved, 6 failed\n36 files, ");

    const results = await outlast(["results", batch, "--json"], { env });
    expect(results.code).toBe(2);
    const kept = await readFile(path.join(fleet.folder, "bucket", "batches", batch, "results.jsonl"), "utf8");
    expect(results.stdout).toBe(kept);
    const results30 = jsonLines<ResultLine>(results.stdout);
    expect(results30.map(({ index, id }) => `${index} ${id}`)).toEqual(
      rows(30)
        .split("\n")
        .map((_, n) => `${n} Fox/${n}`),
    );
    expect(results30[4]).toMatchObject({ status: "failed", error: expect.stringMatching(/flagged as sensitive/) });

    const shown = lines((await outlast(["results", batch], { env })).stdout);
    expect(shown).toHaveLength(31);
    expect(shown[1]).toMatch(/^ +0 {2}Fox\/0 +saved +batches\/.*\/output-0\.png$/);
    expect(shown[3]).toMatch(/output-0\.png and 3 more$/);
    expect(shown[5]).toMatch(/failed +The input or output was flagged as sensitive/);

    const to = (folder: string) => outlast(["results", batch, "--to", path.join(fleet.folder, folder)], { env });
    expect((await to("out")).stderr).toMatch(/^36 files copied to /);
    const files = await filesIn(fleet, "out");
    expect([...files.keys()].sort().slice(0, 4)).toEqual(["Fox_0.png", "Fox_1.png", "Fox_10.png", "Fox_11.png"]);
    expect([...files.keys()].filter((name) => name.startsWith("Fox_2-")).sort()).toEqual(
      [0, 1, 2, 3].map((n) => `Fox_2-${n}.png`),
    );
    const promised = results30.flatMap(({ outputs }) => outputs.map(({ sha256 }) => sha256));
    expect([...files.values()].sort()).toEqual(promised.sort());

    // Run again it copies only what is missing or isn't what it was.
    await writeFile(path.join(fleet.folder, "out", "Fox_1.png"), "scribbled over");
    expect((await to("out")).stderr).toMatch(/^1 file copied to .*, 35 were there already$/m);
    expect(await filesIn(fleet, "out")).toEqual(files);

    const item = await outlast(["status", `${batch}000002`, "--json"], { env });
    expect({ code: item.code, line: jsonLines(item.stdout) }).toEqual({ code: 0, line: [results30[2]] });
    const watched = await outlast(["watch", batch], { env });
    expect(watched.code).toBe(2);
  });

  test("a file that the bucket has lost is named, and the others are copied", { timeout: 60_000 }, async () => {
    await using fleet = await startFleet({ emulator: QUICK });
    fleet.startWorker();
    const { env } = fleet;
    const input = rows(2);
    const [batch = ""] = lines((await outlast(["submit", "-", "--wait"], { env, input })).stdout);
    await fleet.services.bucket.delete(`batches/${batch}/items/00000000/output-0.png`);
    const { code, stderr } = await outlast(["results", batch, "--to", path.join(fleet.folder, "out")], { env });
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /00000000\/output-0\.png couldn't be copied: it isn't in the bucket any more\n1 file copied/,
    );
    expect([...(await filesIn(fleet, "out")).keys()]).toEqual(["Fox_1.png"]);
  });

  test("a reader that has read enough ends the command without a word", { timeout: 60_000 }, async () => {
    await using fleet = await startFleet();
    const { env } = fleet;
    const [batch = ""] = lines((await outlast(["submit", "-"], { env, input: rows(2_000) })).stdout);
    const reading = startOutlast(["results", batch, "--json"], { env });
    reading.child.stdout.once("data", () => reading.child.stdout.destroy());
    expect(await reading.ended).toMatchObject({ code: 0, stderr: "" });
  });
});

describe("emulator and worker", () => {
  test("the settings that the emulator prints are all that a worker and a submit need", {
    timeout: 60_000,
  }, async () => {
    await using redis = await startTestRedis();
    await using fleet = await startFleet();
    const place = {
      OUTLAST_REDIS_URL: redis.url,
      OUTLAST_BUCKET: `file:${path.join(fleet.folder, "another bucket")}`,
      OUTLAST_STATE_DIR: path.join(fleet.folder, "state"),
    };
    const emulator = startOutlast(["emulator", "--run-ms", "50", "--queue-ms", "10", "--seed", "7"], { env: {} });
    await emulator.shows(/^OUTLAST_OUTPUT_HOSTS=\S+$/m);
    const printed = lines(emulator.written().stdout);
    const env = { ...place, ...Object.fromEntries(printed.map((line) => line.split("="))) };

    const worker = startOutlast(["worker"], { env });
    const submitted = await outlast(["submit", "-", "--account", "cometapi", "--model", "outlast/picture", "--wait"], {
      env,
      input: '{"input":{"prompt":"a fox"}}',
    });
    expect({ code: submitted.code, saved: submitted.stderr.includes("1 item: 1 saved") }).toEqual({
      code: 0,
      saved: true,
    });
    worker.child.kill("SIGTERM");
    expect((await worker.ended).code).toBe(0);
    emulator.child.kill("SIGINT");
    const ended = await emulator.ended;
    expect(ended.code).toBe(0);
    expect(ended.stderr).toMatch(/^the emulator runs, seed 7; its books: http:\/\/127\.0\.0\.1:\d+\/__audit$/m);
  });

  test("a port in use is one line", async () => {
    await using fleet = await startFleet();
    const { port } = new URL(fleet.emulator.apiUrl);
    const { code, stderr } = await outlast(["emulator", "--port", port], { env: {} });
    expect(code).toBe(1);
    expect(stderr).toBe(`port ${port} is in use: end what listens there, or choose another port\n`);
  });

  test("a worker without Redis says so in one line", async () => {
    const { code, stderr } = await outlast(["worker"], { env: { OUTLAST_LOG_LEVEL: "silent" } });
    expect({ code, lines: lines(stderr) }).toEqual({
      code: 1,
      lines: ["settings: no Redis is named: set OUTLAST_REDIS_URL, or start everything with `outlast up`"],
    });
  });
});
