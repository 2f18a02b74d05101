/** The real command line as a child process, with an environment of its own. */

import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const CLI = fileURLToPath(new URL("../../src/cli/cli.ts", import.meta.url));

export type Ran = { readonly code: number | null; readonly stdout: string; readonly stderr: string };

export type Running = {
  readonly child: ChildProcessWithoutNullStreams;
  readonly ended: Promise<Ran>;
  /** So far. */
  written(): { readonly stdout: string; readonly stderr: string };
  /** Resolves when what it wrote to either stream matches. */
  shows(pattern: RegExp): Promise<void>;
};

export type RunOptions = {
  readonly env: Readonly<Record<string, string>>;
  readonly input?: string;
  readonly cwd?: string;
};

export function startOutlast(args: readonly string[], { env, input = "", cwd }: RunOptions): Running {
  const child = spawn(process.execPath, [CLI, ...args], {
    env: { PATH: process.env["PATH"] ?? "", HOME: process.env["HOME"] ?? "", ...env },
    stdio: "pipe",
    ...(cwd !== undefined && { cwd }),
  });
  const written = { stdout: "", stderr: "" };
  let look = () => {};
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      written[name] += text;
      look();
    });
  }
  child.stdin.on("error", () => undefined); // it may end before it has read everything
  child.stdin.end(input);
  const ended = once(child, "close").then((): Ran => ({ code: child.exitCode, ...written }));
  return {
    child,
    ended,
    written: () => written,
    async shows(pattern) {
      const { promise, resolve } = Promise.withResolvers<void>();
      look = () => {
        if (pattern.test(written.stdout) || pattern.test(written.stderr)) resolve();
      };
      look();
      const first = await Promise.race([promise, ended]);
      if (first !== undefined && !pattern.test(first.stdout + first.stderr)) {
        throw new Error(`it ended (${first.code}) without showing ${String(pattern)}:\n${first.stderr}${first.stdout}`);
      }
    },
  };
}

export function outlast(args: readonly string[], options: RunOptions): Promise<Ran> {
  return startOutlast(args, options).ended;
}

export function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}

export function jsonLines<T = Record<string, unknown>>(text: string): T[] {
  return lines(text).map((line) => JSON.parse(line) as T);
}
