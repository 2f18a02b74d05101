/** `outlast submit` as a person meets it, without anybody working on what it submits. */

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect } from "vitest";
import { readBatch } from "../../src/bucket/records.ts";
import { parseBatchId } from "../../src/core/naming.ts";
import { jsonLines, lines, outlast } from "./outlast.ts";
import { type Place, test } from "./place.ts";

const TSV = "Prompt\tSeed\tName\na red fox\t7\tfox\na blue dog\t8\tdog\n";
const MODEL = ["--model", "outlast/picture"] as const;

async function file(place: Place, name: string, text: string): Promise<string> {
  const written = path.join(place.folder, name);
  await writeFile(written, text);
  return written;
}

function batchIn(stdout: string) {
  const id = parseBatchId(lines(stdout)[0] ?? "");
  if (id === null) throw new Error(`no batch's id in ${JSON.stringify(stdout)}`);
  return id;
}

describe("submitting", () => {
  test("prints the batch's id, and keeps the rows in the bucket as the batch's own", async ({ place, services }) => {
    const tsv = await file(place, "animals.tsv", TSV);
    const map = ["--map", "prompt=Prompt", "--map", "seed:number=Seed", "--id", "Name"];
    const { code, stdout, stderr } = await outlast(["submit", tsv, ...map, ...MODEL], { env: place.env });
    expect(code).toBe(0);
    const batch = batchIn(stdout);
    expect(lines(stderr)).toEqual([
      `submitted 2 items as batch ${batch} (animals.tsv) to account replicate`,
      `to watch it: npm run -s outlast -- watch ${batch}`,
    ]);

    expect(await readBatch(services.bucket, batch)).toMatchObject({ kind: "file", name: "animals.tsv", items: 2 });
    const input = await readFile(path.join(place.folder, "bucket", "batches", batch, "input-0.jsonl"), "utf8");
    const target = { kind: "model", owner: "outlast", name: "picture" };
    expect(jsonLines(input)).toEqual([
      { input: { prompt: "a red fox", seed: 7 }, target, id: "fox" },
      { input: { prompt: "a blue dog", seed: 8 }, target, id: "dog" },
    ]);
    expect((await services.ledger.standing(services.accounts[0]!.name, batch))?.counts.waiting).toBe(2);
  });

  test("again is the same batch, and says so; --again is another one", async ({ place }) => {
    const args = ["submit", "-", ...MODEL, "--json"];
    const run = (...more: string[]) =>
      outlast([...args, ...more], { env: place.env, input: '{"input":{"prompt":"a fox"}}\n' });
    const [first, second, named, third] = [await run(), await run(), await run("--name", "x"), await run("--again")];
    expect(jsonLines(first.stdout)).toEqual([{ batch: expect.any(String), items: 1 }]);
    expect(second.stdout).toBe(first.stdout);
    expect(second.stderr).toMatch(
      /^the same 1 item had been submitted before, as batch .* \(stdin\): nothing is bought/,
    );
    expect(second.code).toBe(0);
    expect(new Set([first.stdout, named.stdout, third.stdout]).size).toBe(3);
  });

  test("takes only the first rows with --limit", async ({ place }) => {
    const input = Array.from({ length: 5 }, (_, n) => JSON.stringify({ input: { prompt: `fox ${n}` } })).join("\n");
    const { stdout } = await outlast(["submit", "-", ...MODEL, "--limit", "3", "--json"], { env: place.env, input });
    expect(jsonLines(stdout)).toEqual([{ batch: expect.any(String), items: 3 }]);
  });

  test("to an account that isn't there names those that are", async ({ place }) => {
    const { code, stdout, stderr } = await outlast(["submit", "-", ...MODEL, "--account", "mine"], {
      env: place.env,
      input: '{"input":{}}',
    });
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: "",
      stderr: 'there is no account "mine" (known: replicate)\n',
    });
  });

  test("a form that the account's provider doesn't run is a bad row", async ({ place }) => {
    const env = { ...place.env, REPLICATE_API_TOKEN: "", COMETAPI_KEY: "sk-not-a-key" };
    const { code, stderr } = await outlast(["submit", "-", "--deployment", "a/b"], { env, input: '{"input":{}}' });
    expect(code).toBe(1);
    expect(lines(stderr)[0]).toBe("stdin:1: account cometapi can't run a deployment; it takes model");
  });
});

