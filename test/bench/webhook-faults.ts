/**
 * Webhooks that fail: of a fifth of the predictions none comes, of a tenth a minute late, of one in twenty twice, and beside
 * two in a hundred comes a forged one that claims an end. Every item must end, none twice, and as late at most as the net
 * that its own poll is: twice the time in which all but one in twenty of the runs end, and a tenth of jitter.
 */

import { isSettled, progressOf } from "../../src/core/batch.ts";
import { learnedRuns } from "../../src/core/run-times.ts";
import type { FaultOrder } from "../../src/emulator/faults.ts";
import { asked, percentile } from "./asked.ts";
import type { BenchOptions } from "./bench.ts";
import { endsOf } from "./lateness.ts";
import { madeRows } from "./prompts.ts";
import { startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const ITEMS = 2_000;
const ITEMS_SHORT = 200;
const CREATES_PER_MINUTE = 600;
const FAULTS: readonly FaultOrder[] = [
  { route: "webhook", kind: "drop", rate: 0.2, count: null },
  { route: "webhook", kind: "late", delayMs: 60_000, rate: 0.1, count: null },
  { route: "webhook", kind: "repeat", rate: 0.05, count: null },
  { route: "webhook", kind: "forge", rate: 0.02, count: null },
];
const LATEST_JITTER = 1.1;
const PATIENCE_MS = 300_000;
/** The late ones come when all has ended; they must change nothing. */
const AFTERWARDS_MS = 65_000;
const LOOK_MS = 250;

export async function measureWebhookFaults({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  await using system = await startSystem({
    emulator: { seed: "faults", createsPerMinute: CREATES_PER_MINUTE, runMs: { medianMs: 8_000, spread: 0.5 } },
    env: { OUTLAST_CREATES_PER_MINUTE: String(CREATES_PER_MINUTE) },
    signal,
  });
  for (const fault of FAULTS) {
    const answer = await fetch(new URL("/__faults", system.apiUrl), {
      method: "POST",
      body: JSON.stringify(fault),
      signal,
    });
    if (!answer.ok) throw new Error(`the emulator took no fault: ${await answer.text()}`);
  }
  const { url } = await system.startServer();
  const worker = await system.startWorker([], { env: { OUTLAST_PUBLIC_URL: url } });
  await worker.says(/providers are asked to call webhooks/);

  const batch = await system.submit(madeRows("text", items, signal));
  await system.until(`${items} items end`, async () => isSettled(progressOf(await system.counts(batch)), null), {
    everyMs: LOOK_MS,
    limitMs: PATIENCE_MS + (items * 60_000) / CREATES_PER_MINUTE,
  });
  const overMs = Date.now();
  await system.until("the late ones have come", async () => Date.now() - overMs > AFTERWARDS_MS, {
    everyMs: LOOK_MS,
    limitMs: 2 * AFTERWARDS_MS,
  });

  const { requests, creates, webhooks } = await system.books();
  const { ledger } = system.services;
  const { name } = system.account;
  const [counts, standing, outcomes, runs, { pauseMs }] = await Promise.all([
    system.counts(batch),
    ledger.standing(name, batch),
    ledger.webhookCounts(name),
    ledger.runCounts(name, Date.now()),
    ledger.readFollowing(name),
  ]);
  const ends = (await endsOf(system, batch, items)).map(({ lateMs }) => lateMs);
  const learned = learnedRuns(runs).all;
  if (learned === null) throw new Error("no run times were learned");
  const boundMs = LATEST_JITTER * 2 * learned.p95Ms;
  const late = (share: number) => percentile(ends, share);
  printTable(
    `${fixed(items, 0)} predictions whose webhooks fail; median run 8 s`,
    ["", "", "goal"],
    [
      ["ended", fixed(ends.length, 0), goal(ends.length, "at least", items, 0)],
      ["saved", fixed(counts.saved, 0), goal(counts.saved, "at least", items, 0)],
      ["bought again", fixed(creates.surplus, 0), goal(creates.surplus, "at most", 0, 0)],
      ["duplicates booked", fixed(standing?.duplicates ?? 0, 0), goal(standing?.duplicates ?? 0, "at most", 0, 0)],
      ["forged ones believed", fixed(webhooks.forged_taken, 0), goal(webhooks.forged_taken, "at most", 0, 0)],
      ["late p50 ms", fixed(late(0.5), 0), ""],
      ["late p99 ms", fixed(late(0.99), 0), goal(late(0.99), "at most", boundMs, 0)],
      ["late at most, ms", fixed(late(1), 0), ""],
      ["requests/item", fixed(asked(requests) / ends.length, 2), ""],
    ],
  );
  printNote(
    `the net's bound: 1.1 × twice the learned ${fixed(learned.p95Ms, 0)} ms; sweeps came every ${fixed(pauseMs / 1_000, 0)} s beside it`,
  );
  const { dropped, late: lateSent, repeated, forged, delivered } = webhooks;
  printNote(
    `the emulator's books: ${dropped} dropped, ${lateSent} late, ${repeated} repeated, ${forged} forged, ${delivered} delivered`,
  );
  const taken = Object.entries(outcomes).map(([outcome, count]) => `${count} ${outcome}`);
  printNote(`what we made of them: ${taken.join(", ")}`);
}
