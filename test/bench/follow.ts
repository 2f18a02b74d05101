/**
 * Following: what it costs to learn that predictions have ended, in requests to the provider, and how late it is learned.
 *
 * The same texts at 600 creates a minute and 3,000 other requests, which the emulator enforces; runs take 8 s, half of them
 * less (log-normal). Outlast with the provider's webhooks, with sweeps of its list alone, and with single polls alone;
 * beside it, on an emulator of its own each, what people use: the official client's `run()`, a hundred at once and held to
 * the rate, and a BullMQ worker with a slot for each prediction and a limiter, whose `run()` polls.
 *
 * Requests are the emulator's books: all that came, refused ones too, by items that ended. Late is from the provider's
 * `completed_at` to the receipt, or to the file that the others write: a little after the end is known.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Queue } from "bullmq";
import { isSettled, progressOf } from "../../src/core/batch.ts";
import { keptPath } from "../chaos/baselines/keep.ts";
import { QUEUE } from "../chaos/baselines/queue-worker.ts";
import type { Item } from "../chaos/items.ts";
import { asked, percentile } from "./asked.ts";
import type { BenchOptions } from "./bench.ts";
import { endsOf } from "./lateness.ts";
import { madeRows } from "./prompts.ts";
import { type Books, type System, startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const ITEMS = 2_000;
const ITEMS_SHORT = 200;
const CREATES_PER_MINUTE = 600;
const AT_ONCE = 100;
/** Beyond what the creates take. */
const PATIENCE_MS = 180_000;
const LOOK_MS = 250;
const ALL_BUT_SWEEP = ["admit", "feed", "create", "follow", "copy", "record", "notify", "finish", "keep"];
const BASELINES = new URL("../chaos/baselines/", import.meta.url).pathname;

type Run = { readonly system: System; readonly items: number; readonly signal: AbortSignal };

/** How late each end was known, and the provider's books before anything else was asked. */
type Ran = { readonly lateMs: readonly number[]; readonly books: Books };

type Contender = {
  readonly name: string;
  readonly requestsGoal?: number;
  readonly lateGoalsMs?: { readonly p50: number; readonly p99: number };
  readonly run: (run: Run) => Promise<Ran>;
};

const CONTENDERS: readonly Contender[] = [
  {
    name: "webhooks",
    requestsGoal: 2.1,
    lateGoalsMs: { p50: 300, p99: 2_000 },
    async run(run) {
      const { url } = await run.system.startServer();
      const worker = await run.system.startWorker([], { env: { OUTLAST_PUBLIC_URL: url } });
      await worker.says(/providers are asked to call webhooks/);
      return runOutlast(run);
    },
  },
  {
    name: "sweeps alone",
    requestsGoal: 2.4,
    async run(run) {
      await run.system.startWorker();
      return runOutlast(run);
    },
  },
  {
    name: "single polls alone",
    requestsGoal: 3.5,
    async run(run) {
      await run.system.startWorker([], { stages: ALL_BUT_SWEEP });
      return runOutlast(run);
    },
  },
  { name: `run() of the official client, ${AT_ONCE} at once`, run: (run) => runOthers(run, runLoop) },
  { name: `BullMQ, ${AT_ONCE} slots, one for each prediction`, run: (run) => runOthers(run, runQueue) },
];

export async function measureFollow({ short, signal }: BenchOptions): Promise<void> {
  const items = short ? ITEMS_SHORT : ITEMS;
  const rows: string[][] = [];
  try {
    for (const contender of CONTENDERS) {
      await using system = await startSystem({
        emulator: { seed: "follow", createsPerMinute: CREATES_PER_MINUTE, runMs: { medianMs: 8_000, spread: 0.5 } },
        env: { OUTLAST_CREATES_PER_MINUTE: String(CREATES_PER_MINUTE) },
        signal,
      });
      rows.push(rowOf(contender, items, await contender.run({ system, items, signal })));
    }
  } finally {
    printTable(
      `Following ${fixed(items, 0)} predictions at ${CREATES_PER_MINUTE} creates a minute; median run 8 s`,
      [
        "",
        "requests/item",
        "goal",
        "creates",
        "gets",
        "lists",
        "429s",
        "late p50 ms",
        "goal",
        "p99 ms",
        "goal",
        "ended",
        "surplus",
      ],
      rows,
    );
  }
  printNote(
    "requests/item: all that came to the provider, refused ones too, by items that ended; surplus: bought again",
  );
  printNote("late: from the provider's completed_at to the receipt, or to the others' file");
}

function rowOf(contender: Contender, items: number, { lateMs, books: { requests, creates } }: Ran): string[] {
  const at = (share: number) => percentile(lateMs, share);
  const { requestsGoal, lateGoalsMs } = contender;
  const perItem = asked(requests) / lateMs.length;
  return [
    contender.name,
    fixed(perItem, 2),
    requestsGoal === undefined ? "" : goal(perItem, "at most", requestsGoal, 1),
    fixed(asked(requests, "create"), 0),
    fixed(asked(requests, "get"), 0),
    fixed(asked(requests, "list"), 0),
    fixed(asked(requests, null, "429"), 0),
    fixed(at(0.5), 0),
    lateGoalsMs === undefined ? "" : goal(at(0.5), "at most", lateGoalsMs.p50, 0),
    fixed(at(0.99), 0),
    lateGoalsMs === undefined ? "" : goal(at(0.99), "at most", lateGoalsMs.p99, 0),
    `${fixed(lateMs.length, 0)} of ${fixed(items, 0)}`,
    fixed(creates.surplus, 0),
  ];
}

