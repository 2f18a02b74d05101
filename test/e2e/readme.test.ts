/** What the README tells people to type does what it says. (Installing, testing and the demo have runs of their own.) */

import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { type Fleet, startFleet } from "../support/fleet.ts";

const PROJECT = new URL("../..", import.meta.url).pathname;
const README = await readFile(path.join(PROJECT, "README.md"), "utf8");

/** Runs Node in the project's folder with the fleet's settings; throws if it doesn't end with 0. */
async function node(fleet: Fleet, ...args: string[]): Promise<string> {
  const env = { PATH: process.env["PATH"] ?? "", ...fleet.env };
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: PROJECT, env, timeout: 120_000 });
  return stdout;
}

test("the commands that hand over a file and take its outputs out", async () => {
  await using fleet = await startFleet();
  fleet.startWorker();
  const prompts = path.join(fleet.folder, "prompts.tsv");
  await writeFile(prompts, 'Prompt\tNote\na "quoted" fox\tone\nan owl\ttwo\n');
  const outputs = path.join(fleet.folder, "outputs");

  let batch = "";
  const lines = README.split("\n").filter((line) => line.startsWith("npm run -s outlast -- "));
  const [submit, status, results, up] = lines.map((line) => line.replace("npm run -s outlast -- ", "").split(" "));
  expect([submit?.[0], status?.[0], results?.[0], up?.[0]]).toEqual(["submit", "status", "results", "up"]);
  for (const words of [submit, status, results]) {
    const args = (words ?? []).map((word) => ({ "prompts.tsv": prompts, BATCH: batch, outputs })[word] ?? word);
    const stdout = await node(fleet, "src/cli/cli.ts", ...args);
    if (batch === "") batch = stdout.trim();
    else if (args[0] === "status") expect(stdout).toMatch(new RegExp(`${batch} .*finished`));
  }
  expect(await readdir(outputs)).toHaveLength(2);
});

test("the program that uses the library", async () => {
  const program = /```ts\n([\s\S]*?)```/.exec(README)?.[1] ?? "";
  await using fleet = await startFleet();
  fleet.startWorker();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-readme-"));
  try {
    const file = path.join(folder, "program.ts");
    await writeFile(file, program.replace("./src/index.ts", path.join(PROJECT, "src/index.ts")));
    const stdout = await node(fleet, file);
    expect(stdout).toMatch(/2 of 2\n/);
    expect(stdout.match(/^null file:.*output-0\.png$/gm)).toHaveLength(2);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
