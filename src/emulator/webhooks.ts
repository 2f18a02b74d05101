/**
 * Sends webhooks as Replicate does: the prediction as the body, signed by the Svix scheme (HMAC-SHA256 over id,
 * timestamp and body). Only the terminal message is repeated, on no connection, 4xx or 5xx, the last time about a
 * minute after the end; it keeps its id. Redirects aren't followed, so a 301 loses the message. An armed fault drops,
 * delays or repeats the messages about a prediction, or sends a forged one beside them; that one isn't repeated.
 *
 * Whether `aborted` sends `completed` isn't documented: here it doesn't, since who polls for it loses nothing.
 */

import { setTimeout as pause } from "node:timers/promises";
import { Agent, request } from "undici";
import type { Books } from "./books.ts";
import { drawName } from "./chance.ts";
import type { Faults, MessageFault } from "./faults.ts";
import { forge } from "./forgery.ts";
import { describe, type Links, type Prediction, type WebhookEvent } from "./prediction.ts";
import { signedHeaders } from "./signature.ts";

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
  /** Before its first try and the repetitions. */
  readonly pausesMs: readonly number[];
};

export class Webhooks {
  readonly #settings: WebhookSettings;
  readonly #links: Links;
  readonly #books: Books;
  readonly #faults: Faults;
  /** What happens to the messages about a prediction, from its first event to its last. */
  readonly #fates = new Map<Prediction, MessageFault | null>();
  readonly #agent = new Agent({
    connections: 64,
    allowH2: false,
    headersTimeout: RECEIVER_TIMEOUT_MS,
    bodyTimeout: RECEIVER_TIMEOUT_MS,
    connect: { timeout: RECEIVER_TIMEOUT_MS },
  });
  readonly #closing = new AbortController();

  constructor(settings: WebhookSettings, links: Links, books: Books, faults: Faults) {
    this.#settings = settings;
    this.#links = links;
    this.#books = books;
    this.#faults = faults;
  }

  /** Tells of an event whoever asked for it; returns at once. */
  tell(prediction: Prediction, event: WebhookEvent): void {
    const { webhook } = prediction;
    if (webhook === null) return;
    const fate = this.#fateOf(prediction, webhook);
    if (event === "completed") this.#fates.delete(prediction);
    const wanted = prediction.webhookEvents ?? UNLESS_FILTERED;
    if (!wanted.includes(event) || prediction.status === "aborted") return;
    const { webhooks } = this.#books;
    if (fate?.kind === "drop") {
      webhooks.dropped++;
      return;
    }
    if (fate?.kind === "late") webhooks.late++;
    const message = {
      url: webhook,
      id: `msg_${drawName(this.#settings.seed, `webhook ${prediction.id} ${event}`, 27)}`,
      body: JSON.stringify(describe(prediction, this.#links, event === "output" ? "finishing" : "now")),
      pausesMs: [
        fate?.kind === "late" ? fate.delayMs : 0,
        ...(event === "completed" ? this.#settings.webhookRetriesMs : []),
      ],
    };
    const times = fate?.kind === "repeat" ? fate.times : 1;
    webhooks.sent += times;
    webhooks.repeated += times - 1;
    for (let time = 0; time < times; time++) void this.#deliver(message);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#agent.destroy();
  }

  #fateOf(prediction: Prediction, url: string): MessageFault | null {
    const known = this.#fates.get(prediction);
    if (known !== undefined) return known;
    const fate = this.#faults.strikeMessages(prediction.id);
    this.#fates.set(prediction, fate);
    if (fate?.kind === "forge") void this.#forge(prediction, url);
    return fate;
  }

  async #forge(prediction: Prediction, url: string): Promise<void> {
    this.#books.webhooks.forged++;
    const { seed, webhookSecret } = this.#settings;
    const { headers, body } = forge(describe(prediction, this.#links), seed, webhookSecret);
    const status = await this.#post(url, headers, body);
    if (status !== null && status < 300) this.#books.webhooks.forged_taken++;
  }

  async #deliver(message: Message): Promise<void> {
    const { url, id, body } = message;
    for (const pauseMs of message.pausesMs) {
      if (pauseMs > 0) await pause(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => undefined);
      if (this.#closing.signal.aborted) return;
      this.#books.webhooks.tries++;
      const status = await this.#post(url, signedHeaders(this.#settings.webhookSecret, id, body), body);
      if (status !== null && status < 300) {
        this.#books.webhooks.delivered++;
        return;
      }
      if (status !== null && status < 400) break; // a redirect is taken for an answer, and goes nowhere
    }
    this.#books.webhooks.lost++;
  }

  /** The receiver's status, or null where none came. */
  async #post(url: string, headers: Readonly<Record<string, string>>, body: string): Promise<number | null> {
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
