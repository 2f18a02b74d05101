/**
 * A whole system as it runs in production, for tests of whole runs: a private Redis that syncs every write, the
 * emulator, a folder for a bucket, and workers and servers as processes of their own that can be killed.
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
import { startTestRedis, type TestRedis } from "./redis-server.ts";

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
  startWorker(stages?: readonly string[], env?: Readonly<Record<string, string>>): FleetProcess;
  /** A program of this project, with the fleet's settings. */
  start(program: string, env?: Readonly<Record<string, string>>): FleetProcess;
  /** `outlast serve` on a free port of loopback; resolves when it listens. */
  startServer(env?: Readonly<Record<string, string>>): Promise<ServerProcess>;
};

export type FleetProcess = {
  readonly pid: number;
  /** SIGKILL: nothing is closed, nothing is told. */
  kill(): Promise<void>;
  /** SIGTERM; answers the exit code. */
  stop(): Promise<number | null>;
  /** What it wrote to stderr. */
  log(): string;
  /** Resolves when it has ended, with the signal that ended it, or its exit code. */
  ended(): Promise<NodeJS.Signals | number | null>;
};

/** `url`: without a path, `http://127.0.0.1:PORT`. */
export type ServerProcess = FleetProcess & { readonly url: string };

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
  const children: ChildProcess[] = [];
  opened.defer(async () => {
    await Promise.all(children.map((child) => ended(child, "SIGKILL")));
  });
  const start = (args: readonly string[], own: Readonly<Record<string, string>>): WatchedProcess => {
    const child = spawn(process.execPath, args, {
      cwd: PROJECT,
      env: { PATH: process.env["PATH"] ?? "", ...env, ...own },
      stdio: ["ignore", "ignore", "pipe"],
    });
    children.push(child);
    return watched(child);
  };
  const held = opened.move();
  return {
    redis,
    emulator,
    services,
    folder,
    env,
    startWorker: (stages = [], own = {}) => start(["workers/main.ts", ...stages], own),
    start: (program, own = {}) => start([program], own),
    async startServer(own = {}) {
      const server = start(["src/cli/cli.ts", "serve"], { OUTLAST_PORT: "0", ...own });
      return { ...server, url: await server.shows(/serving the API at (http:\S+)\/v1,/) };
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

type WatchedProcess = FleetProcess & {
  /** What the pattern's group finds in the log, once it is there. Throws if the process ends without it. */
  shows(pattern: RegExp): Promise<string>;
};

function watched(child: ChildProcess): WatchedProcess {
  let log = "";
  let look = () => {};
  child.stderr?.on("data", (chunk: Buffer) => {
    log = (log + chunk.toString()).slice(-100_000);
    look();
  });
  return {
    pid: child.pid ?? 0,
    log: () => log,
    kill: async () => {
      await ended(child, "SIGKILL");
    },
    stop: () => ended(child, "SIGTERM"),
    async ended() {
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      return child.signalCode ?? child.exitCode;
    },
    shows(pattern) {
      const { promise, resolve, reject } = Promise.withResolvers<string>();
      look = () => {
        const [, found] = pattern.exec(log) ?? [];
        if (found !== undefined) resolve(found);
      };
      look();
      child.once("close", (code) =>
        reject(new Error(`it ended (${code}) without showing ${String(pattern)}:\n${log}`)),
      );
      return promise;
    },
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
