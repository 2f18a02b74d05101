/**
 * What `up` and `demo` start, as one object that is opened and closed in order: Redis, the emulator, the connections,
 * the server with the dashboard, the workers, and `up.json`, by which every other command finds them.
 *
 *   Redis      the one that OUTLAST_REDIS_URL names, else a private one in the state folder; if that ends by itself,
 *              it is started again on its port, and everybody's connections come back.
 *   emulator   only where no account has a token: then it is the account `replicate`, in this process. What it was
 *              running is forgotten with it: items in flight at that moment end as failed once it is started again.
 *              It takes no batch over that was a provider's to run, nor does a provider one of its own (`player.ts`).
 *   server     in this process, on loopback.
 *   workers    child processes, whose environment is this one's with what was decided here. They are replaced when
 *              they die, and drain by themselves when this process is gone.
 *
 * Closing goes the other way round: up.json, workers (running jobs may end), server, connections, emulator, Redis.
 * After SIGKILL of this process the next start finds a stale up.json, adopts the private Redis, and meets no worker.
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { requireSoundBucket } from "../bucket/check-bucket.ts";
import { type Config, readConfig } from "../config.ts";
import { SECOND } from "../core/time.ts";
import { type Emulator, startEmulator } from "../emulator/emulator.ts";
import type { EmulatorOptions } from "../emulator/options.ts";
import { closeWithin, DRAIN_MS } from "../server/leaving.ts";
import { buildServer, listen, requireKeysBeyondLoopback } from "../server/server.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { anothersBatch, notePlayer, type Player } from "./player.ts";
import type { RedisServer } from "./redis-ownership.ts";
import { startRedisServer } from "./redis-server.ts";
import { EMULATOR_TOKEN, readUpFile, removeUpFile, type UpFile, writeUpFile } from "./up-file.ts";
import { keepWorkers, type WorkerProcesses, type WorkerProcessOptions } from "./worker-process.ts";

export type SystemOptions = {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Worker processes; 0 leaves them to somebody else. */
  readonly workers: number;
  /** What this process itself has to tell. */
  readonly log: Logger;
  readonly workerLog: WorkerProcessOptions["log"];
  /** Beside what the settings decide: its limits are the account's. */
  readonly emulator?: Omit<EmulatorOptions, "tokens" | "createsPerMinute" | "readsPerMinute">;
  /** Done when Redis and bucket are there and nobody works yet. */
  readonly beforeWork?: (services: CommandServices) => Promise<void>;
};

export type System = AsyncDisposable & {
  /** As the workers have it. */
  readonly config: Config;
  readonly services: CommandServices;
  readonly up: UpFile;
  /** What a worker's environment needs beside the person's own. */
  readonly workerEnv: Readonly<Record<string, string>>;
  /** Whether the Redis is a private one. */
  readonly ownRedis: boolean;
  /** Resolves with the reason if it can't go on. */
  readonly broken: Promise<string>;
  readonly workerPids: () => readonly number[];
  /** For the second signal: nobody drains. */
  abandon(): void;
};

/** It can't be started here; the message is one line that says what to do. */
export class SystemError extends Error {
  override readonly name = "SystemError";
}

/** Throws SystemError, ListenError, ConfigError, RedisServerError, RedisUnusable or BucketError. */
export async function startSystem(options: SystemOptions): Promise<System> {
  const { log } = options;
  const asked = readConfig(options.env);
  requireKeysBeyondLoopback(asked);
  await requireNoOther(asked.stateDir);
  const broken = Promise.withResolvers<string>();
  await using opened = new AsyncDisposableStack();

  const redisUrl = asked.redisUrl ?? opened.use(await keepRedis(`${asked.stateDir}/redis`, log, broken.resolve)).url;
  const emulator = asked.accounts.length === 0 ? opened.use(await openEmulator(options)) : null;

  const workerEnv = environmentOf(asked, redisUrl, emulator);
  const env = { ...options.env, ...workerEnv };
  const config = readConfig(env);
  const services = opened.use(await openServices(config, "server"));
  await requireSoundBucket(services.bucket);
  await options.beforeWork?.(services);
  await takeOver(services, emulator === null ? "provider" : "emulator");

  const app = await buildServer({ ...services, emulated: emulator !== null, log });
  const cutting = () => log.warn("some requests didn't end in time and are cut off");
  opened.defer(() => closeWithin(app, DRAIN_MS, cutting));
  const dashboardUrl = await listen(app, config);

  const workers = opened.use(
    keepWorkers({
      count: options.workers,
      env,
      log: options.workerLog,
      onLost: ({ pid, how, pauseMs }) =>
        log.warn({ worker: pid, how, pauseMs }, "a worker process ended by itself; another takes its place"),
    }),
  );

  const up: UpFile = {
    pid: process.pid,
    started_at: new Date().toISOString(),
    redis_url: redisUrl,
    bucket: services.bucket.url,
    ...(config.s3Endpoint !== null && { s3_endpoint: config.s3Endpoint }),
    dashboard_url: dashboardUrl,
    accounts: config.accounts.map(({ name, provider, createsPerMinute }) => ({
      name,
      provider,
      creates_per_minute: createsPerMinute,
    })),
    emulator:
      emulator === null
        ? null
        : { api_url: emulator.apiUrl, comet_url: emulator.cometUrl, files_url: emulator.filesUrl },
  };
  await writeUpFile(config.stateDir, up);
  opened.defer(() => removeUpFile(config.stateDir, process.pid));

  return assemble(
    { config, services, up, workerEnv, workers, ownRedis: asked.redisUrl === null, broken: broken.promise },
    opened.move(),
  );
}

