/**
 * Measures Outlast on the machine it runs on, and prints tables of numbers beside their goals:
 *
 *     npm run bench                     everything, about 15 minutes
 *     npm run bench -- pace memory      only these
 *     npm run bench -- --short          smaller sizes, under a minute each: a quick look, not a statement
 *
 * Nothing is asserted: numbers are read side by side, from one run, by a person. The exit code is 1 only where a run
 * couldn't be carried out. Workers, Redis and the emulator are processes of their own, as in production; this one
 * only watches. Whatever happens, they and their folders are gone at the end.
 */

import { cpus, loadavg } from "node:os";
import { parseArgs, styleText } from "node:util";
import { measureMemory } from "./memory.ts";
import { measurePace } from "./pace.ts";
import { fixed } from "./table.ts";
import { measureThroughput } from "./throughput.ts";

export type BenchOptions = { readonly short: boolean; readonly signal: AbortSignal };

const BENCHES: Readonly<Record<string, (options: BenchOptions) => Promise<void>>> = {
  pace: measurePace,
  throughput: measureThroughput,
  memory: measureMemory,
};

/** Above it others are at work, and rates and CPU times say as much about them. */
const QUIET_LOAD = 0.5;

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { short: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const unknown = positionals.find((name) => !Object.hasOwn(BENCHES, name));
  if (unknown !== undefined) throw new Error(`there is no ${unknown}; there are ${Object.keys(BENCHES).join(", ")}`);

  const stopping = new AbortController();
  const stop = (signal: string) => stopping.abort(new Error(`stopped by ${signal}`));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);

  const [load = 0] = loadavg();
  console.log(
    styleText("dim", `${cpus().length} cores, Node ${process.versions.node}, load ${fixed(load, 2)} at the start`),
  );
  if (load > QUIET_LOAD) console.log(styleText("yellow", "others are at work on this machine: the numbers are noisy"));

  for (const [name, bench] of Object.entries(BENCHES)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue;
    stopping.signal.throwIfAborted();
    await bench({ short: values.short, signal: stopping.signal });
  }
}

await main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
});