describe("bad rows", () => {
  test("are named by file and line all at once, and nothing is submitted", async ({ place, services }) => {
    const rows = ['{"input":{"prompt":"a"},"id":"x"}', "{nonsense", '{"prompt":"b"}', "", '{"input":{},"id":"x"}'];
    const jsonl = await file(place, "rows.jsonl", rows.join("\n"));
    const { code, stdout, stderr } = await outlast(["submit", jsonl, ...MODEL], { env: place.env });
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(lines(stderr)).toEqual([
      expect.stringMatching(/rows\.jsonl:2: not JSON: /),
      expect.stringMatching(/rows\.jsonl:3: no "input": what the model takes belongs inside it/),
      expect.stringMatching(/rows\.jsonl:5: the id "x" was given to line 1 already$/),
      "3 bad rows; nothing was submitted",
    ]);
    expect(await services.ledger.listBatches(10)).toEqual([]);
  });

  test("are told up to a hundred", async ({ place }) => {
    const { code, stderr } = await outlast(["submit", "-", ...MODEL], { env: place.env, input: "1\n".repeat(5_000) });
    expect(code).toBe(1);
    expect(lines(stderr)).toHaveLength(101);
    expect(lines(stderr).at(-1)).toBe("100 or more bad rows; nothing was submitted");
  });

  test("a file without rows, or without the column asked for, is one line", async ({ place }) => {
    const empty = await outlast(["submit", "-", ...MODEL], { env: place.env, input: "\n\n" });
    expect(lines(empty.stderr)).toEqual(["stdin:1: there are no rows", "1 bad row; nothing was submitted"]);
    const tsv = await file(place, "animals.tsv", TSV);
    const { code, stderr } = await outlast(["submit", tsv, "--map", "prompt=prompt", ...MODEL], { env: place.env });
    expect(code).toBe(1);
    expect(lines(stderr)).toEqual([`${tsv}: no column "prompt"; the columns are "Prompt", "Seed", "Name"`]);
    const sly = await file(place, "sly.csv", "\u009b2J\u202egnp,b\n1,2\n");
    const told = await outlast(["submit", sly, "--map", "prompt=prompt", ...MODEL], { env: place.env });
    expect(lines(told.stderr)).toEqual([`${sly}: no column "prompt"; the columns are "\ufffd2J\ufffdgnp", "b"`]);
  });

  test("can't play tricks with the terminal they are shown on", async ({ place }) => {
    const input = `${JSON.stringify({ input: {}, "\u001b]0;owned\u0007": 1 })}\n`;
    const { stderr } = await outlast(["submit", "-", ...MODEL], { env: place.env, input });
    // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
    expect(stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });
});

describe("--check", () => {
  test("needs neither Redis nor bucket nor account, and writes nothing", async ({ place }) => {
    const tsv = await file(place, "animals.tsv", TSV);
    const env = { OUTLAST_STATE_DIR: path.join(place.folder, "state") };
    const checked = await outlast(["submit", tsv, "--map", "prompt=Prompt", ...MODEL, "--check", "--json"], { env });
    expect(checked).toEqual({
      code: 0,
      stdout: '{"items":2}\n',
      stderr: `${tsv}: 2 items, all good; nothing was submitted\n`,
    });
    const bad = await outlast(["submit", tsv, "--map", "n:number=Prompt", ...MODEL, "--check"], { env });
    expect(bad.code).toBe(1);
    expect(lines(bad.stderr)).toHaveLength(3);
  });
});
