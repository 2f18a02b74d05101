/**
 * Whether providers can reach this fleet under its public URL: a worker calls a route of its own servers there, in the
 * way a webhook is sent, and wants an answer that only they can give. Until one has come no webhook is asked for, since
 * one that can't arrive costs the provider its retries, and us the belief that it will.
 *
 * Called at the start, soon again while servers may be starting too, then every minute until it passes, and now and then
 * after that. What went wrong is told once, and again when it changes.
 */

import { createHmac, randomUUID, timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import { MINUTE, SECOND } from "../core/time.ts";

export const SELF_CALL_PATH = "/v1/webhooks/self";

export type SelfCallDeps = {
  /** Without a slash at its end. */
  readonly publicUrl: string;
  /** Which the whole fleet knows, and nobody else. */
  readonly secret: () => Promise<Buffer>;
  readonly info: (message: string) => void;
  readonly warn: (message: string) => void;
  readonly timing?: Partial<typeof TIMING>;
};

export type SelfCall = {
  /** Whether the last call came through. */
  readonly passes: () => boolean;
  close(): Promise<void>;
};

const TIMING = {
  answerMs: 10 * SECOND,
  /** After the first failures, and then for ever by the last one. */
  pausesMs: [SECOND, 3 * SECOND, 10 * SECOND, MINUTE] as readonly number[],
  /** How many of them go untold: a server may take so long to start. */
  untold: 2,
  recheckMs: 5 * MINUTE,
};

const LONGEST_ANSWER_BYTES = 4_096;

/** What a server answers to a challenge. */
export function selfCallAnswer(secret: Buffer, challenge: string): string {
  return createHmac("sha256", secret).update(challenge).digest("base64url");
}

export function openSelfCall(deps: SelfCallDeps): SelfCall {
  const timing = { ...TIMING, ...deps.timing };
  const closing = new AbortController();
  const dispatcher = new Agent({ connections: 1, allowH2: false, connect: { timeout: timing.answerMs } });
  const url = `${deps.publicUrl}${SELF_CALL_PATH}`;
  let passes = false;

  async function run(): Promise<void> {
    let failures = 0;
    let told: string | null = null;
    while (!closing.signal.aborted) {
      const fault = await faultOf(url, deps.secret, { dispatcher, answerMs: timing.answerMs, signal: closing.signal });
      if (closing.signal.aborted) return;
      if (fault === null && !passes) deps.info(`providers are asked to call webhooks at ${deps.publicUrl}`);
      passes = fault === null;
      failures = passes ? 0 : failures + 1;
      if (passes) told = null;
      if (fault !== null && failures > timing.untold && fault !== told) {
        told = fault;
        deps.warn(
          `no webhooks are asked for, polls do without: POST ${url} ${fault}; make OUTLAST_PUBLIC_URL the address by ` +
            "which the internet reaches `outlast serve` of this fleet, or leave it out",
        );
      }
      const pauseMs = passes ? timing.recheckMs : (timing.pausesMs[failures - 1] ?? timing.pausesMs.at(-1) ?? MINUTE);
      await sleep(pauseMs, undefined, { signal: closing.signal, ref: false }).catch(() => undefined);
    }
  }
  const running = run();

  return {
    passes: () => passes,
    async close() {
      closing.abort();
      await running;
      await dispatcher.destroy();
    },
  };
}

/** What came back instead of the right answer; null: that. */
async function faultOf(
  url: string,
  secretOf: SelfCallDeps["secret"],
  {
    dispatcher,
    answerMs,
    signal,
  }: { readonly dispatcher: Dispatcher; readonly answerMs: number; readonly signal: AbortSignal },
): Promise<string | null> {
  const body = JSON.stringify({ challenge: randomUUID() });
  const deadline = AbortSignal.timeout(answerMs);
  try {
    const wanted = Buffer.from(selfCallAnswer(await secretOf(), body));
    const answer = await request(url, {
      dispatcher,
      method: "POST",
      headers: { "content-type": "application/json", "user-agent": "outlast" },
      body,
      signal: AbortSignal.any([signal, deadline]),
    });
    const given = Buffer.from(await firstBytes(answer.body));
    if (answer.statusCode >= 300 && answer.statusCode < 400) {
      return `was answered ${answer.statusCode}, a redirect, which providers don't follow`;
    }
    if (answer.statusCode !== 200) return `was answered ${answer.statusCode}`;
    if (given.length === wanted.length && timingSafeEqual(given, wanted)) return null;
    return "was answered by somebody else, or by a fleet on another Redis";
  } catch (error) {
    if (deadline.aborted) return `wasn't answered within ${answerMs / SECOND} s`;
    return `got no answer (${wordOf(error)})`;
  }
}

/** Leaving the loop ends the connection. */
async function firstBytes(body: AsyncIterable<Uint8Array>): Promise<string> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of body) {
    pieces.push(piece);
    bytes += piece.byteLength;
    if (bytes > LONGEST_ANSWER_BYTES) break;
  }
  return Buffer.concat(pieces).toString("latin1");
}

function wordOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string" ? error.code : error.message.slice(0, 100);
}
