/**
 * A Ceph object store for the conformance job: one monitor, one storage daemon in memory and one S3 gateway, on
 * loopback, in a folder of their own. Needs Debian's radosgw, ceph-mon, ceph-osd and ceph-common; about 15 s to start.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { access, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import type { S3Server } from "./s3-server.ts";

const BINARIES = ["ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph"];
const START_MS = 90_000;
const STOP_MS = 10_000;

/** The programs that are missing here; none means `startCeph` can work. */
export async function missingCephBinaries(): Promise<string[]> {
  const folders = (process.env["PATH"] ?? "").split(delimiter);
  const found = await Promise.all(
    BINARIES.map(async (name) => {
      const places = await Promise.allSettled(folders.map((folder) => access(join(folder, name))));
      return places.some((place) => place.status === "fulfilled");
    }),
  );
  return BINARIES.filter((_, n) => !found[n]);
}

export async function startCeph(): Promise<S3Server> {
  const folder = await mkdtemp(join(tmpdir(), "outlast-ceph-"));
  const daemons: Daemon[] = [];
  const stop = async (): Promise<void> => {
    // The gateway needs the storage and the storage the monitor, to end in order.
    for (const daemon of daemons.toReversed()) await daemon.stop();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    return { ...(await startIn(folder, daemons)), stop };
  } catch (error) {
    const logs = daemons.map((daemon) => `${daemon.name}: ${daemon.words()}`).join("\n");
    await stop();
    throw new Error(`Ceph didn't start: ${error instanceof Error ? error.message : String(error)}\n${logs}`, {
      cause: error,
    });
  }
}

async function startIn(folder: string, daemons: Daemon[]): Promise<Omit<S3Server, "stop">> {
  const deadline = AbortSignal.timeout(START_MS);
  const at = (name: string): string => join(folder, name);
  const [monPort, gatewayPort] = [await freePort(), await freePort()];
  const fsid = randomUUID();
  const keys = { mon: cephKey(), admin: cephKey(), rgw: cephKey(), osd: cephKey() };

  for (const name of ["mon", "osd", "rgw", "run"]) await mkdir(at(name));
  await writeFile(
    at("ceph.conf"),
    `[global]
fsid = ${fsid}
mon host = [v2:127.0.0.1:${monPort}]
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
osd objectstore = memstore
memstore device bytes = 6442450944
ms bind ipv4 = true
public addr = 127.0.0.1
cluster addr = 127.0.0.1
keyring = ${at("keyring")}
run dir = ${at("run")}
admin socket = ${at("run")}/$name.$pid.asok
log file =
log to file = false
log to stderr = true
crash dir = ${at("run")}
[mon.a]
mon data = ${at("mon")}
[osd.0]
osd data = ${at("osd")}
[client.rgw]
rgw data = ${at("rgw")}
rgw frontends = beast endpoint=127.0.0.1:${gatewayPort}
rgw dns name = 127.0.0.1
`,
  );
  await writeFile(
    at("keyring"),
    `[mon.]
key = ${keys.mon}
caps mon = "allow *"
[client.admin]
key = ${keys.admin}
caps mon = "allow *"
caps osd = "allow *"
caps mgr = "allow *"
[client.rgw]
key = ${keys.rgw}
caps mon = "allow *"
caps osd = "allow *"
[osd.0]
key = ${keys.osd}
caps mon = "allow *"
caps osd = "allow *"
`,
    { mode: 0o600 },
  );

  const conf = ["-c", at("ceph.conf")];
  const run = async (program: string, ...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)(program, args, { signal: deadline, maxBuffer: 16 * 1024 * 1024 });
    return stdout;
  };
  const start = (name: string, program: string, ...args: string[]): Daemon => {
    const daemon = new Daemon(name, program, args);
    daemons.push(daemon);
    return daemon;
  };

  await run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", `[v2:127.0.0.1:${monPort}]`, at("monmap"));
  await run("ceph-mon", ...conf, "--mkfs", "-i", "a", "--monmap", at("monmap"), "--keyring", at("keyring"));
  start("mon", "ceph-mon", ...conf, "-f", "-i", "a");
  const ceph = async (...args: string[]): Promise<string> => run("ceph", ...conf, "--connect-timeout", "20", ...args);
  const osdId = randomUUID();
  await ceph("osd", "new", osdId, "0");
  await run("ceph-osd", ...conf, "--mkfs", "-i", "0", "--osd-uuid", osdId);
  start("osd", "ceph-osd", ...conf, "-f", "-i", "0");

  const gateway = start("rgw", "radosgw", ...conf, "-f", "-n", "client.rgw");
  const endpoint = `http://127.0.0.1:${gatewayPort}`;
  await eventually(deadline, async () => {
    gateway.assertRunning();
    return (await fetch(endpoint, { signal: deadline })).ok;
  });
  const user = JSON.parse(
    await run("radosgw-admin", ...conf, "-n", "client.rgw", "user", "create", "--uid=test", "--display-name=test"),
  ) as { keys: { access_key: string; secret_key: string }[] };
  const [key] = user.keys;
  if (key === undefined) throw new Error("radosgw-admin made a user without keys");
  const credentials = { accessKeyId: key.access_key, secretAccessKey: key.secret_key };

  const client = new S3Client({ endpoint, region: "us-east-1", forcePathStyle: true, credentials });
  await client.send(new CreateBucketCommand({ Bucket: "blobs" }), { abortSignal: deadline });
  client.destroy();
  return { bucket: "blobs", settings: { endpoint, region: "us-east-1", credentials } };
}

/** A daemon in the foreground, and the last of what it said. */
class Daemon {
  readonly name: string;
  readonly #process: ChildProcess;
  #words = "";

  constructor(name: string, program: string, args: readonly string[]) {
    this.name = name;
    this.#process = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.on("data", (chunk: Buffer) => {
        this.#words = (this.#words + chunk.toString()).slice(-2_000);
      });
    }
    this.#process.on("error", (error) => {
      this.#words += error.message;
    });
  }

  words(): string {
    return this.#words;
  }

  assertRunning(): void {
    if (this.#process.exitCode !== null) throw new Error(`${this.name} ended with ${this.#process.exitCode}`);
  }

  async stop(): Promise<void> {
    if (this.#process.pid === undefined || this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exited = once(this.#process, "exit");
    const killer = setTimeout(() => this.#process.kill("SIGKILL"), STOP_MS);
    this.#process.kill("SIGTERM");
    await exited;
    clearTimeout(killer);
  }
}

/** A cephx key: type 1, a time, the length of the secret, and 16 bytes of it. */
function cephKey(): string {
  const head = Buffer.alloc(12);
  head.writeUInt16LE(1, 0);
  head.writeUInt32LE(1_767_225_600, 2);
  head.writeUInt16LE(16, 10);
  return Buffer.concat([head, randomBytes(16)]).toString("base64");
}

async function eventually(deadline: AbortSignal, isSo: () => Promise<boolean>): Promise<void> {
  for (;;) {
    deadline.throwIfAborted();
    if (await isSo().catch((error: unknown) => refusesStill(error))) return;
    await sleep(200, undefined, { signal: deadline });
  }
}

/** Nobody listens yet; anything else isn't a matter of waiting. */
function refusesStill(error: unknown): boolean {
  if (error instanceof TypeError) return false;
  throw error;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
