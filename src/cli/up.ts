/**
 * `outlast up`: runs everything on embedded defaults until it is told to stop.
 *
 * SIGINT or SIGTERM: the workers drain, then server, emulator and Redis go down, in this order. A second signal exits
 * at once; what was under way is run again after the next start.
 */

import path from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { readConfig } from "../config.ts";
import { SECOND } from "../core/time.ts";
import { logTextFor, tellingLog } from "../embedded/log-text.ts";
import type { System, SystemOptions } from "../embedded/system.ts";
import { withoutSecrets } from "../ledger/connect-redis.ts";
import { openLog } from "../log.ts";
import { ListenError } from "../server/listen-error.ts";
import { padEnd } from "./columns.ts";
import { CommandError } from "./failures.ts";
import { paintFor } from "./live-lines.ts";
import { OUTLAST, say } from "./output.ts";
import type { Paint } from "./progress-bar.ts";

export function upCommand(): Command {
  return new Command("up")
    .description("run everything here: Redis, workers and dashboard, and the emulator where no token is set")
    .option("--workers <n>", "worker processes", readWorkers, 1)
    .option("--no-worker", "start none, for running `outlast worker` by hand")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} up`)
    .action(async (options: { workers: number; worker: boolean }) => {
      await runUp(options.worker ? options.workers : 0);
    });
}

async function runUp(workers: number): Promise<void> {
  using end = awaitEnd();
  const { logLevel } = readConfig(process.env);
  const paint = paintFor(process.stderr);
  // Programs that collect logs get them as they are; a person gets lines to read.
  const textOf = logTextFor(process.stderr.hasColors?.() ?? false);
  const tell = (line: string) => say(textOf(line));
  const logs: Pick<SystemOptions, "log" | "workerLog"> = process.stderr.isTTY
    ? { log: tellingLog(logLevel, tell), workerLog: tell }
    : { log: openLog(logLevel), workerLog: "inherit" };

  await using system = await openSystem({ env: process.env, workers, ...logs });
  end.onSecond(() => system.abandon());
  for (const line of upLines(system, workers, paint)) say(line);

  const broken = await Promise.race([end.told.then(() => null), system.broken]);
  if (broken !== null) throw new CommandError(broken);
  say(paint("dim", "stopping: running jobs may end (again to stop at once)"));
}

function readWorkers(text: string): number {
  const count = Number(text);
  if (!/^\d{1,3}$/.test(text) || count < 1 || count > 64) {
    throw new InvalidArgumentError("It is a whole number from 1 to 64; without any it is --no-worker.");
  }
  return count;
}

function upLines({ up, config, ownRedis, workerEnv }: System, workers: number, paint: Paint): readonly string[] {
  const account = up.accounts.map(({ name, creates_per_minute: rate }) =>
    up.emulator === null
      ? `${name}, ${rate} creates a minute`
      : `${name} ${paint("yellow", "(the emulator: no token is set, nothing costs anything)")}`,
  );
  const elsewhere =
    path.resolve(".outlast") === config.stateDir ? "" : `${shellOf({ OUTLAST_STATE_DIR: config.stateDir })} `;
  const submit =
    up.emulator === null
      ? `${elsewhere}${OUTLAST} submit FILE.jsonl --model owner/name --wait`
      : `echo '{"input":{"prompt":"a red fox"}}' | ${elsewhere}${OUTLAST} submit - --model outlast/picture --wait`;
  const facts: readonly (readonly [string, string])[] = [
    ["dashboard", paint("cyan", `${up.dashboard_url}/batches`)],
    ["API", `${up.dashboard_url}/v1${paint("dim", `  described at ${up.dashboard_url}/v1/docs`)}`],
    ["bucket", up.bucket],
    ["Redis", `${withoutSecrets(up.redis_url)}${ownRedis ? paint("dim", "  private, kept in the state folder") : ""}`],
    ...account.map((text, at) => [at === 0 ? "account" : "", text] as const),
    [
      "workers",
      workers === 0 ? `none; to start one: ${shellOf(decidedHere(workerEnv))} ${OUTLAST} worker` : String(workers),
    ],
    ["submit", submit],
    [
      "stop",
      up.emulator === null
        ? "Ctrl-C; what is under way goes on at the next start"
        : "Ctrl-C; batches go on at the next start, but the emulator forgets what it was running: those items end as failed",
    ],
  ];
  return [paint("bold", "outlast is up"), "", ...facts.map(([name, value]) => `  ${padEnd(name, 11)}${value}`), ""];
}

/** Without what the person's own environment says, which may hold a password of Redis. */
function decidedHere(variables: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(variables).filter(([name, value]) => process.env[name] !== value));
}

/** As a person can type it. */
export function shellOf(variables: Readonly<Record<string, string>>): string {
  return Object.entries(variables)
    .map(([name, value]) => `${name}=${/^[\w@%+=:,./-]*$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`}`)
    .join(" ");
}

// ── for `demo` too ────────────────────────────────────────────────────────────

/** Starts it, or throws what a person can read. */
export async function openSystem(options: SystemOptions): Promise<System> {
  // Only here: every other command would start a second later for it.
  const { startSystem, SystemError } = await import("../embedded/system.ts");
  try {
    return await startSystem(options);
  } catch (error) {
    if (error instanceof SystemError || error instanceof ListenError) {
      throw new CommandError(error.message, { cause: error });
    }
    throw error;
  }
}

export type End = Disposable & {
  /** Resolves with the first signal. */
  readonly told: Promise<NodeJS.Signals>;
  /** What the second one does before it exits. */
  onSecond(act: () => void): void;
};

/** Under npm one Ctrl-C comes twice: from the terminal, and handed on by npm. */
const SAME_SIGNAL_MS = SECOND;

/** Listens for signals from here on, so that none that comes while things start is missed. */
export function awaitEnd(): End {
  const { promise, resolve } = Promise.withResolvers<NodeJS.Signals>();
  let firstAt: number | null = null;
  let act = () => {};
  const listener = (signal: NodeJS.Signals) => {
    firstAt ??= performance.now();
    resolve(signal);
    if (performance.now() - firstAt < SAME_SIGNAL_MS) return;
    act();
    process.exit(1);
  };
  const names = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const name of names) process.on(name, listener);
  return {
    told: promise,
    onSecond(second) {
      act = second;
    },
    [Symbol.dispose]() {
      for (const name of names) process.off(name, listener);
    },
  };
}
