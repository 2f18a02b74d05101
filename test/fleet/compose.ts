/**
 * `docker compose` for tests, by the engine's own plugin or by the older `docker-compose`: a project of its own, whose
 * settings are those given and no others - not the environment's, nor a `.env` file's, where a real token may stand.
 */

import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { SECOND } from "../../src/core/time.ts";

const PROJECT = new URL("../..", import.meta.url).pathname;
const SHORT_MS = 60 * SECOND;
const DOWN_MS = 90 * SECOND;

export type Compose = AsyncDisposable & {
  /** Runs a command of compose to its end; answers what it wrote to stdout. */
  run(args: readonly string[], timeoutMs?: number): Promise<string>;
  /** The ids of a service's running containers. */
  containers(service: string): Promise<readonly string[]>;
  /** The origin by which this machine reaches a service's port. It is another one after a restart. */
  originOf(service: string, port: number): Promise<string>;
};

/** What to type before a command of compose; or, in a word, what is missing. */
export async function findCompose(): Promise<{ readonly command: readonly string[] } | { readonly missing: string }> {
  const works = (command: readonly string[]) =>
    exec(command, SHORT_MS).then(
      () => true,
      () => false,
    );
  if (!(await works(["docker", "version", "--format", "{{.Server.Version}}"]))) return { missing: "engineless" };
  for (const command of [["docker", "compose"], ["docker-compose"]]) {
    if (await works([...command, "version", "--short"])) return { command };
  }
  return { missing: "composeless" };
}

/** Nothing is started yet. Disposing removes what it made: containers, volumes, networks and images. */
export async function openCompose(
  command: readonly string[],
  settings: Readonly<Record<string, string>>,
): Promise<Compose> {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-fleet-"));
  const envFile = path.join(folder, "env");
  await writeFile(
    envFile,
    Object.entries(settings)
      .map(([name, value]) => `${name}=${value}\n`)
      .join(""),
  );
  const name = path.basename(folder).toLowerCase();
  const prefix = [...command, "--env-file", envFile, "--project-name", name, "--profile", "demo"];

  const run = (args: readonly string[], timeoutMs = SHORT_MS) => exec([...prefix, ...args], timeoutMs);
  return {
    run,
    containers: async (service) => (await run(["ps", "--quiet", service])).split("\n"),
    originOf: async (service, port) => `http://${await run(["port", service, String(port)])}`,
    async [Symbol.asyncDispose]() {
      await run(["down", "--volumes", "--rmi", "local", "--remove-orphans", "--timeout", "5"], DOWN_MS);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** A command of the engine itself. */
export async function docker(...args: readonly string[]): Promise<string> {
  return await exec(["docker", ...args], SHORT_MS);
}

async function exec([file = "", ...args]: readonly string[], timeoutMs: number): Promise<string> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => /^(PATH|HOME|DOCKER_.*)$/.test(name)));
  const options = { cwd: PROJECT, env, timeout: timeoutMs, maxBuffer: 64 * 1_024 * 1_024 };
  return (await promisify(execFile)(file, args, options)).stdout.trim();
}
