/**
 * Sends webhooks as Replicate does: the prediction as the body, signed by the Svix scheme (HMAC-SHA256 over id,
 * timestamp and body). Only the terminal message is repeated, on no connection, 4xx or 5xx, the last time about a
 * minute after the end; it keeps its id. Redirects aren't followed, so a 301 loses the message.
 *
 * Whether `aborted` sends `completed` isn't documented: here it doesn't, since who polls for it loses nothing.
 */

import { createHmac } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { Agent, request } from "undici";
import type { Books } from "./books.ts";
import { drawName } from "./chance.ts";
import { describe, type Links, type Prediction, type WebhookEvent } from "./prediction.ts";

/** "A few seconds", in the docs. */
const RECEIVER_TIMEOUT_MS = 5_000;
const UNLESS_FILTERED: readonly WebhookEvent[] = ["output", "completed"];

export type WebhookSettings = {
  readonly seed: string;
  readonly webhookSecret: string;
  readonly webhookRetriesMs: readonly number[];
};

type Message = {
  readonly url: string;
  readonly id: string;
  readonly body: string;
  readonly pausesMs: readonly number[];
};

export class Webhooks {
  readonly #settings: WebhookSettings;
  readonly #links: Links;
  readonly #books: Books;
  readonly #agent = new Agent({
    connections: 64,
    allowH2: false,
    headersTimeout: RECEIVER_TIMEOUT_MS,
    bodyTimeout: RECEIVER_TIMEOUT_MS,
    connect: { timeout: RECEIVER_TIMEOUT_MS },
  });
  readonly #closing = new AbortController();

  constructor(settings: WebhookSettings, links: Links, books: Books) {
    this.#settings = settings;
    this.#links = links;
    this.#books = books;
  }

  /** Tells of an event whoever asked for it; returns at once. */
  tell(prediction: Prediction, event: WebhookEvent): void {
    const { webhook } = prediction;
    const wanted = prediction.webhookEvents ?? UNLESS_FILTERED;
    if (webhook === null || !wanted.includes(event) || prediction.status === "aborted") return;
    const number = this.#books.webhooks.sent++;
    void this.#deliver({
      url: webhook,
      id: `msg_${drawName(this.#settings.seed, `webhook ${number}`, 27)}`,
      body: JSON.stringify(describe(prediction, this.#links, event === "output" ? "finishing" : "now")),
      pausesMs: event === "completed" ? this.#settings.webhookRetriesMs : [],
    });
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#agent.destroy();
  }

  async #deliver(message: Message): Promise<void> {
    for (const pauseMs of [0, ...message.pausesMs]) {
      if (pauseMs > 0) await pause(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      if (this.#closing.signal.aborted) return;
      const status = await this.#post(message);
      if (status !== null && status < 300) {
        this.#books.webhooks.delivered++;
        return;
      }
      if (status !== null && status < 400) break; // a redirect is taken for an answer, and goes nowhere
    }
    this.#books.webhooks.lost++;
  }

  /** The receiver's status, or null where none came. */
  async #post({ url, id, body }: Message): Promise<number | null> {
    this.#books.webhooks.tries++;
    const timestamp = String(Math.floor(Date.now() / 1_000));
    const headers = {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": `v1,${sign(this.#settings.webhookSecret, `${id}.${timestamp}.${body}`)}`,
    };
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(RECEIVER_TIMEOUT_MS)]);
      const answer = await request(url, { method: "POST", headers, body, signal, dispatcher: this.#agent });
      await answer.body.dump();
      return answer.statusCode;
    } catch {
      return null; // no connection, or no answer in time: the receiver's trouble, told by the books
    }
  }
}

/** Base64, by the key that the secret holds behind its prefix. */
function sign(secret: string, text: string): string {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  return createHmac("sha256", key).update(text).digest("base64");
}
