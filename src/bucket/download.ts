/**
 * From a URL to a checked stream: what `body` delivers before it ends is the whole file, and nothing else.
 *
 * A body that breaks, stalls, is shorter than was said, empty or too large, or by its first bytes another kind of thing
 * than was declared, ends in a DownloadError, so whoever pipes it into `bucket.putStream` stores the file or nothing. A
 * break in the middle is mended by asking for the rest, where the server named the file by a strong ETag and answers
 * for the same one; otherwise the error says `transient`, and the download begins anew.
 *
 * Only hosts of the agent's list are asked, at every redirect again. The provider's token is sent only after a 401 or
 * 403, only over https to the provider's delivery hosts, and never where a redirect led.
 */

import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { type Dispatcher, request } from "undici";
import { extensionOf } from "../core/outputs.ts";
import { type HostRule, isHttpsTo } from "./addresses.ts";
import { decodeDataUrl, isDataUrl } from "./data-url.ts";
import type { DownloadAgent } from "./download-agent.ts";
import { DownloadError, shownUrl } from "./download-error.ts";
import { type FileType, judgeType, LOOKED_AT_BYTES, type ToldType } from "./file-types.ts";
import { discard, RefusedAddress } from "./guarded-agent.ts";

export { DownloadError };

export type Download = {
  /** Ends only when the file is complete; otherwise fails with a DownloadError, or with the signal's reason. */
  readonly body: Readable;
  /** `type/subtype`: by the first bytes, else as the server says, else by the URL's extension. */
  readonly contentType: string | null;
  /** What such a file is called: 1 to 8 lower-case letters and digits. */
  readonly extension: string;
  /** As announced; null where the server sends chunks without saying how many bytes they make. */
  readonly expectedBytes: number | null;
};

export type DownloadOptions = {
  readonly agent: DownloadAgent;
  readonly maxBytes: number;
  /** The provider's token, and the hosts it may be shown to. */
  readonly token?: string;
  readonly tokenHosts?: readonly HostRule[];
};

const MAX_REDIRECTS = 3;

/** One download is mended so often; a server that breaks more often is left to a fresh start, later. */
const PAUSES_BEFORE_RESUMING_MS = [0, 100, 200, 400, 800, 1_600];

type Answer = Dispatcher.ResponseData;

/**
 * Asks for a file and answers when its first bytes are in and are those of such a file. The caller reads or destroys
 * `body`.
 */
export async function openDownload(url: string, options: DownloadOptions, signal: AbortSignal): Promise<Download> {
  signal.throwIfAborted();
  if (isDataUrl(url)) {
    const { bytes, contentType: declared } = decodeDataUrl(url, options.maxBytes);
    const shown = `the output ${JSON.stringify(`${url.slice(0, Math.min(url.indexOf(","), 80))},…`)}`;
    const type = await typeOf(bytes.subarray(0, LOOKED_AT_BYTES), { declared, extension: null }, shown);
    return { body: Readable.from([bytes], { objectMode: false }), ...type, expectedBytes: bytes.length };
  }
  const start = URL.parse(url);
  if (start === null)
    throw new DownloadError("bad-body", `the output ${JSON.stringify(url.split("?")[0]?.slice(0, 80))} isn't a URL`);

  const ended = new AbortController();
  const run: Run = {
    options,
    callerSignal: signal,
    signal: AbortSignal.any([signal, AbortSignal.timeout(options.agent.timeouts.totalMs), ended.signal]),
  };
  const first = await firstAnswer(start, run);
  try {
    const expectedBytes = announcedBytes(first, options.maxBytes);
    const chunks = checkedChunks(first, expectedBytes, run);
    const head = await firstBytes(chunks);
    const told = { declared: declaredType(first.answer), extension: extensionOf(url) ?? extensionOf(first.url.href) };
    const type = await typeOf(head.subarray(0, LOOKED_AT_BYTES), told, asked(first.url));
    return { body: readableOf(head, chunks, () => ended.abort()), ...type, expectedBytes };
  } catch (error) {
    ended.abort();
    throw error;
  }
}

