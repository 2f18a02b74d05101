/**
 * One request, from its arrival to the last byte of its answer; the same for the API and the file host. The handler
 * says what should be answered. This file sends it, unless a fault is armed, and books how it went.
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { setImmediate as nextTurn, setTimeout as pause } from "node:timers/promises";
import { type Answer, type Body, html } from "./answer.ts";
import type { Books, Outcome } from "./books.ts";
import { digestOf } from "./canonical.ts";
import type { Faults, RequestFault } from "./faults.ts";
import { parseObject } from "./order.ts";

/** Replicate publishes no limit for a create; 413 was seen near 80 MB. */
const LARGEST_BODY_BYTES = 64 * 1_024 * 1_024;

/** A request as handlers see it. */
export type Call = {
  readonly method: string;
  readonly url: URL;
  /** The path without its first slash, cut at the others. */
  readonly path: readonly string[];
  header(name: string): string | undefined;
  /** The body; may be asked for more than once. */
  text(): Promise<string>;
  /** Aborted when the asker hangs up. */
  readonly gone: AbortSignal;
};

/** What to do with a call, and under which names faults and books know it. */
export type Exchange = {
  readonly surface: "replicate" | "comet" | "files" | "emulator";
  readonly route: string;
  answer(call: Call): Promise<Answer> | Answer;
  /** The answer of a status without any work, for faults. */
  refuse(status: number): Answer;
};

export type Service = {
  readonly faults: Faults;
  readonly books: Books;
  /** Aborted when the emulator closes. */
  readonly closing: AbortSignal;
};

export async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  find: (call: Call) => Exchange,
  service: Service,
): Promise<void> {
  const call = callOf(request, response);
  const exchange = find(call);
  const book = (outcome: Outcome): void => service.books.answered(exchange.surface, exchange.route, outcome);

  const subject = service.faults.isDrawn(exchange.route) ? await subjectOf(exchange, call) : "";
  const strike = service.faults.strike(exchange.route, subject);
  const { fault } = strike;
  if (fault?.kind === "drop-before-read") {
    book("dropped");
    request.socket.destroy();
    return;
  }

  const answer = hasEffect(fault) ? await answerOf(exchange, call, request) : null;
  if (exchange.route === "create" && answer?.status === 429) {
    strike.withdraw(); // it comes again, and how often depends on the machine
    book(answer.status);
    await send(response, answer);
    return;
  }
  switch (fault?.kind) {
    case "drop-after-create":
      book("dropped");
      request.socket.destroy();
      return;
    case "silence":
      book("silent");
      return;
    case "status": {
      const instead = exchange.refuse(fault.status);
      book(instead.status);
      await send(response, instead);
      return;
    }
    case "late":
      await pause(fault.delayMs, undefined, { signal: AbortSignal.any([service.closing, call.gone]) }).catch(
        () => undefined,
      );
      if (call.gone.aborted) {
        book("unheard");
        return;
      }
      break;
    case "half-body":
    case "page":
    case "empty":
    case undefined:
      break;
  }
  if (answer === null) return;
  book(answer.status);
  await send(response, spoiled(answer, fault));
}

/** The same answer, with the body that a fault makes of it. */
function spoiled(answer: Answer, fault: RequestFault | null): Answer {
  if (fault?.kind === "half-body") return brokenOff(answer);
  if (fault?.kind !== "page" && fault?.kind !== "empty") return answer;
  return { ...answer, body: { kind: "whole", bytes: Buffer.from(fault.kind === "page" ? PAGE : "") } };
}

const PAGE =
  "<!DOCTYPE html>\n<html><head><title>Just a moment…</title></head><body>Checking your browser.</body></html>\n";

function hasEffect(fault: RequestFault | null): boolean {
  return (fault?.kind !== "status" && fault?.kind !== "silence") || fault.created;
}

/** What a request is about, for chance: a create its input, everything else its path. */
async function subjectOf(exchange: Exchange, call: Call): Promise<string> {
  if (exchange.route !== "create") return call.url.pathname;
  const text = await call.text().catch(() => ""); // whoever answers meets the same error
  return digestOf(parseObject(text)?.["input"]);
}

async function answerOf(exchange: Exchange, call: Call, request: IncomingMessage): Promise<Answer> {
  try {
    return await exchange.answer(call);
  } catch (error) {
    if (error instanceof BodyTooLarge) return html(413, "Request Entity Too Large");
    if (!request.complete) return html(499, "Client Closed Request"); // it broke off in the middle, and hears nothing
    throw error;
  }
}

async function send(response: ServerResponse, answer: Answer): Promise<void> {
  const { body } = answer;
  const sizeBytes = body.kind === "whole" ? body.bytes.length : body.sizeBytes;
  response.writeHead(answer.status, {
    ...answer.headers,
    ...(sizeBytes !== null && { "content-length": String(sizeBytes) }),
  });
  if (body.kind === "whole" || response.req.method === "HEAD") {
    response.end(body.kind === "whole" ? body.bytes : undefined);
    return;
  }
  // It fails when the asker hangs up, or the body breaks off; there is nobody left to tell.
  await pipeline(Readable.from(body.chunks), response).catch(() => undefined);
}

/** The same answer with a body that promises its length, and ends after half of it. */
function brokenOff(answer: Answer): Answer {
  const { body } = answer;
  const sizeBytes = body.kind === "whole" ? body.bytes.length : (body.sizeBytes ?? 0);
  return { ...answer, body: { kind: "stream", sizeBytes, chunks: firstHalf(body, Math.floor(sizeBytes / 2)) } };
}

async function* firstHalf(body: Body, halfBytes: number): AsyncGenerator<Buffer> {
  let left = halfBytes;
  for await (const chunk of body.kind === "whole" ? [body.bytes] : body.chunks) {
    if (chunk.length >= left) {
      yield chunk.subarray(0, left);
      await nextTurn(); // lets what was written leave
      throw new Error("the body breaks off here, as armed");
    }
    yield chunk;
    left -= chunk.length;
  }
}

class BodyTooLarge extends Error {
  override readonly name = "BodyTooLarge";
}

function callOf(request: IncomingMessage, response: ServerResponse): Call {
  const url = URL.parse(`http://emulator${request.url}`) ?? new URL("http://emulator/");
  const gone = new AbortController();
  let text: Promise<string> | null = null;
  response.once("close", () => gone.abort());
  return {
    method: request.method ?? "GET",
    url,
    path: url.pathname.slice(1).split("/"),
    header(name) {
      const value = request.headers[name];
      return Array.isArray(value) ? value.join(", ") : value;
    },
    text: () => (text ??= readText(request)),
    gone: gone.signal,
  };
}

async function readText(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes <= LARGEST_BODY_BYTES) chunks.push(chunk); // else read on, so that the answer can be heard
  }
  if (sizeBytes > LARGEST_BODY_BYTES) throw new BodyTooLarge(`request body of ${sizeBytes} bytes`);
  return Buffer.concat(chunks).toString("utf8");
}
