/**
 * The private Redis of `up` and `demo`, with the real binary from PATH: what it keeps, whom it obeys, how it ends.
 * Servers are killed here, and processes that own them; none that this file didn't start is ever touched.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findRedisBinary } from "../../src/embedded/redis-binary.ts";
import { startRedisServer } from "../../src/embedded/redis-server.ts";
import { RedisServerError } from "../../src/embedded/redis-server-error.ts";
import { test as testWithRedis } from "../support/redis.ts";

let folder: string;
let cleanup: AsyncDisposableStack;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "outlast-embedded-"));
  cleanup = new AsyncDisposableStack();
  cleanup.defer(() => rm(folder, { recursive: true, force: true }));
});
afterEach(() => cleanup.disposeAsync());

const start: typeof startRedisServer = async (options) => {
  const server = await startRedisServer(options);
  cleanup.defer(() => server.close());
  return server;
};

const client = (server: { readonly url: string }): Redis => {
  const redis = new Redis(server.url, { retryStrategy: null, maxRetriesPerRequest: 0 });
  redis.on("error", () => {});
  cleanup.defer(() => redis.disconnect());
  return redis;
};

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

const answers = async (port: number): Promise<boolean> => {
  const redis = client({ url: `redis://127.0.0.1:${port}` });
  return await redis.ping().then(
    () => true,
    () => false,
  );
};

const failure = async (promise: Promise<unknown>): Promise<RedisServerError> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof RedisServerError)) throw new Error(`expected a RedisServerError, got ${String(error)}`);
  expect(error.message).not.toContain("\n");
  return error;
};

describe("a fresh folder", () => {
  test("gets a server on loopback alone that syncs every write and never evicts", async () => {
    const server = await start({ dataDir: join(folder, "deep", "redis") });
    const redis = client(server);
    const settings = ["bind", "appendonly", "appendfsync", "save", "maxmemory-policy", "protected-mode"];
    const values = await Promise.all(settings.map(async (name) => (await redis.config("GET", name)) as string[]));
    expect(Object.fromEntries(values.map((pair) => [pair[0], pair[1]]))).toEqual({
      bind: "127.0.0.1",
      appendonly: "yes",
      appendfsync: "always",
      save: "",
      "maxmemory-policy": "noeviction",
      "protected-mode": "yes",
    });
    expect(server.url).toBe(`redis://127.0.0.1:${server.port}`);
    expect(server.port).not.toBe(6379);
    expect(server.adopted).toBe(false);
    expect(await redis.info("server")).toContain(`process_id:${server.pid}\r`);
  });

  test("notes pid and port for whoever looks", async () => {
    const server = await start({ dataDir: folder });
    const note: unknown = JSON.parse(await readFile(join(folder, "redis.json"), "utf8"));
    expect(note).toEqual({ pid: server.pid, port: server.port, owner_pid: process.pid });
  });

  test("may have spaces and quotes in its name", async () => {
    const server = await start({ dataDir: join(folder, `a "b" 'c' \\ é`) });
    expect(await client(server).ping()).toBe("PONG");
  });

  test("gets its server in a process group of its own, out of reach of Ctrl-C", async () => {
    const server = await start({ dataDir: folder });
    process.kill(-server.pid, 0); // throws unless the server leads a group
  });
});

describe("what was written", () => {
  test("is there again after close and start, on the same port", async () => {
    const first = await start({ dataDir: folder });
    await client(first).set("kept", "yes");
    await first.close();
    expect(isAlive(first.pid)).toBe(false);

    const second = await start({ dataDir: folder });
    expect(second.port).toBe(first.port);
    expect(second.adopted).toBe(false);
    expect(await client(second).get("kept")).toBe("yes");
  });

  test("and acknowledged survives kill -9 of the server, and its end is told once", async () => {
    const reasons: string[] = [];
    const first = await start({ dataDir: folder, onExit: (reason) => reasons.push(reason) });
    const redis = client(first);
    const acknowledged: number[] = [];
    const writing = (async () => {
      for (let n = 0; ; n++) {
        await redis.rpush("list", n);
        acknowledged.push(n);
      }
    })().catch(() => {});
    await expect.poll(() => acknowledged.length).toBeGreaterThan(200);
    process.kill(first.pid, "SIGKILL");
    await writing;
    await expect.poll(() => reasons).toHaveLength(1);
    expect(reasons[0]).toMatch(/^the embedded Redis in .* ended by itself: [^\n]+$/);

    const second = await start({ dataDir: folder });
    const kept = await client(second).lrange("list", 0, acknowledged.length - 1);
    expect(kept.map(Number)).toEqual(acknowledged);
    await first.close(); // closing what has died does nothing, above all not to its successor
    expect(isAlive(second.pid)).toBe(true);
  });
});

describe("closing", () => {
  test("is not told as an unexpected end, and may be repeated", async () => {
    const reasons: string[] = [];
    const server = await start({ dataDir: folder, onExit: (reason) => reasons.push(reason) });
    await Promise.all([server.close(), server.close()]);
    await server.close();
    expect(isAlive(server.pid)).toBe(false);
    expect(reasons).toEqual([]);
  });

  test("kills a server that is stuck, after a while", { timeout: 40_000 }, async () => {
    const server = await start({ dataDir: folder });
    process.kill(server.pid, "SIGSTOP");
    await server.close();
    expect(isAlive(server.pid)).toBe(false);
  });
});

describe("a process that owns a server", () => {
  test("takes it along at its normal end, even without closing it", async () => {
    const { port, owner } = await ownerProcess("setTimeout(() => process.exit(0), 10)");
    if (owner.exitCode === null) await once(owner, "exit");
    // Not by its pid: where nobody reaps orphans, a dead one keeps it.
    await expect.poll(() => answers(port)).toBe(false);
  });

  test("and is killed leaves it running, and the next start adopts it with everything in it", async () => {
    const { pid, port, owner } = await ownerProcess("setInterval(() => {}, 1000)");
    const redis = client({ url: `redis://127.0.0.1:${port}` });
    await redis.set("from", "the first owner");
    owner.kill("SIGKILL");
    await once(owner, "exit");

    const reasons: string[] = [];
    const server = await start({ dataDir: folder, onExit: (reason) => reasons.push(reason) });
    expect(server).toMatchObject({ pid, port, adopted: true });
    expect(await client(server).get("from")).toBe("the first owner");
    await server.close();
    expect(reasons).toEqual([]);
    expect(await answers(port)).toBe(false);
  });

  test("tells the end of a server that it had adopted", async () => {
    const { pid, owner } = await ownerProcess("setInterval(() => {}, 1000)");
    owner.kill("SIGKILL");
    await once(owner, "exit");
    const reasons: string[] = [];
    await start({ dataDir: folder, onExit: (reason) => reasons.push(reason) });
    process.kill(pid, "SIGKILL");
    await expect.poll(() => reasons).toHaveLength(1);
  });

  test("refuses its folder to others in one line while it lives", async () => {
    const { pid, owner } = await ownerProcess("setInterval(() => {}, 1000)");
    const error = await failure(startRedisServer({ dataDir: folder }));
    expect(error.message).toContain(`in use by process ${owner.pid}`);
    expect(isAlive(pid)).toBe(true);
  });

  /** Another Node process that starts the server of `folder`, prints it, and goes on with `then`. */
  async function ownerProcess(then: string): Promise<{ pid: number; port: number; owner: ChildProcess }> {
    const module = new URL("../../src/embedded/redis-server.ts", import.meta.url).href;
    const script = `
      const { startRedisServer } = await import(${JSON.stringify(module)});
      const server = await startRedisServer({ dataDir: ${JSON.stringify(folder)} });
      console.log(JSON.stringify(server));
      ${then}`;
    const owner = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    cleanup.defer(() => void owner.kill("SIGKILL"));
    const [line]: unknown[] = await once(owner.stdout, "data");
    const { pid, port } = JSON.parse(String(line)) as { pid: number; port: number };
    cleanup.defer(() => {
      if (isAlive(pid)) process.kill(pid, "SIGKILL");
    });
    return { pid, port, owner };
  }
});

