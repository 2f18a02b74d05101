/** The README's producer, as it stands there: a program of its own that has bullmq and nothing of ours. */

import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { startFleet } from "../support/fleet.ts";

const PROJECT = new URL("../..", import.meta.url).pathname;

test("the README's producer gets its input's output on its own queue", async () => {
  const program = /```js\n([\s\S]*?)```/.exec(await readFile(path.join(PROJECT, "README.md"), "utf8"))?.[1] ?? "";
  expect(program.match(/from "(?!bullmq")/g), "it imports bullmq alone").toBeNull();
  expect(program.split("\n").filter((line) => line.trim() !== "").length).toBeLessThanOrEqual(15);

  await using fleet = await startFleet({ emulator: { runMs: { medianMs: 300, spread: 0.1 } } });
  fleet.startWorker();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-producer-"));
  try {
    await writeFile(path.join(folder, "producer.mjs"), program);
    await symlink(path.join(PROJECT, "node_modules"), path.join(folder, "node_modules"));
    const { stdout } = await promisify(execFile)(process.execPath, ["producer.mjs"], {
      cwd: folder,
      env: { PATH: process.env["PATH"] ?? "", REDIS_URL: fleet.redis.url },
      timeout: 60_000,
    });
    expect(stdout.trim()).toMatch(/^saved file:.*\/items\/00000000\/output-0\.png$/);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  expect(fleet.emulator.books().creates.total).toBe(1);
});
