/**
 * Measures Outlast on the machine it runs on, and prints tables of numbers beside their goals:
 *
 *     npm run bench                     everything, more than an hour
 *     npm run bench -- pace memory      only these
 *     npm run bench -- follow/crowd     only this part of one
 *     npm run bench -- --short          smaller sizes, some minutes: a quick look, not a statement
 *
 * Nothing is asserted: numbers are read side by side, from one run, by a person. The exit code is 1 only where a run
 * couldn't be carried out. Workers, Redis and the emulator are processes of their own, as in production; this one
 * only watches. Whatever happens, they and their folders are gone at the end.
 */

import { cpus } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, styleText } from "node:util";
import { measureApi } from "./api.ts";
import { measureAway } from "./away.ts";
import { measureCrowd } from "./crowd.ts";
import { measureFlow } from "./flow.ts";
import { measureFollow } from "./follow.ts";
import { measureMemory } from "./memory.ts";
import { measurePace } from "./pace.ts";
import { measureSaving } from "./save.ts";
import { fixed } from "./table.ts";
import { measureThroughput } from "./throughput.ts";
import { measureWebhookFaults } from "./webhook-faults.ts";

export type BenchOptions = { readonly short: boolean; readonly signal: AbortSignal };

const BENCHES: Readonly<Record<string, (options: BenchOptions) => Promise<void>>> = {
  pace: measurePace,
  throughput: measureThroughput,
  memory: measureMemory,
  api: measureApi,
  "follow/requests": measureFollow,
  "follow/faults": measureWebhookFaults,
  "follow/away": measureAway,
  "follow/flow": measureFlow,
  "follow/crowd": measureCrowd,
  save: measureSaving,
};

/** Busier before we begin, others are at work, and rates and CPU times say as much about them. */
const QUIET_SHARE = 0.1;
const LOOK_MS = 2_000;

const stopping = new AbortController();

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { short: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const names = Object.keys(BENCHES);
  const unknown = positionals.find((wanted) => !names.some((name) => isPartOf(name, wanted)));
  if (unknown !== undefined) throw new Error(`there is no ${unknown}; there are ${names.join(", ")}`);

  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.once(name, () => stopping.abort(new Error(`stopped by ${name}`)));
  }
  const busy = await busyShare();
  const machine = `${cpus().length} cores, Node ${process.versions.node}, ${fixed(busy * 100, 0)} % busy at the start`;
  console.log(styleText("dim", machine));
  if (busy > QUIET_SHARE) console.log(styleText("yellow", "others are at work on this machine: the numbers are noisy"));

  for (const [name, bench] of Object.entries(BENCHES)) {
    if (positionals.length > 0 && !positionals.some((wanted) => isPartOf(name, wanted))) continue;
    stopping.signal.throwIfAborted();
    await bench({ short: values.short, signal: stopping.signal });
  }
}

function isPartOf(name: string, wanted: string): boolean {
  return name === wanted || name.startsWith(`${wanted}/`);
}

/** How much of all cores' time is used by others, before anything of ours runs. */
async function busyShare(): Promise<number> {
  const read = () =>
    cpus().reduce(
      (sum, { times }) => ({
        idle: sum.idle + times.idle,
        all: sum.all + times.user + times.nice + times.sys + times.irq + times.idle,
      }),
      { idle: 0, all: 0 },
    );
  const before = read();
  await sleep(LOOK_MS, undefined, { signal: stopping.signal });
  const after = read();
  return 1 - (after.idle - before.idle) / (after.all - before.all);
}

await main().catch((error: unknown) => {
  const reason: unknown = stopping.signal.aborted ? stopping.signal.reason : error;
  console.error(reason instanceof Error ? reason.message : String(reason));
  process.exitCode = 1;
});
