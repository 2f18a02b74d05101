/**
 * The lives of predictions, each moved by a timer of its own:
 *
 *   starting ──queue──► processing ──run──► succeeded | failed ──expiry──► data removed
 *      │                     │
 *      │ deadline: aborted   │ deadline, or cancel: canceled
 *      └ cancel: canceled
 *
 * When each step is due is settled at creation, and what is shown is when it was due, not when its timer came round; so
 * run times are the seed's whatever the machine does. They, its id and its luck are drawn for the input and how many-th
 * of it on its account it is, so they are the same in whatever order inputs arrive. A prediction holds its input and a
 * few numbers: outputs are made from the input when they are asked for. After its data is removed the record stays, as
 * at Replicate.
 */

import type { Account } from "./accounts.ts";
import { drawDurationMs, drawFraction, drawName } from "./chance.ts";
import type { Settings } from "./options.ts";
import { isTerminal, type Prediction, type Status, type WebhookEvent } from "./prediction.ts";
import { Turns } from "./turns.ts";

export type Order = Pick<
  Prediction,
  "account" | "model" | "version" | "deployment" | "input" | "digest" | "webhook" | "webhookEvents" | "foreign"
> & {
  /** From creation on; null for none. */
  readonly cancelAfterMs: number | null;
};

/** Node's timers hold no more, 24 days; what is due later doesn't happen. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Told of every step, as it happens. */
export type Observer = (prediction: Prediction, event: WebhookEvent) => void;

export class Predictions {
  readonly #settings: Settings;
  readonly #observe: Observer;
  readonly #byId = new Map<string, Prediction>();
  readonly #timers = new Map<Prediction, NodeJS.Timeout>();
  readonly #waiting = new Map<Prediction, Set<() => void>>();
  readonly #turns = new Turns();
  #lastCreatedAtUs = 0;

  constructor(settings: Settings, observe: Observer) {
    this.#settings = settings;
    this.#observe = observe;
  }

  create({ cancelAfterMs, ...order }: Order): Prediction {
    const { seed, queueMs, runMs } = this.#settings;
    const run = `${order.foreign ? "foreign " : ""}${order.account.name} ${order.digest}`;
    const which = `${run} ${this.#turns.take(run)}`;
    const nowMs = Date.now();
    this.#lastCreatedAtUs = Math.max(nowMs * 1_000, this.#lastCreatedAtUs + 1);
    const prediction: Prediction = {
      ...order,
      id: drawName(seed, `prediction ${which}`, 26),
      createdAtUs: this.#lastCreatedAtUs,
      deadlineMs: cancelAfterMs === null ? null : nowMs + cancelAfterMs,
      luck: drawFraction(seed, `luck ${which}`),
      status: "starting",
      startedAtMs: null,
      completedAtMs: null,
      error: null,
      dataRemoved: false,
    };
    this.#byId.set(prediction.id, prediction);
    order.account.predictions.push(prediction);

    const startMs = nowMs + drawDurationMs(seed, `queue ${which}`, queueMs);
    const endMs = startMs + (order.model.runMs(order.input) ?? drawDurationMs(seed, `run ${which}`, runMs));
    this.#plan(prediction, startMs, endMs);
    return prediction;
  }

  get(account: Account, id: string): Prediction | undefined {
    const prediction = this.#byId.get(id);
    return prediction?.account === account ? prediction : undefined;
  }

  /** For the file host, which doesn't ask who is there. */
  find(id: string): Prediction | undefined {
    return this.#byId.get(id);
  }

  all(): MapIterator<Prediction> {
    return this.#byId.values();
  }

  /** A prediction that has ended keeps its end. */
  cancel(prediction: Prediction): void {
    if (isTerminal(prediction.status)) return;
    this.#end(prediction, "canceled", Math.max(Date.now(), prediction.startedAtMs ?? 0));
  }

  /** Until it has ended, or the time or the asker is gone. */
  async waitForEnd(prediction: Prediction, forMs: number, signal: AbortSignal): Promise<void> {
    if (isTerminal(prediction.status) || signal.aborted) return;
    const waiting = this.#waiting.get(prediction) ?? new Set();
    this.#waiting.set(prediction, waiting);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, forMs);
    waiting.add(resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    clearTimeout(timer);
    waiting.delete(resolve);
  }

  close(): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    for (const waiting of this.#waiting.values()) for (const resolve of waiting) resolve();
  }

  #plan(prediction: Prediction, startMs: number, endMs: number): void {
    const deadlineMs = prediction.deadlineMs ?? Infinity;
    if (deadlineMs < startMs) {
      this.#at(prediction, deadlineMs, () => this.#end(prediction, "aborted", deadlineMs));
      return;
    }
    this.#at(prediction, startMs, () => {
      prediction.status = "processing";
      prediction.startedAtMs = startMs;
      this.#observe(prediction, "start");
      this.#observe(prediction, "logs");
      if (deadlineMs < endMs) this.#at(prediction, deadlineMs, () => this.#end(prediction, "canceled", deadlineMs));
      else this.#at(prediction, endMs, () => this.#finish(prediction, endMs));
    });
  }

  #finish(prediction: Prediction, endMs: number): void {
    const failure = prediction.model.failure(prediction.input, prediction.luck);
    if (failure !== null) prediction.error = failure.error;
    this.#end(prediction, failure === null ? "succeeded" : "failed", endMs);
  }

  #end(prediction: Prediction, status: Status, endMs: number): void {
    prediction.status = status;
    prediction.completedAtMs = endMs;
    if (status === "succeeded") this.#observe(prediction, "output");
    this.#observe(prediction, "completed");
    const expiresMs = Math.floor(prediction.createdAtUs / 1_000) + this.#settings.expiryMs;
    this.#at(prediction, expiresMs, () => this.#removeData(prediction));
    for (const resolve of this.#waiting.get(prediction) ?? []) resolve();
    this.#waiting.delete(prediction);
  }

  #removeData(prediction: Prediction): void {
    this.#timers.delete(prediction);
    prediction.input = {};
    prediction.dataRemoved = true;
  }

  /** One timer a prediction: a new one takes the place of the last. */
  #at(prediction: Prediction, ms: number, step: () => void): void {
    clearTimeout(this.#timers.get(prediction));
    const inMs = Math.max(0, ms - Date.now());
    if (inMs > LONGEST_TIMER_MS) this.#timers.delete(prediction);
    else this.#timers.set(prediction, setTimeout(step, inMs));
  }
}
