/**
 * The queue API: requests a second at 64 connections, beside a bare Fastify (`bare-api-process.ts`) on the same Redis,
 * one after the other in turns, so that both meet the same machine. And the memory that a large batch costs the server
 * while its rows stream in.
 *
 * POST: single predictions to a bucket in a folder, each durable when it is answered; no worker runs. GET: predictions
 * that have ended, in turns. Redis syncs every write.
 */

import { Readable } from "node:stream";
import autocannon from "autocannon";
import { type BareApiListens, type BareApiOrder } from "./bare-api-process.ts";
import type { BenchOptions } from "./bench.ts";
import { Child } from "./child.ts";
import { type System, startSystem, UNLIMITED } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const CONNECTIONS = 64;
const SECONDS = 8;
const SECONDS_SHORT = 2;
const ROUNDS = 2;
const ENDED = 500;
const ROWS = 100_000;
const ROWS_SHORT = 20_000;
const LIMIT_MS = 120_000;
const LOOK_MS = 50;
const MB = 1024 * 1024;

const JSON_TYPE = { "content-type": "application/json" };
const SINGLE = JSON.stringify({ version: "outlast/text", input: { prompt: "a lighthouse in the fog, woodcut" } });

type Rate = { readonly perSecond: number; readonly p99Ms: number; readonly refused: number };

export async function measureApi({ short, signal }: BenchOptions): Promise<void> {
  await using system = await startSystem({
    emulator: { ...UNLIMITED.emulator, runMs: { medianMs: 50, spread: 0 } },
    env: UNLIMITED.env,
    signal,
  });
  await using bare = new Child("test/bench/bare-api-process.ts");
  const order: BareApiOrder = { kind: "open", redisUrl: system.redisUrl };
  bare.send(order);
  const { url: bareUrl } = await bare.next<BareApiListens>("listens");
  const { server, url } = await system.startServer();
  const paths = await endedPredictions(url, system, signal);

  const seconds = short ? SECONDS_SHORT : SECONDS;
  const post = { method: "POST", headers: JSON_TYPE, body: SINGLE } as const;
  const asked: readonly (readonly [string, string, autocannon.Request[]])[] = [
    ["bare POST, one queue.add", bareUrl, [{ ...post, path: "/add" }]],
    ["POST /v1/predictions", url, [{ ...post, path: "/v1/predictions" }]],
    ["bare GET, one read of Redis", bareUrl, [{ method: "GET", path: "/read" }]],
    ["GET /v1/predictions/{id}", url, paths.map((path) => ({ method: "GET", path }))],
  ];
  const rates = asked.map((): Rate[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [at, [, base, requests]] of asked.entries()) {
      signal.throwIfAborted();
      rates[at]?.push(await fire(base, requests, seconds));
    }
  }
  const [barePost, ourPost, bareGet, ourGet] = rates.map(meanOf) as [Rate, Rate, Rate, Rate];

  printTable(
    `The queue API: ${CONNECTIONS} connections, ${ROUNDS} × ${seconds} s in turns`,
    ["", "requests/s", "of bare", "goal", "p99 ms", "goal", "not 2xx"],
    [
      row(asked[0]?.[0], barePost),
      row(asked[1]?.[0], ourPost, { of: barePost, atLeast: 0.5, p99AtMost: 100 }),
      row(asked[2]?.[0], bareGet),
      row(asked[3]?.[0], ourGet, { of: bareGet, atLeast: 0.6 }),
    ],
  );
  printNote("the load generator has a part of the same cores, in every line the same");
  await measureUpload(server, url, short ? ROWS_SHORT : ROWS, signal);
}

