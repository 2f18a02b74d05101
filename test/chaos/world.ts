/**
 * One chaos run's fleet: a Redis that can lose its last seconds, the emulator, a folder for a bucket, worker processes
 * that can be killed and frozen, and a server that takes the provider's webhooks, where there is one. All of it lives
 * in one folder, logs too, which stays where a run has failed.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { readConfig } from "../../src/config.ts";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import type { EmulatorOptions } from "../../src/emulator/options.ts";
import { type Client, openClient } from "../../src/index.ts";
import { type CommandServices, openServices } from "../../src/wiring.ts";
import { type ChaosRedis, startChaosRedis } from "./redis.ts";

export type World = AsyncDisposable & {
  readonly folder: string;
  readonly redis: ChaosRedis;
  readonly emulator: Emulator;
  readonly client: Client;
  readonly services: CommandServices;
  /** Those that run, the frozen ones too. */
  workers(): readonly ChaosWorker[];
  /** One that ends by itself, as when it finds no Redis, is followed by another, as any process manager would have it. */
  startWorker(): void;
  /** How many ended by themselves. */
  endedByThemselves(): number;
  /** `outlast …`; throws with what it said unless it ends with 0. */
  command(args: readonly string[]): Promise<void>;
  /** SIGTERM to all workers, and to the server; throws where one doesn't end by itself. */
  drain(): Promise<void>;
};

export type ChaosWorker = {
  readonly name: string;
  isFrozen(): boolean;
  kill(): Promise<void>;
  freeze(): void;
  /** Harmless where it is dead. */
  thaw(): void;
};

export type WorldOptions = {
  readonly folder: string;
  readonly emulator: EmulatorOptions;
  readonly createsPerMinute: number;
  readonly settlingSeconds: number;
  /** Whether there is a server, and the provider is asked to call it. */
  readonly isTold: boolean;
};

const PROJECT = new URL("../..", import.meta.url).pathname;
/** A worker lets its jobs end for 30 s; a create that hangs takes as long. */
const DRAIN_MS = 45_000;
const COMMAND_MS = 120_000;
const RESTART_MS = 1_000;

export async function startWorld({ folder, ...options }: WorldOptions): Promise<World> {
  await using opened = new AsyncDisposableStack();
  await mkdir(folder, { recursive: true });
  const redis = opened.use(await startChaosRedis());
  const emulator = opened.use(await startEmulator(options.emulator));
  const port = options.isTold ? await freePort() : null;
  const env = {
    REPLICATE_API_TOKEN: "r8_emulator",
    OUTLAST_REPLICATE_BASE_URL: emulator.apiUrl,
    OUTLAST_OUTPUT_HOSTS: new URL(emulator.filesUrl).host,
    OUTLAST_REDIS_URL: redis.url,
    OUTLAST_BUCKET: `file:${path.join(folder, "bucket")}`,
    OUTLAST_STATE_DIR: path.join(folder, "state"),
    OUTLAST_CREATES_PER_MINUTE: String(options.createsPerMinute),
    OUTLAST_READS_PER_MINUTE: "60000",
    OUTLAST_SETTLING_SECONDS: String(options.settlingSeconds),
    OUTLAST_LOG_LEVEL: "info",
    ...(port !== null && { OUTLAST_PORT: String(port), OUTLAST_PUBLIC_URL: `http://127.0.0.1:${port}` }),
  };
  const services = opened.use(await openServices(readConfig(env), "command"));
  const client = opened.use(await openClient({ env }));

  const start = (args: readonly string[], name: string): ChildProcess => {
    const log = openSync(path.join(folder, `${name}.log`), "a");
    const child = spawn(process.execPath, args, {
      cwd: PROJECT,
      env: { PATH: process.env["PATH"] ?? "", ...env },
      stdio: ["ignore", log, log, "ipc"], // whoever listens ends with us
    });
    closeSync(log);
    return child;
  };
  const running = new Map<ChildProcess, ChaosWorker>();
  const servers = new Map<ChildProcess, ChaosWorker>();
  opened.defer(async () => {
    await Promise.all([...running.values(), ...servers.values()].map((one) => one.kill()));
  });
  let started = 0;
  let endedByThemselves = 0;
  let isClosing = false;
  opened.defer(() => {
    isClosing = true;
  });
  const keepGoing = (args: readonly string[], name: () => string, among: Map<ChildProcess, ChaosWorker>) => {
    if (isClosing) return;
    const called = name();
    const child = start(args, called);
    among.set(child, workerOf(child, called));
    child.once("exit", (_code, signal) => {
      among.delete(child);
      if (signal !== null || isClosing) return;
      endedByThemselves++;
      setTimeout(() => keepGoing(args, name, among), RESTART_MS).unref();
    });
  };
  const startWorker = () => keepGoing(["workers/main.ts"], () => `worker-${++started}`, running);
  if (port !== null) keepGoing(["src/cli/cli.ts", "serve"], () => "server", servers);
  const held = opened.move();
  return {
    folder,
    redis,
    emulator,
    client,
    services,
    workers: () => [...running.values()],
    startWorker,
    endedByThemselves: () => endedByThemselves,
    async command(args) {
      const child = start(["src/cli/cli.ts", ...args], args[0] ?? "command");
      const timeout = setTimeout(() => child.kill("SIGKILL"), COMMAND_MS);
      await once(child, "exit");
      clearTimeout(timeout);
      if (child.exitCode === 0) return;
      const how = child.exitCode === null ? "was cut off" : `ended with ${child.exitCode}`;
      throw new Error(`outlast ${args.join(" ")} ${how}: see ${path.join(folder, `${args[0]}.log`)}`);
    },
    async drain() {
      isClosing = true;
      await Promise.all([...running, ...servers].map(([child, { name }]) => drain(child, name)));
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** That nobody listens on, at this moment. */
async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

function workerOf(child: ChildProcess, name: string): ChaosWorker {
  let isFrozen = false;
  return {
    name,
    isFrozen: () => isFrozen,
    async kill() {
      if (hasEnded(child)) return;
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
    },
    freeze() {
      isFrozen = child.kill("SIGSTOP");
    },
    thaw() {
      isFrozen = false;
      child.kill("SIGCONT");
    },
  };
}

async function drain(child: ChildProcess, name: string): Promise<void> {
  if (hasEnded(child)) return;
  const exited = once(child, "exit");
  child.kill("SIGTERM");
  const inTime = await Promise.race([exited.then(() => true), sleep(DRAIN_MS, false, { ref: false })]);
  if (!inTime || child.exitCode !== 0) {
    throw new Error(`${name} didn't end well when it was told to (${inTime ? child.exitCode : "still running"})`);
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
