/**
 * Bodies as they come in: JSON, read exactly and whole; rows as a stream. None may stand still, or drip for ever: a body
 * that does is answered with 408. JSON has to be there in a minute. Rows may take as long as there are more of them, but
 * each minute has to bring some kB: a drip would keep its connection, and what was read before it, for good. Only the time
 * that somebody waits for the body counts; where the disk or a limit holds the reading back, the sender isn't to blame.
 *
 * A request that is refused may be answered before all of its body has come. What is still on its way is then read and
 * dropped for a while: a connection that is closed over unread bytes is reset, and takes the answer with it.
 */

import type { Readable } from "node:stream";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { SECOND } from "../core/time.ts";
import { parseExactJson } from "../rows/exact-json.ts";
import { decode } from "../rows/row-lines.ts";
import { HttpProblem, typeNotTaken } from "./problems.ts";

declare module "fastify" {
  interface FastifyRequest {
    /** Of JSON that was read whole; rows are counted as they come. */
    bodyBytes: number;
  }
  interface FastifyContextConfig {
    /** Takes rows as a stream, and nothing else; other routes take JSON, and nothing else. */
    rows?: boolean;
    /** Takes JSON as the text that came, for whoever has to prove it, of at most so many bytes. */
    textBytes?: number;
  }
}

/** Of JSON: a row and what is around it. */
const MAX_BODY_BYTES = 2 * 1024 * 1024;
const ROWS_TYPES = ["application/x-ndjson", "application/jsonl"];

export type BodyTimeouts = {
  /** Between two pieces of a body. */
  readonly idleMs: number;
  /** A whole body of JSON. */
  readonly totalMs: number;
  /** In so long rows bring MIN_ROWS_BYTES. */
  readonly paceMs: number;
  /** What comes of a body after its answer is read and dropped for so long. */
  readonly restMs: number;
};

/** Less than 70 bytes a second: no connection is so slow, and a program that makes rows so slowly can collect them. */
const MIN_ROWS_BYTES = 4_096;

const TIMEOUTS: BodyTimeouts = {
  idleMs: 15 * SECOND,
  totalMs: 60 * SECOND,
  paceMs: 60 * SECOND,
  restMs: 30 * SECOND,
};

export function readBodies(app: FastifyInstance, own: Partial<BodyTimeouts> = {}): void {
  const timeouts = { ...TIMEOUTS, ...own };
  app.decorateRequest("bodyBytes", 0);
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", async (request: FastifyRequest, body: Readable) => {
    if (request.is404) return undefined; // nobody will look at it
    requireTaken(request, { rows: false });
    const { textBytes } = request.routeOptions.config;
    const text = await readWhole(request, body, timeouts, textBytes ?? MAX_BODY_BYTES);
    return textBytes === undefined ? parseBody(text) : text;
  });
  app.addContentTypeParser(ROWS_TYPES, async (request: FastifyRequest, body: Readable) => {
    if (request.is404) return undefined;
    requireTaken(request, { rows: true });
    return inTime(body, { ...timeouts, totalMs: Number.POSITIVE_INFINITY });
  });

  // Fastify closes the connection of a request whose body it couldn't use. See above.
  app.addHook("onSend", ({ raw }, reply, _payload, done) => {
    if (!raw.complete && reply.statusCode !== 408) reply.removeHeader("connection");
    done();
  });
  app.addHook("onResponse", ({ raw }, _reply, done) => {
    done();
    if (raw.complete || raw.destroyed) return;
    raw.removeAllListeners("readable"); // whoever still waits for a piece of it would keep it from flowing
    raw.resume();
    const timer = setTimeout(() => raw.destroy(), timeouts.restMs).unref();
    for (const over of ["end", "close"]) raw.once(over, () => clearTimeout(timer));
  });
}

function requireTaken(request: FastifyRequest, { rows }: { readonly rows: boolean }): void {
  if ((request.routeOptions.config.rows === true) !== rows) throw typeNotTaken(request);
  const encoding = request.headers["content-encoding"] ?? "identity";
  if (encoding !== "identity") throw new HttpProblem(415, `bodies are taken as they are, without ${encoding}`);
}

async function readWhole(
  request: FastifyRequest,
  body: Readable,
  timeouts: BodyTimeouts,
  maxBytes: number,
): Promise<string> {
  const pieces: Buffer[] = [];
  const tooLarge = () => new HttpProblem(413, `a body of JSON has at most ${maxBytes} bytes here`);
  const announced = Number(request.headers["content-length"]);
  if (announced > maxBytes) throw tooLarge();
  // A small body mostly comes with its headers, and then there is nothing to wait for.
  const isThere = announced > 0 && body.readableLength === announced;
  const all = isThere ? [body.read() as Buffer] : inTime(body, { ...timeouts, paceMs: Number.POSITIVE_INFINITY });
  for await (const piece of all) {
    request.bodyBytes += piece.length;
    if (request.bodyBytes > maxBytes) throw tooLarge();
    pieces.push(piece);
  }
  const text = decode(Buffer.concat(pieces));
  if (text === null) throw new HttpProblem(400, "the body isn't valid UTF-8");
  return text;
}

/** Official clients send `Content-Type: application/json` without a body, too. */
function parseBody(text: string): unknown {
  if (text === "") return undefined;
  try {
    // Only a long run of digits or an exponent can be a number that isn't kept: everything else is read the fast way.
    return /\d{16}|\d[eE]/.test(text) ? parseExactJson(text) : (JSON.parse(text) as unknown);
  } catch (error) {
    const why = error instanceof RangeError ? "it is nested too deeply" : (error as Error).message.slice(0, 200);
    throw new HttpProblem(400, `the body isn't JSON that can be read: ${why}`);
  }
}

/** The pieces of a body; throws a 408 where the next one isn't there in time. Leaving it leaves the connection open. */
async function* inTime(
  body: Readable,
  { idleMs, totalMs, paceMs }: Omit<BodyTimeouts, "restMs">,
): AsyncGenerator<Buffer> {
  const pieces = body.iterator({ destroyOnReturn: false });
  const deadlineMs = performance.now() + totalMs;
  let pace = { waitedMs: 0, bytes: 0 };
  try {
    for (;;) {
      const late = Promise.withResolvers<never>();
      const askedAtMs = performance.now();
      const paceLeftMs = pace.bytes < MIN_ROWS_BYTES ? paceMs - pace.waitedMs : Number.POSITIVE_INFINITY;
      const timer = setTimeout(
        () => late.reject(new HttpProblem(408, "the body took too long to arrive")),
        Math.min(idleMs, deadlineMs - askedAtMs, paceLeftMs),
      );
      const next = await Promise.race([pieces.next(), late.promise]).finally(() => clearTimeout(timer));
      if (next.done === true) return;
      const piece = next.value as Buffer;
      pace = { waitedMs: pace.waitedMs + performance.now() - askedAtMs, bytes: pace.bytes + piece.length };
      if (pace.waitedMs >= paceMs) pace = { waitedMs: 0, bytes: 0 }; // who was too slow has been cut off by now
      yield piece;
    }
  } catch (error) {
    throw error instanceof HttpProblem ? error : new HttpProblem(400, "the body broke off");
  } finally {
    // Not awaited: where a piece never came, neither does this.
    void pieces.return?.()?.catch(() => undefined);
  }
}
