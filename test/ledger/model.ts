/**
 * What the ledger's scripts promise of a batch, written down once more without Redis: the life of its items, and what people
 * and misfortune do to it. All of its rows have been fed.
 */

import {
  type ItemByte,
  type ItemEnd,
  type ItemState,
  type ItemStep,
  isEnd,
  MAX_ATTEMPT,
  stepItem,
} from "../../src/core/item.ts";
import type { PredictionId } from "../../src/core/prediction.ts";
import { MINUTE } from "../../src/core/time.ts";
import type { HoldAnswer, LostSpan, MoveAnswer } from "../../src/ledger/ledger.ts";
import { NOON } from "../support/stages.ts";

/** What the batch says of failures of the provider's own. */
export const RETRY_FAILED = 3;
const SKEW_MS = MINUTE / 2;

/** A step of an item, by whoever holds it or is late. */
export type Move = {
  readonly index: number;
  readonly step: ItemStep;
  readonly nonce?: string | undefined;
  /** Of `bind` and `adopt`. */
  readonly prediction?: PredictionId | undefined;
  readonly reuse?: boolean;
  readonly handBack?: boolean;
  /** What an end adds to the sums. */
  readonly amount?: bigint;
  /** With `fail`: the provider's own failure, recorded then (ms). */
  readonly retryAtMs?: number | null;
};

/** What is done to the account, or to the batch as a whole. */
export type Hold = "pause" | "resume" | "pause batch" | "resume batch" | "cancel batch";

/** `isNext`: from where the last stretch ended, as a feed that lives does; else from where the walk stands. */
export type Stretch = { readonly limit: number; readonly isNext: boolean };

export type MarkName = "wake" | "cancel" | "redriven";

export type ModelItem = {
  byte: ItemByte;
  nonce: string | null;
  prediction: PredictionId | null;
  /** Between which moments its intent was written; null: it has none. */
  intent: LostSpan | null;
  place: "open" | "unclear" | null;
  returned: boolean;
  marks: Set<MarkName>;
  redrivenAtMs: number;
};

export class Model {
  readonly items: ModelItem[] = [];
  opened = true;
  /** By when the Redis before this one was lost; null: none was. */
  lostToMs: number | null = null;
  paused = false;
  batchPaused = false;
  canceled = false;
  unfed = false;
  walked = 0;
  next = 0;
  walkOver = false;
  sum = 0n;
  files = 0;
  /** Who has which prediction, also after its end. */
  readonly held = new Map<PredictionId, { readonly index: number; readonly attempt: number }>();

  constructor(attempts: readonly number[]) {
    for (const attempt of attempts) this.#add(attempt);
  }

  // ── what befalls one item ───────────────────────────────────────────────────

  move(move: Move, attempt: number): MoveAnswer["answer"] {
    const item = this.at(move.index);
    const claim = move.step === "claim";
    const { answer, item: next } = stepItem(item.byte, attempt, move.step);
    if (item.byte.attempt !== attempt) return "lost";
    if (claim && item.byte.state === "claimed" && item.nonce === move.nonce) return "moved";
    if (!claim && move.nonce !== undefined && item.nonce !== move.nonce) return "lost";
    if (answer === "already") {
      return claim || (move.prediction !== undefined && item.prediction !== move.prediction) ? "lost" : "already";
    }
    if (answer === "lost") return "lost";
    if ((claim || move.step === "withdraw") && !this.opened) return "unopened";
    const waitsAgain = next.state === "waiting";
    if ((claim && this.canceled) || (waitsAgain && (this.canceled || item.marks.has("cancel")))) {
      this.#end(item, "canceled");
      return "canceled";
    }
    if (claim && (this.paused || this.batchPaused)) {
      this.#giveToFeed(item);
      return "paused";
    }
    const holder = move.prediction && this.held.get(move.prediction);
    const isAnothers = holder?.index !== move.index || (holder.attempt !== attempt && move.reuse !== true);
    if (holder !== undefined && isAnothers) return "taken";
    if (isEnd(next.state)) return this.#conclude(item, next.state, move);

    const was = item.byte.state;
    item.byte = next;
    item.place = next.state === "unclear" ? "unclear" : "open";
    if (claim) Object.assign(item, { nonce: move.nonce ?? null, intent: { fromMs: NOON, toMs: NOON } });
    if (move.prediction !== undefined) {
      item.prediction = move.prediction;
      this.held.set(move.prediction, { index: move.index, attempt });
    }
    if (was === "waiting" && !claim) this.#takeFromFeed(item);
    if (waitsAgain) this.#forget(item);
    if (waitsAgain && (move.handBack === true || was === "unclear")) this.#giveToFeed(item);
    return "moved";
  }

