/**
 * Every worker away for two minutes while predictions end: one is killed, the other told to stop. Nothing may be lost or
 * bought twice, and what has ended meanwhile must be caught up with inside the budget of reads, by the emulator's counter.
 */

import { isSettled, progressOf } from "../../src/core/batch.ts";
import { asked, mostAMinute, readsIn } from "./asked.ts";
import type { BenchOptions } from "./bench.ts";
import { endsOf } from "./lateness.ts";
import { madeRows } from "./prompts.ts";
import { startSystem, UNLIMITED } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const ITEMS = 2_000;
const ITEMS_SHORT = 400;
const AWAY_MS = 120_000;
const AWAY_SHORT_MS = 30_000;
const READS_PER_MINUTE = 3_000;
const LOOK_MS = 250;
const LIMIT_MS = 600_000;

export async function measureAway({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  const awayMs = short ? AWAY_SHORT_MS : AWAY_MS;
  const medianMs = awayMs / 2;
  await using system = await startSystem({
    emulator: {
      seed: "away",
      createsPerMinute: UNLIMITED.emulator.createsPerMinute,
      readsPerMinute: READS_PER_MINUTE,
      runMs: { medianMs, spread: 0.4 },
    },
    env: { ...UNLIMITED.env, OUTLAST_READS_PER_MINUTE: String(READS_PER_MINUTE) },
    signal,
  });
  const workers = [await system.startWorker(), await system.startWorker()];
  const batch = await system.submit(madeRows("text", items, signal));
  const readings: { readonly atMs: number; readonly count: number }[] = [];
  const look = async () => {
    const totals = await system.totals();
    readings.push({ atMs: Date.now(), count: readsIn(totals.requests) });
    return totals;
  };
  const options = { everyMs: LOOK_MS, limitMs: LIMIT_MS };
  await system.until("all are bought", async () => (await look()).creates.total >= items, options);
  await Promise.all([workers[0]?.end("SIGKILL"), workers[1]?.end("SIGTERM")]);
  const left = await system.counts(batch);

  const goneMs = Date.now();
  await system.until("time has passed", async () => (await look()) && Date.now() - goneMs >= awayMs, options);

  const backMs = Date.now();
  await system.startWorker();
  await system.startWorker();
  const isOver = async () => {
    await look();
    return isSettled(progressOf(await system.counts(batch)), null);
  };
  await system.until(`${items} items end`, isOver, options);
  const missed = (await endsOf(system, batch, items)).filter(
    ({ completedAtMs }) => completedAtMs > goneMs && completedAtMs < backMs,
  );
  const caughtUpMs = missed.reduce((most, { recordedAtMs }) => Math.max(most, recordedAtMs - backMs), 0);

  const { requests, creates } = await look();
  const counts = await system.counts(batch);
  const most = mostAMinute(readings);
  const refused = asked(requests, null, "429");
  printTable(
    `${fixed(items, 0)} predictions, every worker away for ${fixed(awayMs / 1_000, 0)} s; median run ${fixed(medianMs / 1_000, 0)} s`,
    ["", "", "goal"],
    [
      ["known to have ended before", fixed(left.saved, 0), ""],
      ["ended while nobody looked", fixed(missed.length, 0), ""],
      ["saved at last", fixed(counts.saved, 0), goal(counts.saved, "at least", items, 0)],
      ["bought again", fixed(creates.surplus, 0), goal(creates.surplus, "at most", 0, 0)],
      ["and known of, from the start of new workers, in s", fixed(caughtUpMs / 1_000, 1), ""],
      ["polls per item", fixed(asked(requests, "get") / items, 2), ""],
      ["most reads in any minute", fixed(most, 0), goal(most, "at most", READS_PER_MINUTE, 0)],
      ["refused (429)", fixed(refused, 0), goal(refused, "at most", 0, 0)],
    ],
  );
  printNote("scaled: creates without a limit, so that all run when the workers go");
}
