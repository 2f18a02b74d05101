/**
 * Saving: how fast files come into the bucket, beside what people write by hand and what the machine can do; whether the
 * nearest expiry comes first; and what hostile hosts get away with.
 *
 * Large files and small ones are saved by one process (`saver-process.ts`) from another (`file-host-process.ts`), so
 * many at once, each way in turn and several rounds; the table shows the median. Where there is a folder in memory
 * (/dev/shm) files go there first: what is seen then is our own work, and not the disk's, which a second table has.
 */

import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { LOCAL_S3_PATH, startLocalS3 } from "../../src/embedded/local-s3.ts";
import type { BenchOptions } from "./bench.ts";
import { Child } from "./child.ts";
import type { HostAddress } from "./file-host-process.ts";
import { measureHostileHosts } from "./hostile-hosts.ts";
import { measureOrder } from "./save-order.ts";
import type { Saved, SaveOrder, Way } from "./saver-process.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const MEBI = 1024 * 1024;
const MEMORY_FOLDER = "/dev/shm";
const SAMPLE_EVERY_MS = 100;
const LONGEST_MS = 10 * 60_000;

type Entry = { readonly name: string; readonly way: Way | "curl"; readonly flush: boolean };
type Outcome = { readonly perSecond: number; readonly cpuMs: number | null; readonly rssBytes: number | null };

const OURS: Entry = { name: "ours: hashed, flushed, with receipt", way: "ours", flush: true };
const SOCKET: Entry = { name: "socket to file, nothing else", way: "socket", flush: false };
const SOCKET_FLUSHED: Entry = { name: "  the same, flushed", way: "socket", flush: true };
const BUFFERED: Entry = { name: "fetch to buffer, then write", way: "buffered", flush: false };
const BUFFERED_FLUSHED: Entry = { name: "  the same, flushed", way: "buffered", flush: true };
const CURL: Entry = { name: "curl --parallel to files", way: "curl", flush: false };

export async function measureSaving({ short, signal }: BenchOptions): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const host = opened.use(new Child("test/bench/file-host-process.ts"));
  const addressed = host.next<HostAddress>("host");
  host.send({ kind: "start" });
  const { origin } = await addressed;

  for (const place of [MEMORY_FOLDER, tmpdir()].filter((folder) => existsSync(folder))) {
    const where = place === MEMORY_FOLDER ? "a folder in memory" : "a folder on the disk";
    await measureLarge({ short, signal }, origin, place, where);
  }
  await measureHuge({ short, signal }, origin, existsSync(MEMORY_FOLDER) ? MEMORY_FOLDER : tmpdir());
  for (const place of [MEMORY_FOLDER, tmpdir()].filter((folder) => existsSync(folder))) {
    const where = place === MEMORY_FOLDER ? "a folder in memory" : "a folder on the disk";
    await measureSmall({ short, signal }, origin, place, where);
  }
  await measureSmallOnS3({ short, signal }, origin);
  await measureOrder({ short, signal });
  await measureHostileHosts({ short, signal });
}

// ── files ─────────────────────────────────────────────────────────────────────

/** What ours is to reach, beside another way: its rate, of the other's. */
type Goals = ReadonlyMap<Entry, number>;

async function measureLarge(options: BenchOptions, origin: string, place: string, where: string): Promise<void> {
  const onDisk = place !== MEMORY_FOLDER;
  const [bytes, files, atOnce] = [64 * MEBI, options.short ? 8 : onDisk ? 12 : 32, 4];
  const entries = [OURS, SOCKET, SOCKET_FLUSHED, BUFFERED, BUFFERED_FLUSHED, CURL];
  const rounds = options.short || onDisk ? 1 : 3;
  const outcomes = await inTurns(entries, { ...options, origin, place, bytes, files, atOnce, rounds });
  const title = `64 MB files to ${where}: ${files} of them, ${atOnce} at once`;
  const goals: Goals = new Map([
    [SOCKET, 0.65],
    [BUFFERED, 1],
  ]);
  printWays(title, { unit: "MB/s", of: ({ perSecond }) => (perSecond * bytes) / 1e6 }, entries, outcomes, goals);
}

