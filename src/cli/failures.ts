/** What a person reads when a command can't be carried out: a line or a few that say what to do, exit code 1. */

import { UnknownBatch } from "../batches/follow-batch.ts";
import { CannotHold } from "../batches/hold-batch.ts";
import { InputRefused } from "../batches/single-input.ts";
import { BucketError } from "../bucket/bucket.ts";
import { ConfigError } from "../config.ts";
import { RedisServerError } from "../embedded/redis-server-error.ts";
import { RedisUnusable } from "../ledger/connect-redis.ts";
import { RowsError } from "../rows/rows-error.ts";
import { OUTLAST } from "./output.ts";

/** The command can't do what was asked; the message says why, and what to do. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}

const EXPECTED = [
  CommandError,
  RedisUnusable,
  BucketError,
  RedisServerError,
  InputRefused,
  RowsError,
  CannotHold,
] as const;

export function failureLines(error: unknown, options: { readonly stack: boolean }): readonly string[] {
  const lines = expectedLines(error);
  if (lines !== null && !options.stack) return lines;
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  if (options.stack) return [...(lines ?? []), stack ?? `${name}: ${message}`];
  return [`${name}: ${message.split("\n")[0]} (unexpected; OUTLAST_LOG_LEVEL=debug shows where)`];
}

function expectedLines(error: unknown): readonly string[] | null {
  if (error instanceof ConfigError) return error.mistakes.map((mistake) => `settings: ${mistake}`);
  if (error instanceof UnknownBatch) return [`${error.message}: see ${OUTLAST} status`];
  if (EXPECTED.some((kind) => error instanceof kind)) return [(error as Error).message];
  if (!(error instanceof Error)) return null;
  // ioredis, when a connection that was good is lost for longer than a command waits.
  if (error.name === "MaxRetriesPerRequestError" || error.message === "Connection is closed.") {
    return ["Redis doesn't answer any more: what was submitted stays submitted; try again when it is back"];
  }
  const { code, port } = error as NodeJS.ErrnoException & { readonly port?: number };
  if (code === "EADDRINUSE") return [`port ${port} is in use: end what listens there, or choose another port`];
  if (code === "EACCES" && port !== undefined) return [`port ${port} may not be opened by this user: choose another`];
  return null;
}