/** Creates predictions, has a worker bring them to their end, and answers their paths. */
async function endedPredictions(url: string, system: System, signal: AbortSignal): Promise<readonly string[]> {
  const worker = await system.startWorker();
  const ids = await Promise.all(
    Array.from({ length: ENDED }, async () => {
      const answer = await fetch(`${url}/v1/predictions`, { method: "POST", headers: JSON_TYPE, body: SINGLE, signal });
      return ((await answer.json()) as { readonly id: string }).id;
    }),
  );
  const paths = ids.map((id) => `/v1/predictions/${id}`);
  const open = new Set(paths);
  const noneIsOpen = async () => {
    for (const path of open) {
      const answer = await fetch(`${url}${path}`, { signal });
      const { status } = (await answer.json()) as { readonly status: string };
      if (status !== "succeeded") return false;
      open.delete(path);
    }
    return true;
  };
  await system.until("all predictions have ended", noneIsOpen, { everyMs: LOOK_MS, limitMs: LIMIT_MS });
  await worker.end("SIGTERM");
  return paths;
}

async function fire(url: string, requests: autocannon.Request[], seconds: number): Promise<Rate> {
  const result = await autocannon({ url, requests, connections: CONNECTIONS, duration: seconds });
  return {
    perSecond: result["2xx"] / result.duration,
    p99Ms: result.latency.p99,
    refused: result.non2xx + result.errors,
  };
}

function meanOf(rates: readonly Rate[]): Rate {
  const mean = (value: (rate: Rate) => number) => rates.reduce((sum, rate) => sum + value(rate), 0) / rates.length;
  return {
    perSecond: mean(({ perSecond }) => perSecond),
    p99Ms: Math.max(...rates.map(({ p99Ms }) => p99Ms)),
    refused: rates.reduce((sum, { refused }) => sum + refused, 0),
  };
}

function row(
  name: string | undefined,
  rate: Rate,
  goals?: { readonly of: Rate; readonly atLeast: number; readonly p99AtMost?: number },
): readonly string[] {
  const share = goals === undefined ? null : rate.perSecond / goals.of.perSecond;
  return [
    name ?? "",
    fixed(rate.perSecond, 0),
    share === null ? "" : fixed(share, 2),
    share === null ? "" : goal(share, "at least", goals?.atLeast ?? 0, 2),
    fixed(rate.p99Ms, 0),
    goals?.p99AtMost === undefined ? "" : goal(rate.p99Ms, "at most", goals.p99AtMost, 0),
    fixed(rate.refused, 0),
  ];
}

async function measureUpload(server: Child, url: string, rows: number, signal: AbortSignal): Promise<void> {
  const { rssBytes: before } = await server.measure({ collect: false });
  let peak = before;
  let done = false;
  const watching = (async () => {
    while (!done) peak = Math.max(peak, (await server.measure()).rssBytes);
  })();
  const startedAt = performance.now();
  const answer = await fetch(`${url}/v1/batches?name=bench&model=outlast/text`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: Readable.toWeb(Readable.from(rowLines(rows), { objectMode: false })) as ReadableStream,
    duplex: "half",
    signal,
  });
  const tookMs = performance.now() - startedAt;
  done = true;
  await watching;
  const { items } = (await answer.json()) as { readonly items?: number };
  if (answer.status !== 201 || items !== rows)
    throw new Error(`the batch wasn't taken: ${answer.status}, ${items} items`);

  printTable(
    `POST /v1/batches: ${fixed(rows, 0)} rows as a stream`,
    ["", "rows/s", "memory grew, MB", "goal"],
    [
      [
        "NDJSON, 4 kB pieces and more",
        fixed((rows / tookMs) * 1_000, 0),
        fixed((peak - before) / MB, 1),
        goal((peak - before) / MB, "at most", 50, 0),
      ],
    ],
  );
  printNote("memory: the resident set of the server's process, its peak against just before");
}

function* rowLines(rows: number): Generator<string> {
  let piece = "";
  for (let at = 0; at < rows; at++) {
    piece += `${JSON.stringify({ id: `row-${at}`, input: { prompt: `prompt number ${at}, in a row of the usual length` } })}\n`;
    if (piece.length > 4_096) {
      yield piece;
      piece = "";
    }
  }
  yield piece;
}
