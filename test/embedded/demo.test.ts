/** `outlast demo` as a newcomer runs it, but shorter; and what it is made of. */

import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect } from "vitest";
import type { BatchReport } from "../../src/batches/report-batch.ts";
import { demoGrid, GRID_SIZE } from "../../src/embedded/demo-grid.ts";
import { respawnPauseMs } from "../../src/embedded/worker-process.ts";
import { jsonLines } from "../cli/outlast.ts";
import { redisPid, runs, test } from "./up-place.ts";

const TIMEOUT = 60_000;
const PNG = Buffer.from("89504e47", "hex");

describe("the demo", () => {
  test("it ends with every output saved, and leaves no process behind", { timeout: TIMEOUT }, async ({ place }) => {
    const { code, stdout, stderr } = await place.start(["demo", "--items", "12", "--json"]).ended;
    expect(stderr).toContain("12 items: 12 saved");
    expect(code).toBe(0);
    const [report] = jsonLines<BatchReport>(stdout);
    expect(report).toMatchObject({ items: 12, saved: 12, failed: 0, state: "finished" });
    expect(report?.metrics.output_files).toBe(14); // a set of four, and a text without a file
    expect(stderr).toMatch(/http:\/\/127\.0\.0\.1:\d+\/batches/);

    const [, example] = /for example:\n {2}(\S+)/.exec(stderr) ?? [];
    expect((await readFile(path.resolve(example ?? ""))).subarray(0, 4)).toEqual(PNG);

    expect(runs(await redisPid(path.join(place.stateDir, "demo")))).toBe(false);
    const log = await readFile(path.join(place.stateDir, "demo", "demo.log"), "utf8");
    const worker = Number(/"pid":(\d+),.*"msg":"working"/.exec(log)?.[1]);
    expect(runs(worker)).toBe(false);
  });

  test("run again it makes a batch of its own", { timeout: 2 * TIMEOUT }, async ({ place }) => {
    const run = async () => await place.start(["demo", "--items", "3", "--json"]).ended;
    const [first, second] = [await run(), await run()];
    expect([first.code, second.code]).toEqual([0, 0]);
    const [one, two] = [first, second].map(({ stdout }) => jsonLines<BatchReport>(stdout)[0]?.batch);
    expect(one).not.toBe(two);
  });

  test("interrupted it stops cleanly, and the next one starts anew", { timeout: 2 * TIMEOUT }, async ({ place }) => {
    const first = place.start(["demo"]);
    await first.shows(/in flight/);
    first.child.kill("SIGINT");
    expect((await first.ended).code).toBe(130);
    expect(runs(await redisPid(path.join(place.stateDir, "demo")))).toBe(false);

    const next = await place.start(["demo", "--items", "5"]).ended;
    expect(next.stderr).toContain("its unfinished batch is dropped");
    expect(next.stderr).toContain("5 items: 5 saved");
    expect(next.code).toBe(0);
  });

  test("it uses the emulator in its own folder, whatever is set for real work", { timeout: TIMEOUT }, async ({
    place,
  }) => {
    const env = {
      REPLICATE_API_TOKEN: "r8_real_money",
      OUTLAST_REDIS_URL: "redis://127.0.0.1:1",
      OUTLAST_BUCKET: "s3://not-for-demos",
    };
    const { code, stderr } = await place.start(["demo", "--items", "2"], env).ended;
    expect(code).toBe(0);
    expect(stderr).toContain(`file:${place.stateDir}/demo/bucket/`);
  });
});

describe("what it is made of", () => {
  test("the grid has 200 different prompts, mostly pictures", () => {
    const rows = demoGrid(GRID_SIZE);
    expect(new Set(rows.map(({ id }) => id)).size).toBe(200);
    expect(new Set(rows.map(({ input }) => input["prompt"] ?? input["text"])).size).toBe(200);
    const models = Map.groupBy(rows, ({ target }) => (target.kind === "version" ? "" : target.name));
    expect(Object.fromEntries([...models].map(([name, of]) => [name, of.length]))).toEqual({
      picture: 160,
      text: 10,
      pictures: 10,
      speech: 10,
      nested: 10,
    });
  });

  test("the first items of the grid are of several subjects, styles and kinds", () => {
    const first = demoGrid(18);
    expect(new Set(first.map(({ id }) => id)).size).toBe(18);
    expect(new Set(first.map(({ target }) => JSON.stringify(target))).size).toBe(5);
  });

  test("a worker that keeps dying young comes back ever later", () => {
    const pauses = [0, 1, 2, 3, 4, 5, 6, 7, 8, 1_000].map(respawnPauseMs);
    expect(pauses).toEqual([0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
  });
});
