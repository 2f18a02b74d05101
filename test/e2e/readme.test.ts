/** What the README tells people to type does what it says. (Installing, testing and the demo have runs of their own.) */

import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import type { ResultLine } from "../../src/core/receipt.ts";
import { bought, outputOf } from "../support/api-fleet.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";

const PROJECT = new URL("../..", import.meta.url).pathname;
const README = await readFile(path.join(PROJECT, "README.md"), "utf8");
const KEY = "a-key-for-the-readme";
/** Where the README has `up` listen. */
const ADDRESS = "http://127.0.0.1:7700";
const REPLICATE = import.meta.resolve("replicate");

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
  const [submit, status, results, up, redrive, audit, verify] = lines.map((line) =>
    line.replace("npm run -s outlast -- ", "").split(" "),
  );
  expect([submit, status, results, up, redrive, audit, verify].map((words) => words?.[0])).toEqual([
    "submit",
    "status",
    "results",
    "up",
    "redrive",
    "audit",
    "verify",
  ]);
  for (const words of [submit, status, results, redrive, audit, verify]) {
    const args = (words ?? []).map((word) => ({ "prompts.tsv": prompts, BATCH: batch, outputs })[word] ?? word);
    const stdout = await node(fleet, "src/cli/cli.ts", ...args);
    if (batch === "") batch = stdout.trim();
    else if (args[0] === "status") expect(stdout).toMatch(new RegExp(`${batch} .*finished`));
    else if (args[0] === "audit")
      expect(stdout).toMatch(/^account replicate: 1 batch, 2 items\n[^]*\nthe books agree\n/);
    else if (args[0] === "verify")
      expect(stdout).toMatch(/^2 items, 2 receipts, 2 files, .*: everything is as the receipts say/);
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

test("the curl commands and the client's program of the queue API", async () => {
  await using fleet = await startFleet({ env: { OUTLAST_API_KEYS: `acme:${KEY}` } });
  fleet.startWorker();
  const { url } = await fleet.startServer();
  const [single, batch] = [...section("The queue API").matchAll(/```sh\n([\s\S]*?)```/g)].map(
    ([, block]) => block ?? "",
  );
  const { run, known } = shell(fleet.folder, url, single ?? "");

  const prompt = { prompt: "a lighthouse in the fog" };
  const [create, keyed, get, list, cancel, ...others] = commandsIn(single ?? "");
  expect(await run(create)).toMatchObject({ status: "succeeded", output: outputOf("text", prompt) });
  const { id } = (await run(keyed)) as { id: string };
  expect(await run(keyed)).toMatchObject({ id, input: prompt });
  known["ID"] = id;
  expect(await run(get)).toMatchObject({ id, model: "outlast/picture" });
  expect(await run(list)).toMatchObject({ next: null, results: [{ id }, { output: outputOf("text", prompt) }] });
  expect(await run(cancel)).toMatchObject({ id });
  await expect.poll(() => run(get), { timeout: 60_000 }).toHaveProperty("completed_at");
  expect(bought(fleet, "picture", prompt).length, "bought under its key").toBeLessThanOrEqual(1);

  const [rows, submit, status, pause, resume, events, results, end, ...more] = commandsIn(batch ?? "");
  expect([...others, ...more], "commands that aren't run here").toEqual([]);
  await run(rows);
  known["BATCH"] = ((await run(submit)) as { batch: string }).batch;
  expect(await run(status)).toMatchObject({ name: "fog", items: 3, failures: [] });
  expect(await run(pause)).toMatchObject({ state: "paused", paused_by: "batch" });
  expect(await run(resume)).toMatchObject({ state: expect.stringMatching(/open|running/) });
  expect(await run(events)).toMatch(/event: batch\nid: \S+\ndata: .*"state":"finished","items":3,.*\n\n$/);
  const outcomes = String(await run(results))
    .trim()
    .split("\n");
  expect(outcomes.map((line) => (JSON.parse(line) as ResultLine).status)).toEqual(["saved", "saved", "saved"]);
  known["BATCH"] = ((await run(submit?.replace("name=fog", "name=more"))) as { batch: string }).batch;
  expect(await run(end)).toMatchObject({ name: "more", canceled_at: expect.any(String) });

  const program = /```js\n([\s\S]*?)```/.exec(section("The queue API"))?.[1] ?? "";
  const file = path.join(fleet.folder, "program.mjs");
  await writeFile(file, program.replace(ADDRESS, url).replace('"replicate"', JSON.stringify(REPLICATE)));
  const stdout = await node({ ...fleet, env: { ...fleet.env, KEY } }, file);
  expect(stdout).toMatch(new RegExp(`^${url}/v1/files/\\S*/output-0\\.png\\?\\S+\n$`));
});

/** Runs commands one by one, in shells that have the variables of the block's first line, and the `known` ones. */
function shell(cwd: string, url: string, block: string) {
  const [setup = ""] = block.split("\n");
  const known: Record<string, string> = { KEY };
  return {
    known,
    /** What it printed; as JSON where it is that. */
    async run(command: string | undefined): Promise<unknown> {
      const script = `${setup.replace(ADDRESS, url)}\n${command}`;
      const env = { PATH: process.env["PATH"] ?? "", ...known };
      const { stdout } = await promisify(execFile)("bash", ["-euc", script], { cwd, env, timeout: 120_000 });
      return /^\{.*\}$/.test(stdout) ? JSON.parse(stdout) : stdout;
    },
  };
}

/** The commands of a block, also those of several lines; what only sets variables is none. */
function commandsIn(block: string): readonly string[] {
  const lines = block.replaceAll("\\\n", "").split("\n");
  return lines.filter((line) => line !== "" && !/^\w+=/.test(line));
}

function section(title: string): string {
  const from = README.indexOf(`\n## ${title}\n`);
  return README.slice(from, README.indexOf("\n## ", from + 1));
}
