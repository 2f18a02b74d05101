/**
 * Hostile hosts: a thousand outputs, a hundred each of ten kinds, are saved by the copy stage as a worker runs it, from
 * a host that breaks its word. Every item is to end saved with the right bytes, or failed with the right reason; what
 * mustn't be asked is listened to, and every connection that this process tries is looked at.
 *
 * Of what breaks off one half breaks off each time, the other only twice. Files are kept for a minute here (20 s where
 * it is short), and the time is then put forward, past the moment until which the stage tries again.
 */

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { gzipSync } from "node:zlib";
import { Queue } from "bullmq";
import { pino } from "pino";
import { parseHostRule } from "../../src/bucket/addresses.ts";
import { keepEnding, readEnding } from "../../src/bucket/endings.ts";
import type { AttemptRef } from "../../src/core/naming.ts";
import { type Prediction, predictionId } from "../../src/core/prediction.ts";
import { answerOf, type Ending } from "../../src/core/receipt.ts";
import { HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { openQueues } from "../../src/queues/enqueue.ts";
import { copyQueue } from "../../src/queues/queues.ts";
import { copy } from "../../workers/saving-consumers.ts";
import type { BenchOptions } from "./bench.ts";
import { madeRows } from "./prompts.ts";
import { type System, startSystem } from "./system.ts";
import { fixed, goal, printNote, printTable } from "./table.ts";

const EACH = 100;
const EACH_SHORT = 10;
const FILES_KEPT_MS = 60 * SECOND;
const FILES_KEPT_SHORT_MS = 20 * SECOND;
const LIMIT_MS = 5 * MINUTE;
const METADATA_HOST = "169.254.169.254";

type Answer = (request: IncomingMessage, response: ServerResponse, ask: Ask) => void;
type Ask = {
  readonly n: number;
  /** The times it was asked before. */
  readonly before: number;
  readonly body: Buffer;
  /** Where nobody may be asked. */
  readonly forbiddenPort: number;
};

/** What may become of an item: its files are right, or it failed for this reason. */
type Kind = { readonly name: string; readonly answer: Answer; readonly saved: boolean; readonly reason: RegExp | null };

const KINDS: readonly Kind[] = [
  { name: "sound", answer: (_request, response, { body }) => whole(response, body), saved: true, reason: null },
  {
    name: "truncated",
    answer: broken((socket) => socket.end()),
    saved: true,
    reason: /broke off after \d+ of \d+ bytes/,
  },
  { name: "stalled", answer: broken(() => undefined), saved: true, reason: /broke off after \d+ of|wasn't done after/ },
  { name: "wrong length", answer: wrongLength, saved: false, reason: /broke off after \d+ of|got no answer \(/ },
  {
    name: "reset",
    answer: broken((socket) => socket.resetAndDestroy()),
    saved: true,
    reason: /broke off after \d+ of|got no answer \(/,
  },
  { name: "404 at random", answer: notFoundAtRandom, saved: true, reason: /answered 404/ },
  {
    name: "redirect to 127.0.0.1",
    answer: (_request, response, { forbiddenPort }) => redirect(response, `http://127.0.0.1:${forbiddenPort}/secret`),
    saved: false,
    reason: /is refused/,
  },
  {
    name: `redirect to ${METADATA_HOST}`,
    answer: (_request, response) => redirect(response, `http://${METADATA_HOST}/latest/meta-data/`),
    saved: false,
    reason: /is refused/,
  },
  { name: "gzip bomb", answer: bomb, saved: false, reason: /encoded as gzip/ },
  { name: "HTML for PNG", answer: errorPage, saved: false, reason: /html/i },
];

export async function measureHostileHosts({ short, signal }: BenchOptions): Promise<void> {
  const each = short ? EACH_SHORT : EACH;
  await using opened = new AsyncDisposableStack();
  const system = opened.use(await startSystem({ emulator: {}, signal }));
  let forbidden = 0;
  const forbiddenPort = await listen(opened, (_request, response) => {
    forbidden++;
    response.end("a secret");
  });
  const asked = new Map<string, number>();
  const port = await listen(opened, (request, response) => {
    const [, kind, n] = /^\/(\d+)\/(\d+)\.png/.exec(request.url ?? "") ?? [];
    const before = asked.get(request.url ?? "") ?? 0;
    asked.set(request.url ?? "", before + 1);
    const ask = { n: Number(n), before, body: bodyOf(request.url ?? ""), forbiddenPort };
    KINDS[Number(kind)]?.answer(request, response, ask);
  });
  watchConnections(opened, (address, to) => {
    if (address === METADATA_HOST || to === forbiddenPort) forbidden++;
  });

  const refs = await succeedAll(system, each, `http://127.0.0.1:${port}`, signal);
  const startMs = performance.now();
  const keptMs = short ? FILES_KEPT_SHORT_MS : FILES_KEPT_MS;
  const endings = await copyAll(system, refs, parseHostRule(`127.0.0.1:${port}`), keptMs);
  const tookMs = performance.now() - startMs;

  const judged = await Promise.all(
    endings.map(async (ending, at) => judge(system, ending, KINDS[Math.floor(at / each)] as Kind)),
  );
  const countOf = (verdict: Verdict, at: number) =>
    judged.slice(at * each, (at + 1) * each).filter((one) => one === verdict).length;
  printTable(
    `Hostile hosts: ${fixed(refs.length, 0)} outputs, ${fixed(each, 0)} of each kind`,
    ["", "saved, right bytes", "failed, right reason", "neither", "goal"],
    KINDS.map(({ name }, at) => [
      name,
      fixed(countOf("saved", at), 0),
      fixed(countOf("failed", at), 0),
      fixed(countOf("neither", at), 0),
      goal(countOf("neither", at), "at most", 0, 0),
    ]),
  );
  printTable(
    "Requests to forbidden addresses",
    ["", "connections", "goal"],
    [["127.0.0.1 on another port, or 169.254.169.254", fixed(forbidden, 0), goal(forbidden, "at most", 0, 0)]],
  );
  const requests = [...asked.values()].reduce((sum, count) => sum + count, 0);
  printNote(
    `${fixed(requests, 0)} requests in ${fixed(tookMs / SECOND, 0)} s; 127.0.0.1 on another port was listened to, and every`,
  );
  printNote(`connection that was tried was looked at; of ${METADATA_HOST} that is all there is to see`);
}

// ── what the host does ────────────────────────────────────────────────────────

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

function bodyOf(path: string): Buffer {
  return Buffer.concat([SIGNATURE, Buffer.from(`the bytes of ${path} and no others `.repeat(200))]);
}

function whole(response: ServerResponse, body: Buffer): void {
  response.writeHead(200, { "content-type": "image/png", "content-length": body.length }).end(body);
}

/** Half of the files break off each time, the other half twice; every other one has a version to resume by. */
function broken(breakOff: (socket: Socket) => void): Answer {
  return (request, response, { n, before, body }) => {
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const rest = body.subarray(from);
    const head = {
      "content-type": "image/png",
      "content-length": rest.length,
      ...(n % 4 < 2 && { etag: `"${n}"` }),
      ...(from > 0 && { "content-range": `bytes ${from}-${body.length - 1}/${body.length}` }),
    };
    response.writeHead(from > 0 ? 206 : 200, head);
    if (n % 2 === 1 && before >= 2) return void response.end(rest);
    response.write(rest.subarray(0, rest.length / 2), () => breakOff(request.socket));
  };
}

/** More bytes are announced than come, or two lengths at once. */
function wrongLength(request: IncomingMessage, _response: ServerResponse, { n, body }: Ask): void {
  const lengths = n % 2 === 0 ? [body.length + 10] : [body.length, body.length - 10];
  const head = ["HTTP/1.1 200 OK", "content-type: image/png", ...lengths.map((length) => `content-length: ${length}`)];
  request.socket.write(`${head.join("\r\n")}\r\n\r\n`);
  request.socket.end(body);
}

function notFoundAtRandom(_request: IncomingMessage, response: ServerResponse, { n, before, body }: Ask): void {
  // A coin that falls the same way in each run.
  if (((n * 7_919 + before * 104_729) >> 3) % 2 === 0) response.writeHead(404).end();
  else whole(response, body);
}

function redirect(response: ServerResponse, location: string): void {
  response.writeHead(302, { location }).end();
}

const BOMB = gzipSync(Buffer.alloc(64 * 1024 * 1024));

function bomb(_request: IncomingMessage, response: ServerResponse): void {
  const head = { "content-type": "image/png", "content-encoding": "gzip", "content-length": BOMB.length };
  response.writeHead(200, head).end(BOMB);
}

function errorPage(_request: IncomingMessage, response: ServerResponse): void {
  const page = "<!doctype html><html><body><h1>Something went wrong</h1></body></html>";
  response.writeHead(200, { "content-type": "text/html", "content-length": page.length }).end(page);
}

// ── what is saved ─────────────────────────────────────────────────────────────

/** Items of one batch whose predictions have succeeded, each with one file of its kind. */
async function succeedAll(
  system: System,
  each: number,
  origin: string,
  signal: AbortSignal,
): Promise<readonly AttemptRef[]> {
  const { ledger, bucket } = system.services;
  const { name: account } = system.account;
  await ledger.noteOpened(account, await ledger.readIdentity(account), null);
  const batch = await system.submit(madeRows("picture", KINDS.length * each, signal));
  const refs = Array.from(
    { length: KINDS.length * each },
    (_, index): AttemptRef => ({ account, batch, index, attempt: 1 }),
  );
  for (const ref of refs) {
    const nowMs = Date.now();
    const id = predictionId(`p${ref.index}`);
    await ledger.move(ref, "claim", { nowMs, nonce: "n" });
    await ledger.move(ref, "bind", { nowMs, predictionId: id });
    const output = `${origin}/${Math.floor(ref.index / each)}/${ref.index % each}.png`;
    const ending: Ending = { end: "saved", error: null, answer: answerOf(succeeded(id, output)), copied: [] };
    await ledger.move(ref, "succeed", { nowMs, set: { ending: await keepEnding(bucket, ref, ending) } });
  }
  return refs;
}

function succeeded(id: Prediction["id"], output: string): Prediction {
  return {
    id,
    status: "succeeded",
    statusWord: "succeeded",
    output,
    error: null,
    logs: null,
    model: "outlast/picture",
    version: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    dataRemoved: false,
    metrics: {},
  };
}

const OPEN_GATE = { enter: async () => ({ waitMs: 0, leave: async () => undefined }), takeRead: async () => 0 };

/** Runs the copy stage until no item is to be copied any more; answers how each ended. */
async function copyAll(
  system: System,
  refs: readonly AttemptRef[],
  host: ReturnType<typeof parseHostRule>,
  keptMs: number,
): Promise<readonly Ending[]> {
  await using opened = new AsyncDisposableStack();
  const redis = await connectRedis(system.redisUrl, "worker");
  opened.defer(() => redis.disconnect());
  const queues = openQueues(redis);
  opened.defer(() => queues.close());
  const waiting = new Queue(copyQueue.name, { connection: redis });
  opened.defer(() => waiting.close());
  const { bucket, ledger } = system.services;
  const expiresAtMs = Date.now() + keptMs;
  for (const ref of refs) await queues.copy(ref, expiresAtMs);

  let forwardMs = 0;
  // Whoever is refused asks whether the provider has removed its data; it has not.
  const speak = { get: async (id: Prediction["id"]) => succeeded(id, "") };
  const consumer = copy(
    {
      bucket,
      ledger,
      queues,
      redis,
      outputHosts: [host],
      config: { publicBucketUrl: null },
      accounts: [{ name: system.account.name, fileToken: { token: "a token", hosts: [] }, speak, gate: OPEN_GATE }],
    },
    pino({ level: "silent" }),
    {
      timeouts: { connectMs: SECOND, headersMs: 2 * SECOND, idleMs: SECOND, totalMs: 10 * SECOND },
      clock: () => Date.now() + forwardMs,
    },
  );
  opened.defer(() => consumer.close());
  const isOver = async () => {
    if (Date.now() > expiresAtMs) {
      forwardMs = HOUR;
      await waiting.promoteJobs(); // who waits for another try needn't wait for it to come
    }
    const { copies } = await queues.savingBacklog();
    return copies === 0;
  };
  await system.until("all outputs are saved or given up", isOver, { everyMs: 500, limitMs: LIMIT_MS });
  return Promise.all(
    refs.map(async (ref) => {
      const { state, fields } = await ledger.readItem(ref);
      if (state !== "recording") throw new Error(`item ${ref.index} is ${state}, with no job to copy it`);
      return readEnding(bucket, ref, fields.ending ?? "");
    }),
  );
}

type Verdict = "saved" | "failed" | "neither";

async function judge({ services }: System, ending: Ending, { saved, reason }: Kind): Promise<Verdict> {
  if (ending.end === "failed") return reason?.test(ending.error ?? "") === true ? "failed" : "neither";
  const [file, ...more] = ending.copied;
  if (!saved || file === undefined || more.length > 0) return "neither";
  const kept = await services.bucket.get(file.key, { maxBytes: 1e8 });
  return kept?.equals(bodyOf(new URL(file.from).pathname)) === true ? "saved" : "neither";
}

// ── sockets ───────────────────────────────────────────────────────────────────

async function listen(
  opened: AsyncDisposableStack,
  handler: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<number> {
  const server = createServer(handler);
  server.on("connection", (socket) => socket.on("error", () => undefined)); // it breaks off on purpose
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  opened.defer(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** Hears of every connection that this process tries to make. */
function watchConnections(opened: AsyncDisposableStack, tried: (address: string, port: number) => void): void {
  const heard = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    socket.on("connectionAttempt", (address: string, port: number) => tried(address, port));
  };
  subscribe("net.client.socket", heard);
  opened.defer(() => void unsubscribe("net.client.socket", heard));
}
