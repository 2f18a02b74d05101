/**
 * What people write first: the official client's `run()` in a loop, ten inputs at a time, with a file that says which are
 * done. Killed, it is started again and carries on from that file. An input that fails comes again, three times in all.
 *
 *     node client-loop.ts BASE_URL ITEMS.jsonl FOLDER
 */

import { existsSync } from "node:fs";
import { appendFile, readFile } from "node:fs/promises";
import path from "node:path";
import type { Item } from "../items.ts";
import { openOfficialClient } from "./client.ts";
import { keep } from "./keep.ts";

const AT_ONCE = 10;
const PASSES = 3;

const [baseUrl = "", itemsFile = "", folder = ""] = process.argv.slice(2);
const replicate = openOfficialClient(baseUrl);
const items = (await readFile(itemsFile, "utf8"))
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Item);
const checkpoint = path.join(folder, "done.txt");
const done = new Set(existsSync(checkpoint) ? (await readFile(checkpoint, "utf8")).split("\n") : []);

for (let pass = 0; pass < PASSES; pass++) {
  const left = items.filter(({ id }) => !done.has(id));
  const run = async () => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await runOne(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, run));
}

async function runOne({ id, model, input }: Item): Promise<void> {
  try {
    const output = await replicate.run(model as `${string}/${string}`, { input });
    await keep(folder, id, output);
    await appendFile(checkpoint, `${id}\n`);
    done.add(id);
  } catch (error) {
    console.error(`${id}: ${String(error)}`);
  }
}