  /** Answers where it stands. */
  mark(index: number, mark: MarkName, value: number): ItemState {
    const item = this.at(index);
    if (this.#hasHash(item)) item.marks.add(mark);
    if (this.#hasHash(item) && mark === "redriven") item.redrivenAtMs = value;
    return item.byte.state;
  }

  takeMarks(index: number): { readonly woken: boolean; readonly cancel: boolean; readonly byList: boolean } {
    const item = this.at(index);
    if (!this.#hasHash(item)) return { woken: false, cancel: false, byList: false };
    return { woken: item.marks.delete("wake"), cancel: item.marks.has("cancel") || this.canceled, byList: false };
  }

  /** Answers how many were opened; null while the batch is being canceled. `ended`: the attempt that is said to have. */
  redrive(index: number, ended: number): number | null {
    if (this.canceled && (!this.walkOver || this.left > 0)) return null;
    // It takes the cancel back, and another one walks anew.
    if (this.canceled) Object.assign(this, { canceled: false, walked: 0, next: 0, walkOver: false });
    const item = this.at(index);
    if (ended !== item.byte.attempt || !isEnd(item.byte.state) || ended === MAX_ATTEMPT) return 0;
    this.#openAttempt(item, null);
    return 1;
  }

  // ── what befalls all ────────────────────────────────────────────────────────

  enqueue(): void {
    this.#add(1);
    this.unfed = !this.batchPaused && this.items.some((item) => item.returned);
  }

  hold(act: Hold): HoldAnswer | boolean {
    switch (act) {
      case "pause":
      case "resume": {
        const changes = this.paused !== (act === "pause");
        this.paused = act === "pause";
        return changes;
      }
      case "cancel batch":
        if (this.canceled) return "already";
        Object.assign(this, { canceled: true, batchPaused: false, unfed: false });
        return "done";
      case "pause batch":
        if (this.canceled) return "over";
        if (this.batchPaused) return "already";
        Object.assign(this, { batchPaused: true, unfed: false });
        return "done";
      case "resume batch":
        if (this.canceled) return "over";
        if (!this.batchPaused) return "already";
        Object.assign(this, { batchPaused: false, unfed: this.items.some((item) => item.returned) });
        return "done";
      default:
        return act satisfies never;
    }
  }

  /** Answers the running items of the stretch. */
  walk({ limit, isNext }: Stretch): readonly number[] {
    if (!this.canceled) return [];
    this.walked = Math.max(this.walked, isNext ? this.next : 0);
    this.next = Math.min(this.walked + limit, this.items.length);
    const stretch = this.items.slice(this.walked, this.next);
    for (const item of stretch) {
      if (item.byte.state === "waiting")
        Object.assign(item, { byte: { ...item.byte, state: "canceled" }, place: null });
    }
    if (this.walked === this.items.length) {
      for (const item of this.items) item.returned = false;
      Object.assign(this, { walkOver: true, unfed: false });
    }
    return stretch.flatMap((item, at) => (item.byte.state === "running" ? [this.walked + at] : []));
  }

  // ── what befalls Redis ──────────────────────────────────────────────────────

  /** Another one serves the data, which may lack the last writes. */
  lose(): void {
    this.opened = false;
  }

  open(lost: LostSpan | null): void {
    this.opened = true;
    if (lost !== null) this.lostToMs = lost.toMs;
  }

  /** Answers how many are unclear for it; null: the account is open by now. */
  doubtLost(indexes: readonly number[], lost: LostSpan): number | null {
    if (this.opened) return null;
    const doubted = indexes.filter((index) => ["waiting", "claimed", "unclear"].includes(this.at(index).byte.state));
    for (const item of doubted.map((index) => this.at(index))) {
      item.byte = { ...item.byte, state: "unclear" };
      // What is known already of when it was sent stays.
      item.intent = { fromMs: item.intent?.fromMs ?? lost.fromMs, toMs: lost.toMs };
      Object.assign(item, { nonce: `lost-${lost.toMs}`, place: "unclear", returned: false });
    }
    return doubted.length;
  }

  // ── what is asked of it ─────────────────────────────────────────────────────

  at(index: number): ModelItem {
    const item = this.items[index];
    if (item === undefined) throw new Error("no such item");
    return item;
  }

  count(state: ItemState): number {
    return this.items.filter((item) => item.byte.state === state).length;
  }

  get left(): number {
    return this.items.filter((item) => !isEnd(item.byte.state)).length;
  }

  // ── parts of it ─────────────────────────────────────────────────────────────

  #add(attempt: number): void {
    this.items.push({
      byte: { attempt, state: "waiting" },
      nonce: null,
      prediction: null,
      intent: null,
      place: null,
      returned: false,
      marks: new Set(),
      redrivenAtMs: 0,
    });
  }

  #conclude(item: ModelItem, end: ItemEnd, { step, amount = 0n, retryAtMs = null }: Move): "moved" | "retried" {
    const { attempt } = item.byte;
    const recordedAtMs = item.marks.has("redriven") ? item.redrivenAtMs : retryAtMs;
    const isStated = !this.canceled && !item.marks.has("cancel") && attempt <= RETRY_FAILED;
    const retries = recordedAtMs !== null && attempt < MAX_ATTEMPT && (item.marks.has("redriven") || isStated);
    this.#end(item, end);
    if (retries) this.#openAttempt(item, this.#lostSince(recordedAtMs));
    if (step !== "withdraw") Object.assign(this, { sum: this.sum + amount, files: this.files + 1 });
    return retries ? "retried" : "moved";
  }

  /** Between which moments Redis may have lost that the next attempt was bought; null: it surely hasn't. */
  #lostSince(recordedAtMs: number): LostSpan | null {
    if (!this.opened) return { fromMs: recordedAtMs, toMs: NOON };
    if (this.lostToMs === null || recordedAtMs > this.lostToMs + SKEW_MS) return null;
    return { fromMs: Math.min(recordedAtMs, this.lostToMs), toMs: this.lostToMs };
  }

  #openAttempt(item: ModelItem, lost: LostSpan | null): void {
    item.byte = { attempt: item.byte.attempt + 1, state: lost === null ? "waiting" : "unclear" };
    if (lost === null) this.#giveToFeed(item);
    else Object.assign(item, { place: "unclear", nonce: `lost-${lost.toMs}`, intent: lost });
  }

  #end(item: ModelItem, state: ItemState): void {
    Object.assign(item, { byte: { ...item.byte, state }, place: null });
    this.#forget(item);
    this.#takeFromFeed(item);
  }

  #forget(item: ModelItem): void {
    Object.assign(item, { nonce: null, prediction: null, intent: null, marks: new Set() });
  }

  /** What was recalled without a prediction has none: no word can be left in it. */
  #hasHash({ nonce, prediction }: ModelItem): boolean {
    return nonce !== null || prediction !== null;
  }

  #takeFromFeed(item: ModelItem): void {
    const wasReturned = item.returned;
    item.returned = false;
    if (wasReturned && !this.items.some((one) => one.returned)) this.unfed = false;
  }

  #giveToFeed(item: ModelItem): void {
    Object.assign(item, { place: null, returned: true });
    this.unfed = !this.batchPaused;
  }
}