describe("two starts at once on one folder", () => {
  test("end with one server, one owner, and one clear line", async () => {
    const results = await Promise.allSettled([start({ dataDir: folder }), start({ dataDir: folder })]);
    const won = results.filter((result) => result.status === "fulfilled");
    const lost = results.filter((result) => result.status === "rejected");
    expect(won).toHaveLength(1);
    expect(lost).toHaveLength(1);
    expect(String(lost[0]?.reason)).toMatch(/in use by process \d+/);
    expect((await readdir(folder)).filter((name) => name.startsWith("redis-port-"))).toEqual(["redis-port-1"]);
    const server = won[0]?.value;
    if (server === undefined) throw new Error("one start has won");
    await client(server).set("kept", "yes");
    await server.close();
    expect(await client(await start({ dataDir: folder })).get("kept")).toBe("yes");
  });
});

describe("a pinned port in other hands", () => {
  test.each([
    ["that hang up", (socket: { destroy(): void }) => socket.destroy()],
    [
      "that speak another language",
      (socket: { end(text: string): void }) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"),
    ],
  ])("%s is given up for the next one", async (_name, answer) => {
    const stranger = createServer((socket) => {
      socket.on("error", () => {});
      answer(socket);
    });
    stranger.listen(0, "127.0.0.1");
    await once(stranger, "listening");
    cleanup.defer(() => void stranger.close());
    const { port } = stranger.address() as AddressInfo;
    await writeFile(join(folder, "redis-port-1"), `${port}\n`);

    const server = await start({ dataDir: folder });
    expect(server.port).not.toBe(port);
    expect(await readFile(join(folder, "redis-port-2"), "utf8")).toBe(`${server.port}\n`);
  });

  testWithRedis("of a Redis of another folder is never touched", async ({ redis: other }) => {
    await (await start({ dataDir: folder })).close();
    await writeFile(join(folder, "redis-port-2"), `${other.port}\n`);

    const server = await start({ dataDir: folder });
    expect(server.port).not.toBe(other.port);
    await client(server).set("mine", "yes");
    await server.close();
    expect(await client(other).dbsize()).toBe(0);
  });

  test("that takes connections and says nothing is named, because it could be ours", async () => {
    const first = await start({ dataDir: folder });
    process.kill(first.pid, "SIGSTOP");
    try {
      const error = await failure(startRedisServer({ dataDir: folder }));
      expect(error.message).toContain(`port ${first.port}`);
    } finally {
      process.kill(first.pid, "SIGCONT");
    }
  });
});

