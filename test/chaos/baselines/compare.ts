/**
 * What the same faults and kills make of what people use today, on an emulator of its own each: the official client in
 * a loop, and a BullMQ worker with a slot for each prediction. Their Redis loses nothing, none of their inputs fails by
 * itself, and each gets as many tries as is usual.
 *
 * Judged as Outlast is: paid is what the emulator's books say, lost is an input without its whole output at the end.
 */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { Queue } from "bullmq";
import { drawFraction } from "../../../src/emulator/chance.ts";
import { type Emulator, startEmulator } from "../../../src/emulator/emulator.ts";
import { fixed, printNote, printTable } from "../../bench/table.ts";
import { faults } from "../faults.ts";
import { digestIn, drawItems, type Item } from "../items.ts";
import { mapTexts, wantedOf } from "../outputs.ts";
import { startChaosRedis } from "../redis.ts";
import { type KeptItem, keptPath } from "./keep.ts";
import { QUEUE } from "./queue-worker.ts";

export type CompareOptions = {
  readonly seed: string;
  readonly items: number;
  readonly unclear: number;
  readonly signal: AbortSignal;
};

type Place = {
  readonly folder: string;
  readonly emulator: Emulator;
  readonly items: readonly Item[];
  readonly seed: string;
  readonly signal: AbortSignal;
};

/** Kills of the process; after the last it is left alone. */
type Contender = {
  readonly name: string;
  readonly run: (place: Place) => Promise<{ readonly kills: number }>;
};

const KILL_EVERY_MS = [3_000, 7_000] as const;
const MAX_KILLS = 12;
const LIMIT_MS = 900_000;
const LOOK_MS = 250;

export async function compareOthers({ seed, items: count, unclear, signal }: CompareOptions): Promise<void> {
  const items = drawItems({ seed, count, failing: false, hostile: false });
  const rows: string[][] = [];
  for (const { name, run } of CONTENDERS) {
    const folder = await mkdtemp(path.join(tmpdir(), "outlast-others-"));
    try {
      await mkdir(path.join(folder, "kept"));
      await using emulator = await startEmulator({
        seed,
        createsPerMinute: Number.POSITIVE_INFINITY,
        readsPerMinute: Number.POSITIVE_INFINITY,
        runMs: { medianMs: 1_500, spread: 0.5 },
      });
      for (const fault of faults({ unclear, most: null })) emulator.arm(fault);
      const since = performance.now();
      const limited = AbortSignal.any([signal, AbortSignal.timeout(LIMIT_MS)]);
      const { kills } = await run({ folder, emulator, items, seed, signal: limited });
      const lost = await lostOf(items, path.join(folder, "kept"));
      const paid = emulator.books().creates.total;
      rows.push([
        name,
        fixed(count, 0),
        fixed(paid, 0),
        fixed((paid * 100) / count, 1),
        fixed(surplusOf(items, emulator), 0),
        fixed(lost, 0),
        fixed(kills, 0),
        fixed((performance.now() - since) / 1_000, 0),
      ]);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  printTable(
    "Others under the same unclear answers and kills, by the provider's books",
    ["", "items", "creates", "per 100 items", "paid twice", "lost", "kills", "s"],
    rows,
  );
  printNote("lost: inputs without their whole output at the end; their Redis lost nothing");
}

const CONTENDERS: readonly Contender[] = [
  {
    name: "official client in a loop, 10 at once, with a checkpoint",
    async run(place) {
      const file = path.join(place.folder, "items.jsonl");
      await writeFile(file, place.items.map((item) => JSON.stringify(item)).join("\n"));
      const start = () =>
        startProcess("client-loop.ts", [place.emulator.apiUrl, file, path.join(place.folder, "kept")], place);
      let child = start();
      const kills = await killing(
        place,
        () => hasEnded(child),
        async () => {
          await kill(child);
          child = start();
        },
        () => kill(child),
      );
      return { kills };
    },
  },
  {
    name: "BullMQ worker, a slot for each prediction, 100 at once, 3 attempts",
    async run(place) {
      await using redis = await startChaosRedis();
      await using opened = new AsyncDisposableStack();
      const queue = new Queue<Item>(QUEUE, { connection: { url: redis.url } });
      opened.defer(() => queue.close());
      const opts = { attempts: 3, backoff: { type: "exponential", delay: 1_000 } };
      await queue.addBulk(place.items.map((item) => ({ name: "run", data: item, opts })));
      const start = () =>
        startProcess("queue-worker.ts", [place.emulator.apiUrl, redis.url, path.join(place.folder, "kept")], place);
      let child = start();
      const isOver = async () => {
        const counts = await queue.getJobCounts("waiting", "active", "delayed");
        return Object.values(counts).every((count) => count === 0);
      };
      const kills = await killing(
        place,
        isOver,
        async () => {
          await kill(child);
          child = start();
        },
        () => kill(child),
      );
      return { kills };
    },
  },
];

/** Kills it every few seconds until it is done; answers how often. */
async function killing(
  { seed, signal }: Place,
  isOver: () => boolean | Promise<boolean>,
  killAndStart: () => Promise<void>,
  end: () => Promise<void>,
): Promise<number> {
  const [from, to] = KILL_EVERY_MS;
  try {
    for (let kills = 0; ; kills++) {
      const dueMs = performance.now() + from + (to - from) * drawFraction(seed, `pause before kill ${kills}`);
      while (kills === MAX_KILLS || performance.now() < dueMs) {
        if (await isOver()) return kills;
        await sleep(LOOK_MS, undefined, { signal });
      }
      await killAndStart();
    }
  } finally {
    await end();
  }
}

function startProcess(module: string, args: readonly string[], { folder }: Place): ChildProcess {
  const log = openSync(path.join(folder, "process.log"), "a");
  const child = spawn(process.execPath, [new URL(module, import.meta.url).pathname, ...args], {
    env: { PATH: process.env["PATH"] ?? "" },
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function surplusOf(items: readonly Item[], emulator: Emulator): number {
  const wanted = new Map<string, number>();
  for (const digest of items.map(digestIn)) {
    wanted.set(digest, (wanted.get(digest) ?? 0) + 1);
  }
  return [...emulator.inputRows()].reduce(
    (sum, { digest, creates }) => sum + Math.max(creates - (wanted.get(digest) ?? 0), 0),
    0,
  );
}

async function lostOf(items: readonly Item[], folder: string): Promise<number> {
  let lost = 0;
  for (const item of items) if (!(await isWhole(item, folder))) lost++;
  return lost;
}

async function isWhole(item: Item, folder: string): Promise<boolean> {
  const text = await readFile(keptPath(folder, item.id), "utf8").catch(() => null);
  if (text === null) return false;
  const wanted = wantedOf(item);
  const { output } = JSON.parse(text) as KeptItem;
  const names = new Set<string>();
  mapTexts(output, (part) => {
    if (part.startsWith(`${item.id}-`)) names.add(part);
    return part;
  });
  const kept = new Map<string, string>();
  for (const name of names) {
    const bytes = await readFile(path.join(folder, name)).catch(() => null);
    const place = bytes === null ? undefined : [...wanted.files].find(([, whole]) => whole.equals(bytes))?.[0];
    if (place !== undefined) kept.set(name, place);
  }
  return isDeepStrictEqual(
    mapTexts(output, (part) => kept.get(part) ?? part),
    wanted.output,
  );
}
