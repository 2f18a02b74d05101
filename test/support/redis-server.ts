/**
 * A real Redis for a test: its own process on a free loopback port, in a folder that goes with it.
 *
 *     await using redis = await startTestRedis({ durable: true });    // to be killed and restarted
 *
 * A test file that only needs one takes `test` from `redis.ts`.
 *
 * With OUTLAST_TEST_REDIS_IMAGE set, the server is a container of that image instead; if it can't be started, the
 * test fails with the reason. Nothing here ever connects to a server that it didn't start.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rename, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { findRedisBinary } from "../../src/embedded/redis-binary.ts";

export type TestRedis = AsyncDisposable & {
  /** `redis://127.0.0.1:PORT` */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** SIGKILL: what was not on disk is lost. Not in a container. */
  kill(): Promise<void>;
  /** Starts it again on the same port and folder after `kill()`. Not in a container. */
  restart(): Promise<void>;
  /**
   * Kills it and starts it again from a copy of its append-only file that was taken so long before: its last moments are
   * lost. (A kill alone loses nothing: what Redis has written is in the kernel's hands.) The file must not be rewritten
   * meanwhile, so that a copy is a state that Redis once had. Not in a container.
   */
  loseLast(lostMs: number): Promise<void>;
  close(): Promise<void>;
};

export type TestRedisOptions = {
  /** Sync the append-only file at every write, as the embedded server does. Default: it is written, and never synced. */
  readonly durable?: boolean;
  /** More settings, such as `["--maxmemory-policy", "allkeys-lru"]`; they come last and win. */
  readonly args?: readonly string[];
};

export async function startTestRedis(options: TestRedisOptions = {}): Promise<TestRedis> {
  const durability =
    options.durable === true ? "--appendonly yes --appendfsync always" : "--appendonly yes --appendfsync no";
  const settings = [
    "--save",
    "",
    "--maxmemory-policy",
    "noeviction",
    ...durability.split(" "),
    ...(options.args ?? []),
  ];
  const image = process.env["OUTLAST_TEST_REDIS_IMAGE"];
  return image === undefined || image === "" ? await startProcess(settings) : await startContainer(image, settings);
}

async function startProcess(settings: readonly string[]): Promise<TestRedis> {
  const { found } = await findRedisBinary(process.env["PATH"] ?? "");
  if (found === null) throw new Error("tests need redis-server >= 7 or valkey-server >= 8: run `npm run setup`");
  const folder = await mkdtemp(join(tmpdir(), "outlast-test-redis-"));

  let running: Running | null = null;
  let port = 0;
  for (let tried = 1; running === null; tried++) {
    port = await freePort();
    running = await launch(found.path, folder, port, settings).catch((error: unknown) => {
      if (tried === 5 || !/address already in use/i.test(String(error))) throw error;
      return null; // somebody took the port between looking and binding
    });
  }

  const kill = async () => {
    await running?.end("SIGKILL");
    running = null;
  };
  const restart = async () => {
    if (running !== null) throw new Error("restart() comes after kill()");
    running = await launch(found.path, folder, port, settings);
  };
  const close = async () => {
    await kill(); // nobody reads this folder again
    await rm(folder, { recursive: true, force: true });
  };
  return {
    url: `redis://127.0.0.1:${port}`,
    host: "127.0.0.1",
    port,
    kill,
    restart,
    loseLast: async (lostMs) => {
      const file = join(folder, "appendonlydir");
      const copy = join(folder, "copy");
      await cp(file, copy, { recursive: true });
      await sleep(lostMs); // what is done meanwhile is what is lost
      await kill();
      await rm(file, { recursive: true });
      await rename(copy, file);
      await restart();
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

type Running = { end(signal: NodeJS.Signals): Promise<void> };

const children = new Set<ChildProcess>();
process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

async function launch(path: string, folder: string, port: number, settings: readonly string[]): Promise<Running> {
  const args = ["--bind", "127.0.0.1", "--port", String(port), "--dir", ".", ...settings];
  const child = spawn(path, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  // Not its exit alone: a child of its own that rewrites the append-only file outlives it, and writes into the folder.
  const exited = once(child, "close").finally(() => children.delete(child));

  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-4_000);
    });
  }
  const deadline = Date.now() + 20_000;
  while (!(await answers(port, child.pid))) {
    if (child.exitCode !== null || child.signalCode !== null || Date.now() > deadline) {
      child.kill("SIGKILL");
      await exited;
      throw new Error(`the test's redis-server did not start: ${log}`);
    }
    await sleep(10);
  }
  return {
    end: async (signal) => {
      child.kill(signal);
      await exited;
    },
  };
}

async function answers(port: number, pid: number | undefined): Promise<boolean> {
  const client = new Redis({ host: "127.0.0.1", port, lazyConnect: true, retryStrategy: null, commandTimeout: 5_000 });
  client.on("error", () => {});
  try {
    await client.connect();
    await client.ping();
    return (await client.info("server")).includes(`process_id:${pid}\r`);
  } catch {
    return false;
  } finally {
    client.disconnect();
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen({ host: "127.0.0.1", port: 0 });
  await once(probe, "listening");
  const address = probe.address();
  probe.close();
  await once(probe, "close");
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address and a port");
  return address.port;
}

async function startContainer(image: string, settings: readonly string[]): Promise<TestRedis> {
  const { GenericContainer, Wait } = await import("testcontainers");
  const container = await new GenericContainer(image)
    .withExposedPorts(6379)
    .withCommand(["redis-server", "--bind", "0.0.0.0", "--port", "6379", "--protected-mode", "no", ...settings])
    .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/i))
    .withStartupTimeout(60_000)
    .start()
    .catch((error: unknown) => {
      throw new Error(`no container of OUTLAST_TEST_REDIS_IMAGE=${image}: ${String(error)}`, { cause: error });
    });
  const host = container.getHost();
  const port = container.getMappedPort(6379);
  const close = async () => {
    await container.stop();
  };
  const notHere = () => Promise.reject(new Error("it takes a redis-server process to be killed, not a container"));
  return {
    url: `redis://${host}:${port}`,
    host,
    port,
    kill: notHere,
    restart: notHere,
    loseLast: notHere,
    close,
    [Symbol.asyncDispose]: close,
  };
}
