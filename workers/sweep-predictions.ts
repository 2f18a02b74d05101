/**
 * Reads the provider's list of an account for two ends: to wake what it shows as over (`wake-by-list.ts`), as often as
 * what is in flight makes worth while, and to resolve unclear items (`resolve-by-list.ts`), four times a minute.
 *
 * One errand per account that never ends: it snoozes from sweep to sweep, so no two of an account overlap. What a crash
 * leaves is told where the reading is done. Providers without a list are not swept.
 */

import type { AccountName } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import { SECOND } from "../src/core/time.ts";
import { type ResolveDeps, resolveByList } from "./resolve-by-list.ts";
import { NOTHING_SEEN, type WakeDeps, type WakeMemory, wakeByList } from "./wake-by-list.ts";

export type SweepDeps = ResolveDeps &
  WakeDeps & {
    /** Whoever waits for the account's batches learns by it that somebody looks. */
    readonly noteSweep: (account: AccountName, nowMs: number, horizonMs: number) => Promise<void>;
    readonly memory: SweepMemory;
  };

/** What a process remembers from sweep to sweep; the next one begins anew. */
export type SweepMemory = WakeMemory & { wakeAtMs: number; resolveAtMs: number };

export function sweepMemory(): SweepMemory {
  return { ...NOTHING_SEEN, wakeAtMs: 0, resolveAtMs: 0 };
}

const RESOLVE_EVERY_MS = 15 * SECOND;

export async function sweepPredictions(deps: SweepDeps, signal: AbortSignal): Promise<StageOutcome> {
  const { clock, memory } = deps;
  if (deps.provider.list === undefined) return { kind: "snooze", untilMs: clock() + RESOLVE_EVERY_MS };

  await deps.noteSweep(deps.account, clock(), deps.policy.horizonMs);
  const startedAtMs = clock();
  if (startedAtMs >= memory.wakeAtMs) memory.wakeAtMs = startedAtMs + (await wakeByList(deps, memory, signal));
  if (clock() >= memory.resolveAtMs) {
    await resolveByList(deps, signal);
    memory.resolveAtMs = clock() + RESOLVE_EVERY_MS;
  }
  return { kind: "snooze", untilMs: Math.max(Math.min(memory.wakeAtMs, memory.resolveAtMs), clock() + 1) };
}
