/**
 * Thousands in flight, and ends all the time, known by sweeps of the provider's list alone: how late, and for how many
 * pages.
 *
 * Replicate's limits hold some 3,000 predictions in flight where half of the runs take five minutes: 530 creates and 3,000
 * reads a minute. Here all of that is quicker by one factor, runs and both limits, which the emulator enforces. After
 * three times the median as many end as begin, and then it is watched for a while; the rest isn't waited for.
 */

import { asked, mostAMinute, percentile, readsIn } from "./asked.ts";
import type { BenchOptions } from "./bench.ts";
import { endsOf } from "./lateness.ts";
import { madeRows } from "./prompts.ts";
import { startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

type Size = {
  /** How much quicker than the five minutes and 3,000 reads all of it is. */
  readonly factor: number;
  readonly medianMs: number;
  readonly createsPerMinute: number;
  readonly readsPerMinute: number;
  readonly watchedMs: number;
};

const FULL: Size = {
  factor: 2.27,
  medianMs: 132_000,
  createsPerMinute: 1_200,
  readsPerMinute: 6_800,
  watchedMs: 120_000,
};
/** A tenth in flight. */
const SHORT: Size = {
  factor: 4.55,
  medianMs: 66_000,
  createsPerMinute: 240,
  readsPerMinute: 1_360,
  watchedMs: 60_000,
};
const MOST_PAGES = 0.3;
const SLACK_MS = 500;
const LOOK_MS = 250;

export async function measureFlow({ short, signal }: BenchOptions): Promise<void> {
  const { factor, medianMs, createsPerMinute, readsPerMinute, watchedMs } = short ? SHORT : FULL;
  const fillMs = 3 * medianMs;
  await using system = await startSystem({
    emulator: { seed: "flow", createsPerMinute, readsPerMinute, runMs: { medianMs, spread: 0.5 } },
    env: { OUTLAST_CREATES_PER_MINUTE: String(createsPerMinute), OUTLAST_READS_PER_MINUTE: String(readsPerMinute) },
    signal,
  });
  const { ledger } = system.services;
  await system.startWorker();
  const items = Math.ceil((createsPerMinute * (fillMs + watchedMs) * 1.1) / 60_000);
  const batch = await system.submit(madeRows("text", items, signal));
  const startMs = Date.now();
  await system.until("as many end as begin", async () => Date.now() - startMs > fillMs, {
    everyMs: LOOK_MS,
    limitMs: 2 * fillMs,
  });

  const before = await system.totals();
  const fromMs = Date.now();
  const readings = [{ atMs: fromMs, count: readsIn(before.requests) }];
  const inFlight: number[] = [];
  const pausesMs: number[] = [];
  let noted = 0;
  const look = async () => {
    const { untilMs, pauseMs } = await ledger.readFollowing(system.account.name);
    if (untilMs !== noted) pausesMs.push(pauseMs);
    noted = untilMs;
    inFlight.push((await system.counts(batch)).running);
    readings.push({ atMs: Date.now(), count: readsIn((await system.totals()).requests) });
    return Date.now() - fromMs > watchedMs;
  };
  await system.until("it has been watched", look, { everyMs: LOOK_MS, limitMs: 2 * watchedMs });
  const after = await system.totals();
  const toMs = Date.now();

  const known = (await endsOf(system, batch, items)).filter(
    ({ recordedAtMs }) => recordedAtMs >= fromMs && recordedAtMs < toMs,
  );
  const during = (route: string | null, outcome: string | null = null) =>
    asked(after.requests, route, outcome) - asked(before.requests, route, outcome);
  const late = (share: number) =>
    percentile(
      known.map(({ lateMs }) => lateMs),
      share,
    );
  const intervalMs = percentile(pausesMs, 0.5);
  const pagesPerItem = during("list") / known.length;
  const most = mostAMinute(readings);
  printTable(
    `${fixed(percentile(inFlight, 0.5), 0)} in flight, sweeps alone: half of the runs take ${fixed(medianMs / 1_000, 0)} s`,
    ["", "", "goal"],
    [
      ["ends known while it was watched", fixed(known.length, 0), ""],
      ["late p50 ms", fixed(late(0.5), 0), goal(late(0.5), "at most", intervalMs / 2 + SLACK_MS, 0)],
      ["late p99 ms", fixed(late(0.99), 0), ""],
      ["interval of the sweeps as status prints it, ms", fixed(intervalMs, 0), ""],
      ["from sweep to sweep as it came out, ms", fixed((toMs - fromMs) / pausesMs.length, 0), ""],
      ["pages per item", fixed(pagesPerItem, 2), goal(pagesPerItem, "at most", MOST_PAGES, 1)],
      ["polls per item", fixed(during("get") / known.length, 2), ""],
      ["most reads in any minute", fixed(most, 0), goal(most, "at most", readsPerMinute, 0)],
      ["refused (429)", fixed(during(null, "429"), 0), ""],
    ],
  );
  printNote(
    `scaled: ${fixed(factor, 2)} times as quick as a median of 5 minutes under 3,000 reads a minute; ${fixed(createsPerMinute, 0)} creates and ${fixed(readsPerMinute, 0)} reads a minute`,
  );
  printNote(
    `watched for ${fixed((toMs - fromMs) / 1_000, 0)} s, after ${fixed(fillMs / 1_000, 0)} s in which it filled`,
  );
}
