/**
 * What people write first: the official client's `run()` in a loop, ten inputs at a time, with a file that says which are
 * done. Killed, it is started again and carries on from that file. An input that fails comes again, three times in all.
 *
 *     node client-loop.ts BASE_URL ITEMS.jsonl FOLDER [AT_ONCE [CREATES_PER_MINUTE [block|poll]]]
 */

import { existsSync } from "node:fs";
import { appendFile, readFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Item } from "../items.ts";
import { openOfficialClient, waitOf } from "./client.ts";
import { keep } from "./keep.ts";

const PASSES = 3;

const [baseUrl = "", itemsFile = "", folder = "", atOnce = "10", perMinute = "Infinity", mode = "block"] =
  process.argv.slice(2);
const replicate = openOfficialClient(baseUrl);
let nextTurnMs = 0;
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
  await Promise.all(Array.from({ length: Number(atOnce) }, run));
}

/** Runs start at even intervals, where a rate is kept. */
async function turn(): Promise<void> {
  const nowMs = performance.now();
  const turnMs = Math.max(nextTurnMs, nowMs);
  nextTurnMs = turnMs + 60_000 / Number(perMinute);
  if (turnMs > nowMs) await sleep(turnMs - nowMs);
}

async function runOne({ id, model, input }: Item): Promise<void> {
  try {
    await turn();
    const output = await replicate.run(model as `${string}/${string}`, { input, wait: waitOf(mode) });
    await keep(folder, id, output);
    await appendFile(checkpoint, `${id}\n`);
    done.add(id);
  } catch (error) {
    console.error(`${id}: ${String(error)}`);
  }
}