async function runOutlast({ system, items, signal }: Run): Promise<Ran> {
  const batch = await system.submit(madeRows("text", items, signal));
  await system.until(`${items} items end`, async () => isSettled(progressOf(await system.counts(batch)), null), {
    everyMs: LOOK_MS,
    limitMs: limitMs(items),
  });
  const books = await system.books();
  const ends = await endsOf(system, batch, items);
  return { lateMs: ends.map(({ lateMs }) => lateMs), books };
}

type Others = (place: {
  readonly run: Run;
  readonly orders: readonly Item[];
  readonly folder: string;
}) => Promise<void>;

/** The same inputs; when each was known is when its file was written. */
async function runOthers(run: Run, work: Others): Promise<Ran> {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-bench-others-"));
  try {
    const orders: Item[] = [];
    for await (const made of madeRows("text", run.items, run.signal)) {
      if (!("row" in made)) continue;
      const { row } = made;
      orders.push({ id: row.id ?? "", model: "outlast/text", input: row.input });
    }
    await work({ run, orders, folder });
    const books = await run.system.books();
    // Where it bought one again, what it knows is the last one's end.
    const ended = await endsByPrompt(run);
    const lateMs: number[] = [];
    for (const { id, input } of orders) {
      const written = await stat(keptPath(folder, id)).catch(() => null);
      const endedAtMs = ended.get(String(input["prompt"]));
      if (written !== null && endedAtMs !== undefined) lateMs.push(written.mtimeMs - endedAtMs);
    }
    return { lateMs, books };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const runLoop: Others = async ({ run, orders, folder }) => {
  const file = path.join(folder, "items.jsonl");
  await writeFile(file, orders.map((order) => JSON.stringify(order)).join("\n"));
  const args = [run.system.apiUrl, file, folder, String(AT_ONCE), String(CREATES_PER_MINUTE), "poll"];
  await program("client-loop.ts", args, run);
};

const runQueue: Others = async ({ run, orders, folder }) => {
  const { system, signal } = run;
  const queue = new Queue<Item>(QUEUE, { connection: { url: system.redisUrl } });
  try {
    const opts = { attempts: 3, backoff: { type: "exponential", delay: 1_000 } };
    await queue.addBulk(orders.map((data) => ({ name: "run", data, opts })));
    const over = new AbortController();
    const args = [system.apiUrl, system.redisUrl, folder, String(CREATES_PER_MINUTE), "poll"];
    const working = program("queue-worker.ts", args, { ...run, signal: AbortSignal.any([signal, over.signal]) });
    const isOver = async () => {
      const counts = await queue.getJobCounts("waiting", "active", "delayed");
      return Object.values(counts).every((count) => count === 0);
    };
    // What isn't over by then counts as it stands.
    const stopAtMs = Date.now() + limitMs(run.items);
    while (Date.now() < stopAtMs && !(await isOver())) await sleep(LOOK_MS, undefined, { signal });
    over.abort();
    await working;
  } finally {
    await queue.close();
  }
};

/** Runs one of the baselines until it ends, is told to, or takes too long. */
async function program(module: string, args: readonly string[], { items, signal }: Run): Promise<void> {
  const child = spawn(process.execPath, [path.join(BASELINES, module), ...args], {
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  const stop = AbortSignal.any([signal, AbortSignal.timeout(limitMs(items))]);
  stop.addEventListener("abort", () => child.kill("SIGKILL"), { once: true });
  await ended;
}

/** By prompt, when the last prediction of it ended, as the provider's own list tells. */
async function endsByPrompt({ system, signal }: Run): Promise<ReadonlyMap<string, number>> {
  type Page = { readonly next: string | null; readonly results: readonly Listed[] };
  type Listed = { readonly input: { readonly prompt?: string }; readonly completed_at?: string };
  const ends = new Map<string, number>();
  let url: string | null = `${system.apiUrl}/predictions`;
  while (url !== null) {
    const answer: Response = await fetch(url, { headers: { authorization: "Bearer r8_emulator" }, signal });
    if (answer.status === 429) {
      await sleep(1_000, undefined, { signal });
      continue;
    }
    const page = (await answer.json()) as Page;
    for (const { input, completed_at: completed } of page.results) {
      const prompt = input.prompt ?? "";
      if (completed !== undefined) ends.set(prompt, Math.max(ends.get(prompt) ?? 0, Date.parse(completed)));
    }
    url = page.next;
  }
  return ends;
}

function limitMs(items: number): number {
  return PATIENCE_MS + (items * 60_000) / CREATES_PER_MINUTE;
}
