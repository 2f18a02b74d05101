/**
 * Pace: how close to an account's limit does creating come, and how often is it told to slow down?
 *
 * 1,632 items of `outlast/picture` at 600 creates a minute, which the emulator enforces by a strict token bucket: once
 * with a burst of 2 for an account that tolerates it, once with a burst of 1 for an account that is told not to. Pace is
 * the seconds that the creates would take at exactly the limit, (creates - 1) / 10, over the seconds that lie between
 * the first and the last create that the emulator accepted, by the emulator's own stamps.
 *
 * The two runs go side by side: ten items a second are little work. Measured on two cores, a burst of 2 gave 0.984
 * alone and beside the other, a burst of 1 gave 0.858 alone and 0.868 beside the other.
 */

import { isSettled, progressOf } from "../../src/core/batch.ts";
import type { BenchOptions } from "./bench.ts";
import { areRealPromptsHere, madeRows, realRows } from "./prompts.ts";
import { seconds } from "./rates.ts";
import { startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const CREATES_PER_MINUTE = 600;
const ITEMS = 1_632;
const ITEMS_SHORT = 300;
/** A run that takes three times as long as the limit demands doesn't end. */
const PATIENCE = 3;

type Run = {
  readonly name: string;
  readonly burst: number;
  readonly toleratesBurst: boolean;
  readonly paceGoal: number;
};

const RUNS: readonly Run[] = [
  { name: "burst 2", burst: 2, toleratesBurst: true, paceGoal: 0.95 },
  { name: "burst 1", burst: 1, toleratesBurst: false, paceGoal: 0.85 },
];
const MOST_429_PER_HUNDRED = 1;

export async function measurePace({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  printNote(
    areRealPromptsHere()
      ? "pace: prompts from PartiPrompts"
      : "pace: made prompts, since ../shared/data/PartiPrompts.tsv isn't here",
  );
  const rows = await Promise.all(RUNS.map((run) => measureRun(run, items, signal)));
  printTable(
    `Pace: ${fixed(items, 0)} pictures at ${CREATES_PER_MINUTE} creates a minute`,
    ["", "ideal s", "measured s", "pace", "goal", "429 per 100", "goal", "saved", "failed", "unclear", "surplus"],
    rows,
  );
  printNote("pace: (creates - 1) / 10 a second, over the seconds between the first and the last accepted create");
  printNote("429 per 100: refused creates to a hundred accepted ones; surplus: creates beyond the first of each input");
}

async function measureRun(run: Run, items: number, signal: AbortSignal): Promise<readonly string[]> {
  await using system = await startSystem({
    emulator: { createsPerMinute: CREATES_PER_MINUTE, burst: run.burst },
    account: { creates_per_minute: CREATES_PER_MINUTE, tolerates_burst: run.toleratesBurst },
    signal,
  });
  await system.startWorker();
  const batch = await system.submit(
    areRealPromptsHere() ? realRows("picture", items) : madeRows("picture", items, signal),
  );
  const limitMs = 60_000 + (PATIENCE * items * 60_000) / CREATES_PER_MINUTE;
  await system.until(`${items} items end`, async () => isSettled(progressOf(await system.counts(batch)), null), {
    everyMs: 1_000,
    limitMs,
  });

  const { saved, failed, unclear } = progressOf(await system.counts(batch));
  const { creates, requests, prediction_list: predictions } = await system.books();
  const times = predictions.map(({ created_at: at }) => Date.parse(at)).toSorted((a, b) => a - b);
  const measured = seconds(times[0] ?? Number.NaN, times.at(-1) ?? Number.NaN);
  const ideal = ((creates.total - 1) * 60) / CREATES_PER_MINUTE;
  const refused = ((requests["replicate create"]?.["429"] ?? 0) / creates.total) * 100;
  return [
    run.name,
    fixed(ideal, 1),
    fixed(measured, 1),
    fixed(ideal / measured, 3),
    goal(ideal / measured, "at least", run.paceGoal, 2),
    fixed(refused, 2),
    goal(refused, "at most", MOST_429_PER_HUNDRED, 0),
    fixed(saved, 0),
    fixed(failed, 0),
    fixed(unclear, 0),
    fixed(creates.surplus, 0),
  ];
}