/** One download: what was asked for, and what ends it. */
type Run = { readonly options: DownloadOptions; readonly callerSignal: AbortSignal; readonly signal: AbortSignal };

/** An answer with a file, and how to ask for it again. */
type Found = { readonly url: URL; readonly headers: Readonly<Record<string, string>>; readonly answer: Answer };

async function firstAnswer(start: URL, run: Run): Promise<Found> {
  const { options } = run;
  let url = start;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    let headers: Record<string, string> = {};
    let answer = await send(url, headers, run);
    const mayShowToken = redirects === 0 && options.token !== undefined && isHttpsTo(url, options.tokenHosts ?? []);
    if ((answer.statusCode === 401 || answer.statusCode === 403) && mayShowToken) {
      discard(answer);
      headers = { authorization: `Bearer ${options.token}` };
      answer = await send(url, headers, run);
    }
    if (!REDIRECTS.has(answer.statusCode)) {
      const fault = statusError(url, answer.statusCode);
      if (fault === null) return { url, headers, answer };
      discard(answer);
      throw fault;
    }
    discard(answer);
    const location = headerOf(answer, "location");
    const next = location === null ? null : URL.parse(location, url.href);
    if (next === null)
      throw new DownloadError("bad-body", `${asked(url)} answered ${answer.statusCode} without a place to go to`);
    url = next;
  }
  throw new DownloadError(
    "refused-host",
    `${asked(start)} led through more than ${MAX_REDIRECTS} redirects, last to ${shownUrl(url)}`,
  );
}

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** One request, without any retry or redirect. */
async function send(url: URL, headers: Readonly<Record<string, string>>, run: Run): Promise<Answer> {
  const verdict = run.options.agent.judge(url);
  if (verdict.kind === "refused")
    throw new DownloadError("refused-host", `${asked(url)} is refused: ${verdict.reason}`);
  try {
    const answer = await request(url, {
      dispatcher: run.options.agent.dispatcher,
      method: "GET",
      headers: { accept: "*/*", "accept-encoding": "identity", "user-agent": "outlast", ...headers },
      signal: run.signal,
    });
    answer.body.on("error", () => undefined); // whoever reads it hears of it; if nobody does, nothing crashes
    return answer;
  } catch (error) {
    throw explained(error, url, run);
  }
}

/** The answer's bytes and, where it breaks, the rest's; ends only when all have come. */
async function* checkedChunks(first: Found, announced: number | null, run: Run): AsyncGenerator<Buffer> {
  const { url } = first;
  const { maxBytes } = run.options;
  const etag = strongEtag(first.answer);
  const pausesMs = [...PAUSES_BEFORE_RESUMING_MS];
  let { answer } = first;
  let total = announced;
  let bytes = 0;
  for (;;) {
    try {
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > maxBytes) throw tooLarge(url, maxBytes);
        yield chunk;
      }
      if (total !== null && bytes !== total) throw new Error("the body's length isn't the announced one");
      if (bytes === 0) throw new DownloadError("bad-body", `${asked(url)} gave an empty body`);
      return;
    } catch (error) {
      if (error instanceof DownloadError) throw error;
      if (run.signal.aborted) throw explained(error, url, run);
      const broken = `${asked(url)} broke off after ${bytes} of ${total ?? "an unknown number of"} bytes (${wordOf(error)})`;
      if (etag === null) throw mustRestart(broken, "the server names no version to resume", error);
      ({ answer, total } = await rest(first, { etag, bytes, total }, broken, pausesMs, run));
      if (total > maxBytes) throw tooLarge(url, maxBytes);
    }
  }
}

