/**
 * `npm run setup`: installs what a bare machine lacks and npm can't give, which is a Redis server.
 *
 * Does nothing where `redis-server` >= 7 or `valkey-server` >= 8 is on PATH. Otherwise it takes the first of apt-get,
 * dnf, apk and brew that is there, with sudo where it isn't root, and says each command before it runs it. The server
 * is only installed: `outlast up` starts one of its own, so on Debian the package's service is kept from starting
 * (by a policy-rc.d for the time of the installation, unless the machine has one).
 *
 * Everything is told on stderr. Exit code 0: there is a server now. 1: there is none, and the last lines say why.
 * Needs Node's own modules only, so it runs before anything else works. Running it again is harmless.
 */

import { spawn } from "node:child_process";
import { constants, existsSync } from "node:fs";
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { findRedisBinary } from "../embedded/redis-binary.ts";

const BY_HAND = "install Redis 7 or Valkey 8 by hand, or set OUTLAST_REDIS_URL to a Redis of your own";
const POLICY = "/usr/sbin/policy-rc.d";

type Manager = {
  readonly name: "apt-get" | "dnf" | "apk" | "brew";
  readonly refresh: readonly string[];
  readonly install: readonly string[];
  /** Tried in this order until one can be installed. */
  readonly packages: readonly string[];
};

const MANAGERS: readonly Manager[] = [
  {
    name: "apt-get",
    refresh: ["update"],
    install: ["install", "-y", "--no-install-recommends"],
    packages: ["redis-server"],
  },
  // Fedora and RHEL have moved from Redis to Valkey; RHEL 9's own Redis is 6.
  { name: "dnf", refresh: [], install: ["install", "-y"], packages: ["valkey", "redis"] },
  { name: "apk", refresh: [], install: ["add", "--no-cache"], packages: ["redis"] },
  { name: "brew", refresh: [], install: ["install"], packages: ["redis"] },
];

/** A reason to stop, in words for a person. */
class SetupError extends Error {
  override readonly name = "SetupError";
}

const searchPath = process.env["PATH"] ?? "";

try {
  await setUp();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(error.message);
  process.exitCode = 1;
}

async function setUp(): Promise<void> {
  const before = await findRedisBinary(searchPath);
  if (before.found !== null) {
    const { product, version, path } = before.found;
    say(`nothing to do: ${product} ${version} is there (${path})`);
    return;
  }
  const [old] = before.tooOld;
  const lack = old === undefined ? "no Redis on PATH" : `${old.path} is ${old.product} ${old.version}, too old`;

  const manager = await findManager(lack);
  say(`${lack}: installing it with ${manager.manager.name}`);
  await install(manager);

  const after = await findRedisBinary(searchPath);
  if (after.found === null) {
    const [stillOld] = after.tooOld;
    const what =
      stillOld === undefined ? "no server on PATH" : `${stillOld.product} ${stillOld.version}, which is too old`;
    throw new SetupError(`the package brought ${what}: ${BY_HAND}`);
  }
  say(`done: ${after.found.product} ${after.found.version} is installed (${after.found.path})`);
}

async function install({ manager, path, sudo }: Found): Promise<void> {
  const run = async (args: readonly string[]) => await runCommand([...sudo, path, ...args]);
  if (manager.refresh.length > 0) await run(manager.refresh);

  await using policy = manager.name === "apt-get" ? await denyServiceStart(sudo) : null;
  for (const [index, name] of manager.packages.entries()) {
    try {
      await run([...manager.install, name]);
      break;
    } catch (error) {
      if (!(error instanceof SetupError) || index === manager.packages.length - 1) throw error;
      say(error.message);
    }
  }
  if (policy !== null) {
    say("the package's own service was not started; where systemd runs, it may start at the next boot, on port 6379:");
    say("to prevent that, `systemctl disable redis-server`. Outlast doesn't use it");
  }
}

type Found = { readonly manager: Manager; readonly path: string; readonly sudo: readonly string[] };

async function findManager(lack: string): Promise<Found> {
  for (const manager of MANAGERS) {
    const path = await findOnPath(manager.name);
    if (path === null) continue;
    // brew refuses root, and needs it for nothing.
    if (manager.name === "brew" || process.getuid?.() === 0) return { manager, path, sudo: [] };
    const sudo = await findOnPath("sudo");
    if (sudo === null)
      throw new SetupError(`${lack}, ${manager.name} needs root and there is no sudo: run this as root, or ${BY_HAND}`);
    return { manager, path, sudo: [sudo] };
  }
  const names = MANAGERS.map(({ name }) => name).join(", ");
  throw new SetupError(`${lack}, nor any of ${names}: ${BY_HAND}`);
}

/**
 * Debian starts what it installs, here on port 6379, unless this script says no; 101 is "not allowed". Put in place
 * by commands, as sudo needs it, and only where no such script is.
 */
async function denyServiceStart(sudo: readonly string[]): Promise<AsyncDisposable | null> {
  const [installPath, rmPath] = [await findOnPath("install"), await findOnPath("rm")];
  if (existsSync(POLICY) || installPath === null || rmPath === null) return null;
  const folder = await mkdtemp(join(tmpdir(), "outlast-setup-"));
  try {
    const script = join(folder, "policy-rc.d");
    await writeFile(script, "#!/bin/sh\nexit 101\n");
    say("(for the time of the installation, services are kept from starting)");
    await runCommand([...sudo, installPath, "-m", "755", script, POLICY]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return { [Symbol.asyncDispose]: () => runCommand([...sudo, rmPath, "-f", POLICY]) };
}

/** Says the command, runs it, and throws its last lines if it fails. */
async function runCommand(command: readonly string[]): Promise<void> {
  const [path = "", ...args] = command;
  const shown = command.join(" ");
  say(`$ ${shown}`);
  let output = "";
  const code = await new Promise<string>((resolve) => {
    const child = spawn(path, args, {
      stdio: ["inherit", "pipe", "pipe"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-8_000);
      });
    }
    child.once("error", (error) => resolve(error.message));
    child.once("close", (exitCode, signal) => resolve(exitCode === 0 ? "" : String(signal ?? `exit code ${exitCode}`)));
  });
  if (code === "") return;
  const lines = output.split("\n").filter((line) => line.trim() !== "");
  throw new SetupError([...lines.slice(-8), `\`${shown}\` failed (${code})`].join("\n"));
}

async function findOnPath(name: string): Promise<string | null> {
  for (const folder of searchPath.split(delimiter).filter((part) => part !== "")) {
    const path = join(folder, name);
    const executable = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (executable) return path;
  }
  return null;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}