async function measureHuge(options: BenchOptions, origin: string, place: string): Promise<void> {
  const [bytes, files] = [options.short ? 256 * MEBI : 1024 * MEBI, 4];
  const entries = [OURS, SOCKET];
  const outcomes = await inTurns(entries, { ...options, origin, place, bytes, files, atOnce: 4, rounds: 1 });
  printTable(
    `4 files of ${fixed(bytes / MEBI, 0)} MB at once`,
    ["", "MB/s", "peak RSS MB", "goal"],
    entries.map((entry) => {
      const { perSecond = Number.NaN, rssBytes } = outcomes.get(entry) ?? {};
      const peak = (rssBytes ?? Number.NaN) / 1e6;
      return [
        entry.name,
        fixed((perSecond * bytes) / 1e6, 0),
        fixed(peak, 0),
        entry === OURS ? goal(peak, "at most", 300, 0) : "",
      ];
    }),
  );
}

async function measureSmall(options: BenchOptions, origin: string, place: string, where: string): Promise<void> {
  const [bytes, files, atOnce] = [100_000, options.short ? 400 : 3_000, 16];
  const entries = [OURS, BUFFERED, BUFFERED_FLUSHED, CURL];
  const rounds = options.short ? 1 : 3;
  const outcomes = await inTurns(entries, { ...options, origin, place, bytes, files, atOnce, rounds });
  const title = `100 KB images to ${where}: ${fixed(files, 0)} of them, ${atOnce} at once`;
  const goals: Goals = new Map([
    [BUFFERED, 1],
    [BUFFERED_FLUSHED, 1],
  ]);
  printWays(title, FILES_A_SECOND, entries, outcomes, goals);
  printNote(
    "ours writes two files for each, image and receipt, in a folder of their own, and flushes both, the folder and its name;",
  );
  printNote("the recipe writes one, all into one folder. What flushes nothing is faster, and lost when the power goes");
}

async function measureSmallOnS3(options: BenchOptions, origin: string): Promise<void> {
  await using opened = new AsyncDisposableStack();
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-bench-s3-"));
  opened.defer(() => rm(folder, { recursive: true, force: true }));
  const credentials = { accessKeyId: "bench-key", secretAccessKey: "bench-secret" };
  const [loopback, bucket] = ["127.0.0.1", "bench"];
  const server = await startLocalS3({ host: loopback, publicHost: loopback, port: 0, folder, bucket, credentials });
  opened.defer(() => server.stop());
  const to = { bucket, endpoint: `http://${loopback}:${server.port}${LOCAL_S3_PATH}`, credentials };

  const [bytes, files, atOnce] = [100_000, options.short ? 100 : 1_000, 16];
  const ours = { ...OURS, name: "ours: image and receipt, two puts" };
  const buffered = { ...BUFFERED, name: "fetch to buffer, then PutObject" };
  const rounds = options.short ? 1 : 3;
  const outcomes = await inTurns([ours, buffered], { ...options, origin, to, bytes, files, atOnce, rounds });
  const title = `100 KB images to S3 (miniflare): ${fixed(files, 0)} of them, ${atOnce} at once`;
  printWays(title, FILES_A_SECOND, [ours, buffered], outcomes, new Map([[buffered, 0.5]]));
}

const FILES_A_SECOND = { unit: "files/s", of: ({ perSecond }: Outcome) => perSecond };

/** A row for each way, ours first, with how ours does beside it. */
function printWays(
  title: string,
  rate: { readonly unit: string; readonly of: (outcome: Outcome) => number },
  entries: readonly Entry[],
  outcomes: ReadonlyMap<Entry, Outcome>,
  goals: Goals,
): void {
  const [ours] = entries.map((entry) => outcomes.get(entry));
  printTable(
    title,
    ["", rate.unit, "ours, of this", "goal for ours", "CPU ms/file", "peak RSS MB"],
    entries.flatMap((entry, at) => {
      const outcome = outcomes.get(entry);
      if (outcome === undefined || ours === undefined) return [];
      const share = ours.perSecond / outcome.perSecond;
      const atLeast = goals.get(entry);
      return [
        [
          entry.name,
          fixed(rate.of(outcome), 0),
          at === 0 ? "" : fixed(share, 2),
          atLeast === undefined ? "" : goal(share, "at least", atLeast, 2),
          outcome.cpuMs === null ? "" : fixed(outcome.cpuMs, 2),
          outcome.rssBytes === null ? "" : fixed(outcome.rssBytes / 1e6, 0),
        ],
      ];
    }),
  );
}