function assemble(
  {
    workers,
    ...parts
  }: Omit<System, "workerPids" | "abandon" | typeof Symbol.asyncDispose> & {
    readonly workers: WorkerProcesses;
  },
  held: AsyncDisposableStack,
): System {
  return {
    ...parts,
    workerPids: workers.pids,
    abandon: () => workers.kill(),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

/** A process with the pid of up.json could be anybody's by now: only its own server can say that it is up. */
async function requireNoOther(stateDir: string): Promise<void> {
  const other = await readUpFile(stateDir);
  if (other === null || !(await answersAs(other))) return;
  throw new SystemError(
    `outlast is up already in ${stateDir} (process ${other.pid}, ${other.dashboard_url}): use that one, or set OUTLAST_STATE_DIR to another folder`,
  );
}

async function answersAs({ dashboard_url, pid }: UpFile): Promise<boolean> {
  try {
    const answer = await fetch(new URL("/health", dashboard_url), { signal: AbortSignal.timeout(2 * SECOND) });
    const body: unknown = await answer.json();
    return typeof body === "object" && body !== null && "pid" in body && body.pid === pid;
  } catch {
    return false;
  }
}

/** Throws a SystemError where somebody else was asked for what isn't ended yet. */
async function takeOver(services: CommandServices, player: Player): Promise<void> {
  const batch = await anothersBatch(services, player);
  if (batch !== null) {
    throw new SystemError(
      player === "emulator"
        ? `no token is set, and batch ${batch} is a provider's to run: set REPLICATE_API_TOKEN, or OUTLAST_STATE_DIR to another folder to try things with the emulator`
        : `batch ${batch} was given to the emulator, and would be bought now: start without REPLICATE_API_TOKEN to end or cancel it, or set OUTLAST_STATE_DIR to another folder`,
    );
  }
  await notePlayer(services.config.stateDir, player);
}

/** The account's limits are the emulator's: who tries out a rate wants it to hold on both sides. */
async function openEmulator({ env, emulator }: SystemOptions): Promise<Emulator> {
  const [account] = readConfig({ ...env, REPLICATE_API_TOKEN: EMULATOR_TOKEN, COMETAPI_KEY: undefined }).accounts;
  return await startEmulator({
    ...emulator,
    tokens: [EMULATOR_TOKEN],
    ...(account && { createsPerMinute: account.createsPerMinute, readsPerMinute: account.readsPerMinute }),
  });
}

/** What was decided here. A worker has it beside what the person gave, and reads its configuration from both. */
function environmentOf(asked: Config, redisUrl: string, emulator: Emulator | null): Readonly<Record<string, string>> {
  return {
    OUTLAST_REDIS_URL: redisUrl,
    OUTLAST_OWN_REDIS: String(asked.redisUrl === null),
    OUTLAST_BUCKET: asked.bucket,
    ...(emulator && {
      REPLICATE_API_TOKEN: EMULATOR_TOKEN,
      OUTLAST_REPLICATE_BASE_URL: emulator.apiUrl,
      OUTLAST_OUTPUT_HOSTS: [...asked.outputHosts, new URL(emulator.filesUrl).host].join(","),
    }),
  };
}

const MAX_REDIS_DEATHS = 5;
const REDIS_DEATHS_WITHIN_MS = 60 * SECOND;

/** A private Redis that is started again when it ends by itself; on the same port, so nobody needs to be told. */
async function keepRedis(
  dataDir: string,
  log: Logger,
  giveUp: (reason: string) => void,
): Promise<AsyncDisposable & { readonly url: string }> {
  let closed = false;
  let deaths: readonly number[] = [];
  let restarting: Promise<void> = Promise.resolve();
  const onExit = (reason: string) => {
    restarting = restart(reason);
  };
  const start = () => startRedisServer({ dataDir, onExit });
  let server: RedisServer = await start();
  const { url } = server;

  async function restart(reason: string): Promise<void> {
    const now = performance.now();
    deaths = [...deaths.filter((at) => now - at < REDIS_DEATHS_WITHIN_MS), now];
    if (closed) return;
    if (deaths.length > MAX_REDIS_DEATHS) return giveUp(`${reason}; it ended ${deaths.length} times within a minute`);
    log.warn({ reason }, "the private Redis ended by itself and is started again");
    await sleep(0.1 * SECOND * deaths.length);
    try {
      server = await start();
      if (server.url !== url) giveUp(`the private Redis had to change its address to ${server.url}: start again`);
    } catch (error) {
      giveUp((error as Error).message);
    }
  }

  return {
    url,
    async [Symbol.asyncDispose]() {
      closed = true;
      await restarting;
      await server.close();
    },
  };
}