/** As many chunks as hold what is looked at, or all of a shorter file. */
async function firstBytes(chunks: AsyncGenerator<Buffer>): Promise<Buffer> {
  const head: Buffer[] = [];
  for (let bytes = 0; bytes < LOOKED_AT_BYTES; ) {
    const { done, value } = await chunks.next();
    if (done === true) break;
    head.push(value);
    bytes += value.length;
  }
  return Buffer.concat(head);
}

async function typeOf(head: Buffer, told: ToldType, file: string): Promise<FileType> {
  const verdict = await judgeType(head, told);
  if (verdict.kind === "wrong") throw new DownloadError("bad-body", `${file} isn't that file: ${verdict.fault}`);
  return { contentType: verdict.contentType, extension: verdict.extension };
}

/**
 * As Readable.from, which however waits for the next chunk before it is destroyed, and that chunk may never come.
 * `head`: what was taken of the chunks already.
 */
function readableOf(head: Buffer, chunks: AsyncGenerator<Buffer>, stop: () => void): Readable {
  let first: Buffer | null = head;
  let isOver = false;
  return new Readable({
    read() {
      if (first !== null) {
        this.push(first);
        first = null;
        return;
      }
      chunks.next().then(
        ({ done = false, value }) => {
          isOver = done;
          this.push(done ? null : value);
        },
        (error: unknown) => this.destroy(error instanceof Error ? error : new Error(String(error))),
      );
    },
    destroy(error, callback) {
      if (!isOver) stop();
      callback(error);
    },
  });
}

/** Asks for what is missing of a file, until there is an answer or `pausesMs` is used up. */
async function rest(
  { url, headers }: Found,
  have: { readonly etag: string; readonly bytes: number; readonly total: number | null },
  broken: string,
  pausesMs: number[],
  run: Run,
): Promise<{ readonly answer: Answer; readonly total: number }> {
  for (let pauseMs = pausesMs.shift(); pauseMs !== undefined; pauseMs = pausesMs.shift()) {
    await sleep(pauseMs, undefined, { signal: run.signal }).catch((error: unknown) => {
      throw explained(error, url, run);
    });
    const asking = { ...headers, range: `bytes=${have.bytes}-`, "if-range": have.etag };
    const answer = await send(url, asking, run).catch((error: unknown) => {
      if (error instanceof DownloadError && error.kind === "transient" && !run.signal.aborted) return null;
      throw error;
    });
    if (answer === null) continue;
    if (answer.statusCode === 206) {
      const total = totalOfRest(answer, have);
      if (total !== null) return { answer, total };
    }
    discard(answer);
    if (isBusy(answer.statusCode)) continue;
    throw mustRestart(broken, `asked for the rest, the server answered ${answer.statusCode} for something else`);
  }
  throw mustRestart(broken, `that was after ${PAUSES_BEFORE_RESUMING_MS.length} attempts to get the rest`);
}

/** The file's length, if a 206 holds exactly what is missing of the very same file; otherwise null. */
function totalOfRest(
  answer: Answer,
  have: { readonly etag: string; readonly bytes: number; readonly total: number | null },
): number | null {
  const range = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headerOf(answer, "content-range") ?? "");
  if (range === null) return null;
  const [start, last, total] = [Number(range[1]), Number(range[2]), Number(range[3])];
  const length = headerOf(answer, "content-length");
  const same =
    start === have.bytes &&
    last === total - 1 &&
    (have.total === null || have.total === total) &&
    (length === null || Number(length) === total - start) &&
    (headerOf(answer, "etag") ?? have.etag) === have.etag &&
    isPlain(answer);
  return same ? total : null;
}

