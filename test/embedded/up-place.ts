/** A state folder of a test's own, and what runs there. Whatever is left of it at the end is killed. */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test as base, expect } from "vitest";
import { readUpFile, type UpFile } from "../../src/embedded/up-file.ts";
import { type Running, startOutlast } from "../cli/outlast.ts";

export type UpPlace = {
  readonly stateDir: string;
  readonly env: Readonly<Record<string, string>>;
  /** A command that is killed at the end of the test, if it still runs. */
  start(args: readonly string[], env?: Readonly<Record<string, string>>): Running;
};

export const test = base.extend<{ place: UpPlace }>({
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  place: async ({}, use) => {
    const stateDir = await mkdtemp(path.join(tmpdir(), "outlast-up-test-"));
    const started: Running[] = [];
    const env = { OUTLAST_STATE_DIR: stateDir, OUTLAST_PORT: "0" };
    await use({
      stateDir,
      env,
      start(args, more = {}) {
        const running = startOutlast(args, { env: { ...env, ...more } });
        started.push(running);
        return running;
      },
    });
    for (const { child, ended } of started) {
      child.kill("SIGKILL");
      await ended.catch(() => undefined);
    }
    for (const folder of [stateDir, path.join(stateDir, "demo")]) {
      const pid = await redisPid(folder).catch(() => 0);
      if (pid > 0 && runs(pid)) process.kill(pid, "SIGKILL");
    }
    await rm(stateDir, { recursive: true, force: true });
  },
});

/** Once `up` has said all that it says at its start, down to how to stop it. */
export async function upFileOf(stateDir: string, up: Running): Promise<UpFile> {
  await up.shows(/outlast is up[^]*\n {2}stop .*\n/);
  const found = await readUpFile(stateDir);
  if (found === null) throw new Error("up says that it is up, and wrote no up.json");
  return found;
}

/** Of every worker that has told that it works, the first one first. */
export function workerPids({ stderr }: { readonly stderr: string }): readonly number[] {
  return [...stderr.matchAll(/"pid":(\d+),.*"msg":"working"/g)].map((match) => Number(match[1]));
}

export async function firstWorker(up: Running): Promise<number> {
  await up.shows(/"msg":"working"/);
  return workerPids(up.written())[0] ?? 0;
}

export async function redisPid(stateDir: string): Promise<number> {
  const note = JSON.parse(await readFile(path.join(stateDir, "redis", "redis.json"), "utf8")) as { pid: number };
  return note.pid;
}

export function runs(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export async function untilGone(pid: number): Promise<void> {
  await expect.poll(() => runs(pid), { timeout: 20_000, interval: 50 }).toBe(false);
}