type Runs = BenchOptions & {
  readonly origin: string;
  readonly bytes: number;
  readonly files: number;
  readonly atOnce: number;
  readonly rounds: number;
} & ({ readonly place: string } | { readonly to: SaveOrder["to"] });

/** Each way in turn, round by round; of each the run with the median rate. */
async function inTurns(entries: readonly Entry[], runs: Runs): Promise<ReadonlyMap<Entry, Outcome>> {
  const outcomes = new Map<Entry, Outcome[]>(entries.map((entry) => [entry, []]));
  for (let round = 0; round < runs.rounds; round++) {
    for (const entry of entries) {
      runs.signal.throwIfAborted();
      const outcome = await runOnce(entry, runs);
      if (outcome !== null) outcomes.get(entry)?.push(outcome);
    }
  }
  return new Map(
    [...outcomes].flatMap(([entry, all]) => {
      const median = all.toSorted((a, b) => a.perSecond - b.perSecond)[Math.floor(all.length / 2)];
      return median === undefined ? [] : [[entry, median] as const];
    }),
  );
}

async function runOnce(entry: Entry, runs: Runs): Promise<Outcome | null> {
  await using opened = new AsyncDisposableStack();
  const urls = Array.from({ length: runs.files }, (_, n) => `${runs.origin}/files/${runs.bytes}/${n}.png`);
  let to: SaveOrder["to"];
  if ("to" in runs) to = runs.to;
  else {
    const folder = await mkdtemp(path.join(runs.place, "outlast-bench-"));
    opened.defer(() => rm(folder, { recursive: true, force: true }));
    to = { folder: path.join(folder, "bucket") };
    await promisify(execFile)("sync"); // what others left to be written isn't ours to pay
  }
  if (entry.way === "curl") return "folder" in to ? await runCurl(urls, runs.atOnce, to.folder, runs) : null;

  const saver = opened.use(new Child("test/bench/saver-process.ts"));
  const order = { kind: "save", way: entry.way, flush: entry.flush, atOnce: runs.atOnce, to } as const;
  await save(saver, { ...order, urls: urls.slice(0, Math.min(runs.files, runs.atOnce)).map(small) }); // it is warm now
  const before = await saver.measure();
  const done = save(saver, { ...order, urls });
  const rssBytes = await peakRss(saver, done);
  const tookMs = await done;
  const after = await saver.measure();
  return { perSecond: (runs.files * 1_000) / tookMs, cpuMs: (after.cpuMs - before.cpuMs) / runs.files, rssBytes };
}

function small(url: string): string {
  return url.replace(/\/files\/\d+\//, "/files/100000/");
}

async function save(saver: Child, order: SaveOrder): Promise<number> {
  const saved = saver.next<Saved>("saved", LONGEST_MS);
  saver.send(order);
  const { tookMs, error } = await saved;
  if (error !== null) throw new Error(`${order.way} couldn't save: ${error}`);
  return tookMs;
}

async function peakRss(saver: Child, done: Promise<unknown>): Promise<number> {
  let ended = false;
  const end = () => void (ended = true);
  done.then(end, end);
  let peak = 0;
  while (!ended) {
    peak = Math.max(peak, (await saver.measure()).rssBytes);
    await sleep(SAMPLE_EVERY_MS);
  }
  return peak;
}

/** Null where there is no curl here. */
async function runCurl(
  urls: readonly string[],
  atOnce: number,
  folder: string,
  { signal }: Runs,
): Promise<Outcome | null> {
  if (spawnSync("curl", ["--version"]).status !== 0) return null;
  await mkdir(folder, { recursive: true });
  const lines = urls.flatMap((url, n) => [`url = "${url}"`, `output = "${path.join(folder, `${n}.png`)}"`]);
  const startMs = performance.now();
  const curl = promisify(execFile)(
    "curl",
    ["--no-progress-meter", "--parallel", "--parallel-max", String(atOnce), "--config", "-"],
    {
      signal,
    },
  );
  curl.child.stdin?.end(lines.join("\n"));
  await curl;
  return { perSecond: (urls.length * 1_000) / (performance.now() - startMs), cpuMs: null, rssBytes: null };
}
