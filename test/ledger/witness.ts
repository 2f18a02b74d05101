/**
 * Holds the ledger to what must be true of any history, without a model of it: an attempt's end never changes, counts are
 * those of the items and add up, an attempt is paid for once, and the money adds up.
 */

import { expect } from "vitest";
import type { Batch } from "../../src/core/batch.ts";
import { ITEM_STATES, type ItemByte, isEnd } from "../../src/core/item.ts";
import { type AttemptRef, errandId } from "../../src/core/naming.ts";
import type { PredictionId } from "../../src/core/prediction.ts";
import type { Ledger, MoveAnswer } from "../../src/ledger/ledger.ts";
import type { Move } from "./model.ts";

export class Witness {
  readonly #ledger: Ledger;
  readonly #batch: Batch;
  #seen: readonly ItemByte[] = [];
  /** By attempt: what its end cost. */
  readonly #paid = new Map<string, bigint>();
  readonly #bound = new Map<PredictionId, AttemptRef>();

  constructor(ledger: Ledger, batch: Batch) {
    this.#ledger = ledger;
    this.#batch = batch;
  }

  /** What the ledger answered to a step. */
  hear(ref: AttemptRef, { step, amount = 0n, prediction, reuse }: Move, answer: MoveAnswer["answer"]): void {
    if (answer !== "moved" && answer !== "retried") return;
    if (step === "save" || step === "fail" || step === "cancel") {
      expect(this.#paid.has(errandId(ref)), "an attempt is paid for once").toBe(false);
      this.#paid.set(errandId(ref), amount);
    }
    if (prediction === undefined) return;
    const holder = this.#bound.get(prediction);
    if (holder !== undefined) {
      expect(holder.index, "a prediction is one item's").toBe(ref.index);
      expect(holder.attempt === ref.attempt || reuse === true, "and one attempt's, unless it is taken up again").toBe(
        true,
      );
    }
    this.#bound.set(prediction, ref);
  }

  async look(): Promise<void> {
    const { account, id } = this.#batch;
    const standing = await this.#ledger.standing(account, id);
    const states = await this.#ledger.readStates(account, id, 0, standing?.batch.items ?? 0);
    for (const [index, before] of this.#seen.entries()) {
      const now = states[index];
      expect(now?.attempt, "an attempt comes after another").toBeGreaterThanOrEqual(before.attempt);
      if (isEnd(before.state) && now?.attempt === before.attempt) expect(now.state, "an end stays").toBe(before.state);
    }
    this.#seen = states;
    const counted = ITEM_STATES.map((state) => [state, states.filter((one) => one.state === state).length]);
    expect(standing?.counts, "counts are those of the items").toEqual(Object.fromEntries(counted));
    const sum = [...this.#paid.values()].reduce((total, one) => total + one, 0n);
    expect(standing?.sums, "money adds up").toEqual({
      predict_time_ms: sum,
      output_bytes: 2n * sum,
      output_files: BigInt(this.#paid.size),
      not_saved: BigInt(this.#paid.size),
    });
  }
}