describe("without a usable binary", () => {
  test("the one line names npm run setup", async () => {
    const bare = join(folder, "bin");
    const error = await failure(startRedisServer({ dataDir: join(folder, "data"), searchPath: bare }));
    expect(error.message).toBe(
      "no redis-server or valkey-server on PATH: run `npm run setup`, or set OUTLAST_REDIS_URL to a Redis of your own",
    );
  });

  test("the one line says which one is too old", async () => {
    await fakeBinary("redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=1");
    const error = await failure(startRedisServer({ dataDir: join(folder, "data"), searchPath: folder }));
    expect(error.message).toMatch(
      /redis-server is Redis 6\.0\.16, but Redis 7 or Valkey 8 is needed: run `npm run setup`/,
    );
  });

  test("that one which dies at once is told with its last words", async () => {
    await fakeBinary("redis-server", "Redis server v=7.9.9", "echo first; echo no room on device; exit 1");
    const error = await failure(startRedisServer({ dataDir: join(folder, "data"), searchPath: folder }));
    expect(error.message).toMatch(/ended while starting: first \| no room on device \(log: .*redis\.log\)$/);
  });

  test.each([
    ["redis-server", "Redis server v=7.0.15 sha=0", "Redis 7.0.15"],
    ["redis-server", "Redis server v=6.2.0 sha=0", null],
    ["redis-server", "Redis server v=10.1.0 sha=0", "Redis 10.1.0"],
    ["valkey-server", "Valkey server v=8.0.1 sha=0", "Valkey 8.0.1"],
    ["valkey-server", "Server v=7.2.5 sha=0", null],
    ["redis-server", "Valkey server v=8.1.0 sha=0", "Valkey 8.1.0"],
    ["redis-server", "KeyDB server v=7.0.0", null],
    ["redis-server", "", null],
  ])("%s that says %j is taken as %j", async (name, version, expected) => {
    await fakeBinary(name, version);
    const { found } = await findRedisBinary(folder);
    expect(found === null ? null : `${found.product} ${found.version}`).toBe(expected);
  });

  async function fakeBinary(name: string, version: string, otherwise = "exit 1"): Promise<void> {
    const path = join(folder, name);
    await writeFile(path, `#!/bin/sh\nif [ "$1" = --version ]; then echo '${version}'; exit 0; fi\n${otherwise}\n`);
    await chmod(path, 0o755);
  }
});

describe("a folder that can't be used", () => {
  test("is named in one line", async () => {
    await writeFile(join(folder, "file"), "");
    const error = await failure(startRedisServer({ dataDir: join(folder, "file", "redis") }));
    expect(error.message).toMatch(/can't write its folder .*file\/redis \(ENOTDIR\): set OUTLAST_STATE_DIR/);
  });

  test.skipIf(process.getuid?.() === 0)("for want of rights is named in one line (root has every right)", async () => {
    await chmod(folder, 0o500);
    const error = await failure(startRedisServer({ dataDir: folder }));
    expect(error.message).toMatch(/EACCES/);
  });

  test("because its data is broken is told with Redis's words", async () => {
    const first = await start({ dataDir: folder });
    await client(first).set("key", "value");
    await first.close();
    const aof = join(folder, "appendonlydir", "appendonly.aof.1.incr.aof");
    await writeFile(aof, `rubbish${await readFile(aof, "utf8")}`);
    const error = await failure(startRedisServer({ dataDir: folder }));
    expect(error.message).toMatch(/ended while starting: .*bad file format/i);
  });
});
