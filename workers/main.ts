/**
 * Runs stages of the pipeline in this process until it is told to stop: all of them, or those named.
 *
 * SIGTERM or SIGINT: stop taking jobs, let running ones end, at most `DRAIN_MS`; a second signal exits at once.
 * Whatever is cut short is run again by another worker. `--check` only loads and reads the settings.
 */

import { requireSoundBucket } from "../src/bucket/check-bucket.ts";
import { ConfigError, readConfig } from "../src/config.ts";
import { SECOND } from "../src/core/time.ts";
import { openLog } from "../src/log.ts";
import { openServices } from "../src/wiring.ts";
import { STAGES, type Stage, startStages } from "./stages.ts";

const DRAIN_MS = 30 * SECOND;

export async function runWorker(
  stages: readonly Stage[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  const stopped = firstOf("SIGTERM", "SIGINT", "disconnect"); // before anything takes time: it may come at once
  const config = readConfig(env);
  const log = openLog(config.logLevel);
  await using services = await openServices(config, "worker");
  await requireSoundBucket(services.bucket);
  if (config.accounts.length === 0) {
    throw new ConfigError([
      "there is no account to work for: set REPLICATE_API_TOKEN or COMETAPI_KEY, or OUTLAST_ACCOUNTS",
    ]);
  }
  const running = await startStages(services, stages, log);
  log.info({ stages, accounts: services.accounts.map(({ name }) => name), bucket: services.bucket.url }, "working");

  const reason = await stopped;
  log.info({ reason }, "stopping: running jobs may end");
  const firstAt = performance.now();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    // Under npm one Ctrl-C comes twice: from the terminal, and handed on by npm.
    process.on(signal, () => performance.now() - firstAt > SECOND && process.exit(1));
  }
  const deadline = setTimeout(() => running.abort("the process is stopping"), DRAIN_MS);
  const lastResort = setTimeout(() => process.exit(1), DRAIN_MS + 5 * SECOND);
  await running.drain();
  clearTimeout(deadline);
  clearTimeout(lastResort);
}

/** `disconnect`: the parent that started this process over IPC is gone. A listener left behind keeps that channel open. */
async function firstOf(...events: readonly ("SIGTERM" | "SIGINT" | "disconnect")[]): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const listeners = events.map((event) => [event, () => resolve(event)] as const);
  for (const [event, listener] of listeners) process.on(event, listener);
  const first = await promise;
  for (const [event, listener] of listeners) process.off(event, listener);
  return first;
}

export function readStages(names: readonly string[]): readonly Stage[] | string {
  const unknown = names.find((name) => !STAGES.includes(name as Stage));
  if (unknown !== undefined) return `there is no stage ${JSON.stringify(unknown)}; the stages are ${STAGES.join(", ")}`;
  return names.length === 0 ? STAGES : (names as readonly Stage[]);
}

if (import.meta.main) {
  const stages = readStages(process.argv.slice(2).filter((argument) => argument !== "--check"));
  if (typeof stages === "string") {
    console.error(stages);
    process.exitCode = 1;
  } else if (process.argv.includes("--check")) {
    readConfig(process.env);
  } else {
    await runWorker(stages, process.env).catch((error: Error) => {
      console.error(error.message);
      process.exitCode = 1;
    });
  }
}
