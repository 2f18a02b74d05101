/**
 * Calls a client's webhook, once. It has arrived when the receiver answers 2xx in time; anything else is a WebhookError.
 *
 * The URL is a client's, so it is asked over guarded connections alone: any public host over https, beside those that
 * OUTLAST_WEBHOOK_HOSTS names. A redirect isn't followed, since it would lose the call or lead it to a host that nobody
 * asked for. What the receiver writes into its answer says nothing to us, and is let go of.
 */

import { type Dispatcher, request } from "undici";
import {
  discard,
  type GuardedAgent,
  type GuardedAgentOptions,
  openGuardedAgent,
  RefusedAddress,
} from "../bucket/guarded-agent.ts";
import { SECOND } from "../core/time.ts";
import type { SignedCall } from "./sign.ts";

/**
 * - `refused-host`: the address isn't one that may be called, or leads to one that isn't.
 * - `gone`: the receiver said 410, and so that it wants no more.
 * - `transient`: not taken this time.
 *
 * Messages name the webhook by its host: what follows may hold a token.
 */
export type WebhookErrorKind = "refused-host" | "gone" | "transient";

export class WebhookError extends Error {
  override readonly name = "WebhookError";
  readonly kind: WebhookErrorKind;

  constructor(kind: WebhookErrorKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}

export type WebhookAgent = GuardedAgent & {
  /** From the call to the last of what is taken in of the answer. */
  readonly answerMs: number;
};

export type WebhookAgentOptions = Pick<GuardedAgentOptions, "hosts" | "resolve" | "ca"> & {
  readonly answerMs?: number;
};

/** Replicate gives a receiver "a few seconds" (its webhooks page); slow ones are given a few more. */
const ANSWER_MS = 10 * SECOND;

export function openWebhookAgent({ answerMs = ANSWER_MS, ...options }: WebhookAgentOptions): WebhookAgent {
  const timeouts = { connectMs: answerMs, headersMs: answerMs, idleMs: answerMs };
  return { ...openGuardedAgent({ ...options, setting: "OUTLAST_WEBHOOK_HOSTS", timeouts }), answerMs };
}

/** Resolves when the receiver has taken the call. Throws WebhookError, or the signal's reason. */
export async function deliver(url: string, call: SignedCall, agent: WebhookAgent, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const target = URL.parse(url);
  if (target === null) throw new WebhookError("refused-host", "the webhook's address isn't a URL");
  const verdict = agent.judge(target);
  if (verdict.kind === "refused") {
    throw new WebhookError("refused-host", `${called(target)} is refused: ${verdict.reason}`);
  }

  const deadline = AbortSignal.timeout(agent.answerMs);
  let answer: Dispatcher.ResponseData;
  try {
    answer = await request(target, {
      dispatcher: agent.dispatcher,
      method: "POST",
      headers: { "content-type": "application/json", "user-agent": "outlast", ...call.headers },
      body: call.body,
      signal: AbortSignal.any([signal, deadline]),
    });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw explained(error, target, agent.answerMs, deadline);
  }
  discard(answer);
  const fault = statusFault(target, answer.statusCode);
  if (fault !== null) throw fault;
}

function explained(error: unknown, url: URL, answerMs: number, deadline: AbortSignal): WebhookError {
  if (error instanceof RefusedAddress) {
    return new WebhookError("refused-host", `${called(url)} is refused: ${error.message}`);
  }
  if (deadline.aborted) {
    return new WebhookError("transient", `${called(url)} wasn't answered within ${answerMs / SECOND} s`);
  }
  return new WebhookError("transient", `${called(url)} got no answer (${wordOf(error)})`, error);
}

function statusFault(url: URL, status: number): WebhookError | null {
  if (status >= 200 && status < 300) return null;
  const answered = `${called(url)} was answered ${status}`;
  if (status === 410) return new WebhookError("gone", `${answered}: its receiver is gone, so it isn't called again`);
  if (status >= 300 && status < 400) {
    return new WebhookError(
      "transient",
      `${answered}, a redirect, which isn't followed: the address itself must answer 2xx`,
    );
  }
  return new WebhookError("transient", `${answered}, and not 2xx`);
}

function called(url: URL): string {
  return `the webhook at ${url.protocol}//${url.host}`;
}

function wordOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string" ? error.code : error.message.slice(0, 100);
}
