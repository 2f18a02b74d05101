/**
 * A whole system as it runs in production, for tests of whole runs: a private Redis that syncs every write, the
 * emulator, a folder for a bucket, and workers as processes of their own that can be killed.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { readConfig } from "../../src/config.ts";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import type { EmulatorOptions } from "../../src/emulator/options.ts";
import { type CommandServices, openServices } from "../../src/wiring.ts";
import { startTestRedis, type TestRedis } from "./redis.ts";

export type FleetOptions = {
  readonly emulator?: EmulatorOptions;
  /** What the accounts are told; the emulator's own limit stays its own. */
  readonly createsPerMinute?: number;
  readonly env?: Readonly<Record<string, string>>;
  /** Whose route the one account speaks. Default replicate. */
  readonly provider?: "replicate" | "cometapi";
};

export type Fleet = AsyncDisposable & {
  readonly redis: TestRedis;
  readonly emulator: Emulator;
  readonly services: CommandServices;
  readonly folder: string;
  /** The settings of every process of this fleet. */
  readonly env: Readonly<Record<string, string>>;
  /** All stages, unless some are named. */
  startWorker(stages?: readonly string[], env?: Readonly<Record<string, string>>): WorkerProcess;
};

export type WorkerProcess = {
  readonly pid: number;
  /** SIGKILL: nothing is closed, nothing is told. */
  kill(): Promise<void>;
  /** SIGTERM; answers the exit code. */
  stop(): Promise<number | null>;
  /** What it wrote to stderr. */
  log(): string;
};

/** Limits are a matter of the tests that name them. */
const UNLIMITED = {
  createsPerMinute: Number.POSITIVE_INFINITY,
  readsPerMinute: Number.POSITIVE_INFINITY,
  runMs: { medianMs: 500, spread: 0.3 },
};

const PROJECT = new URL("../..", import.meta.url).pathname;

export async function startFleet(options: FleetOptions = {}): Promise<Fleet> {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-fleet-"));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const redis = opened.use(await startTestRedis({ durable: true }));
  const emulator = opened.use(await startEmulator({ ...UNLIMITED, ...options.emulator }));
  const env = {
    ...(options.provider === "cometapi"
      ? { COMETAPI_KEY: "sk-emulator", OUTLAST_COMETAPI_BASE_URL: emulator.cometUrl }
      : { REPLICATE_API_TOKEN: "r8_emulator", OUTLAST_REPLICATE_BASE_URL: emulator.apiUrl }),
    OUTLAST_OUTPUT_HOSTS: new URL(emulator.filesUrl).host,
    OUTLAST_REDIS_URL: redis.url,
    OUTLAST_BUCKET: `file:${path.join(folder, "bucket")}`,
    OUTLAST_STATE_DIR: path.join(folder, "state"),
    OUTLAST_CREATES_PER_MINUTE: String(options.createsPerMinute ?? 6_000),
    OUTLAST_READS_PER_MINUTE: "60000",
    OUTLAST_LOG_LEVEL: "warn",
    ...options.env,
  };
  const services = opened.use(await openServices(readConfig(env), "command"));
  const workers: ChildProcess[] = [];
  opened.defer(async () => {
    await Promise.all(workers.map((worker) => ended(worker, "SIGKILL")));
  });
  const held = opened.move();
  return {
    redis,
    emulator,
    services,
    folder,
    env,
    startWorker(stages = [], own = {}) {
      const child = spawn(process.execPath, ["workers/main.ts", ...stages], {
        cwd: PROJECT,
        env: { PATH: process.env["PATH"] ?? "", ...env, ...own },
        stdio: ["ignore", "ignore", "pipe"],
      });
      workers.push(child);
      let log = "";
      child.stderr?.on("data", (chunk: Buffer) => {
        log = (log + chunk.toString()).slice(-100_000);
      });
      return {
        pid: child.pid ?? 0,
        log: () => log,
        kill: async () => {
          await ended(child, "SIGKILL");
        },
        stop: () => ended(child, "SIGTERM"),
      };
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

async function ended(child: ChildProcess, signal: NodeJS.Signals): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null) {
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }
  return child.exitCode;
}