/** What the headers say about the length, or null where chunks will end by themselves; throws where a cut wouldn't show. */
function announcedBytes({ url, answer }: Found, maxBytes: number): number | null {
  if (!isPlain(answer)) {
    const encoding = headerOf(answer, "content-encoding") ?? headerOf(answer, "transfer-encoding");
    throw new DownloadError(
      "bad-body",
      `${asked(url)} gave a body encoded as ${encoding?.slice(0, 40)}, though none was asked for`,
    );
  }
  if (isChunked(answer)) return null;
  const text = headerOf(answer, "content-length");
  if (text === null || !/^\d{1,15}$/.test(text)) {
    throw new DownloadError(
      "bad-body",
      `${asked(url)} gave a body without a length, so that a cut wouldn't be noticed`,
    );
  }
  const bytes = Number(text);
  if (bytes === 0) throw new DownloadError("bad-body", `${asked(url)} gave an empty body`);
  if (bytes > maxBytes) throw tooLarge(url, maxBytes, bytes);
  return bytes;
}

/** Null for the one status that comes with a file. */
function statusError(url: URL, status: number): DownloadError | null {
  if (status === 200) return null;
  const answered = `${asked(url)} answered ${status}`;
  if (isBusy(status)) return new DownloadError("transient", `${answered}; it can be tried again`);
  if (status === 401 || status === 403) {
    return new DownloadError(
      "gone",
      `${answered}; the address has expired, or needs a token that wasn't accepted or mayn't be sent there`,
    );
  }
  if (status >= 400) return new DownloadError("gone", `${answered}; the file is gone or was never there`);
  return new DownloadError("bad-body", `${answered}, which isn't how a whole file is answered`);
}

function isBusy(status: number): boolean {
  return status >= 500 || status === 408 || status === 425 || status === 429;
}

/** What kept a request from being answered, or a body from ending. */
function explained(error: unknown, url: URL, run: Run): unknown {
  if (run.callerSignal.aborted) return run.callerSignal.reason;
  if (error instanceof RefusedAddress)
    return new DownloadError("refused-host", `${asked(url)} is refused: ${error.message}`);
  if (run.signal.aborted) {
    const seconds = run.options.agent.timeouts.totalMs / 1_000;
    return new DownloadError("transient", `${asked(url)} wasn't done after ${seconds} s and was given up`, error);
  }
  return new DownloadError("transient", `${asked(url)} got no answer (${wordOf(error)}); it can be tried again`, error);
}

function mustRestart(broken: string, why: string, cause?: unknown): DownloadError {
  return new DownloadError("transient", `${broken}; ${why}; it has to be started again`, cause);
}

function tooLarge(url: URL, maxBytes: number, bytes?: number): DownloadError {
  const size = bytes === undefined ? "more" : `${bytes} bytes, more`;
  return new DownloadError("too-large", `${asked(url)} gave ${size} than the ${maxBytes} bytes allowed`);
}

function asked(url: URL): string {
  return `GET ${shownUrl(url)}`;
}

function wordOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string" ? error.code : error.message.slice(0, 100);
}

function headerOf(answer: Answer, name: string): string | null {
  const value = answer.headers[name];
  return (Array.isArray(value) ? value.join(", ") : value) ?? null;
}

function isChunked(answer: Answer): boolean {
  return headerOf(answer, "transfer-encoding")?.trim().toLowerCase() === "chunked";
}

function isPlain(answer: Answer): boolean {
  const encoding = headerOf(answer, "content-encoding")?.trim().toLowerCase() ?? "";
  return (
    (encoding === "" || encoding === "identity") &&
    (headerOf(answer, "transfer-encoding") === null || isChunked(answer))
  );
}

/** The name of a version of the file, byte for byte; a weak one (`W/"…"`) doesn't promise that. */
function strongEtag(answer: Answer): string | null {
  const etag = headerOf(answer, "etag")?.trim() ?? "";
  return /^"[^"]+"$/.test(etag) ? etag : null;
}

function declaredType(answer: Answer): string | null {
  const type = headerOf(answer, "content-type")?.split(";")[0]?.trim().toLowerCase() ?? "";
  return /^[\w.+-]+\/[\w.+-]+$/.test(type) ? type : null;
}
