/** What an audit finds, in the shapes that leave the process: a line of JSON each. */

import type { Share } from "../core/auditing.ts";
import type { ListBook } from "../core/list-book.ts";
import type { AccountName, BatchId } from "../core/naming.ts";

export type OfItem = {
  readonly account: AccountName;
  readonly batch: BatchId;
  readonly item: string;
  readonly index: number;
};

export type OfPrediction = {
  readonly prediction_id: string;
  readonly status: string | null;
  readonly created_at: string | null;
  /** Seconds, as metrics.predict_time; null where nobody says. */
  readonly predict_time: number | null;
};

/** Billed, and not saved: for good, as far as anybody knows, or not yet. */
export type NotSavedFinding = OfItem & {
  readonly finding: "not_saved" | "in_flight";
  readonly attempt: number;
  readonly prediction_id: string | null;
  readonly why: string;
  readonly error: string | null;
  readonly created_at: string | null;
  readonly predict_time: number | null;
  /** Whether its files can probably still be fetched from the provider. */
  readonly alive: boolean;
};

export type AuditFinding =
  | NotSavedFinding
  | (OfItem & {
      readonly finding: "unclear";
      readonly attempt: number;
      readonly since: string | null;
      /** Predictions on the list that could be its own. */
      readonly candidates: readonly string[];
    })
  | (OfItem & OfPrediction & { readonly finding: "duplicate" })
  /** We hold it, and the list should have it. */
  | (OfItem & { readonly finding: "vanished"; readonly attempt: number; readonly prediction_id: string })
  | {
      readonly finding: "disagreement";
      readonly account: AccountName;
      readonly batch: BatchId;
      readonly item: string | null;
      readonly index: number | null;
      readonly what: string;
    }
  | (OfPrediction & {
      readonly finding: "unexplained";
      readonly account: AccountName;
      /** `matching`: its input agrees with an item's. `silent`: nothing of its input can be compared. */
      readonly why: "matching" | "silent";
      /** The first few items it could be of; of a silent one, the batches. */
      readonly could_be: readonly string[];
    })
  | AccountFinding;

export type Sum = { readonly count: number; readonly predict_time: number };

/** The totals; the last finding of an account. */
export type AccountFinding = {
  readonly finding: "account";
  readonly account: AccountName;
  readonly batches: number;
  readonly items: number;
  readonly exit_code: 0 | 2 | 4;
  /** Attempts, each in one of these groups. */
  readonly saved: Sum;
  readonly not_saved: Sum & { readonly causes: readonly (Sum & { readonly why: string })[] };
  readonly in_flight: Sum;
  readonly sending: number;
  readonly unclear: number;
  readonly not_bought: number;
  /** Handed on to a later attempt of the item, which counts it. */
  readonly carried: number;
  readonly duplicates: Sum;
  readonly disagreements: number;
  /** Batches that moved while they were read, so that their totals weren't compared. */
  readonly moving: number;
  /** Null: it wasn't read at all. */
  readonly list: ListTotals | null;
  /** Why the list wasn't read, or not to its end; null: it was. */
  readonly list_stopped_by: string | null;
};

export type ListTotals = {
  readonly predictions: number;
  readonly complete: boolean;
  readonly from: string;
  readonly to: string;
  readonly oldest: string | null;
  /** Predictions of the list, each in one of these groups. */
  readonly held: Sum;
  readonly elsewhere: Sum;
  readonly duplicates: Sum;
  readonly matching: Sum;
  readonly silent: Sum;
  readonly foreign: Sum & { readonly examples: readonly string[] };
  /** Predictions that we hold and the list doesn't show, by why. */
  readonly unlisted: { readonly unread: number; readonly young: number; readonly vanished: number };
};

export function ofPrediction(id: string, book: ListBook): OfPrediction {
  const listed = book.find(id);
  return {
    prediction_id: id,
    status: listed?.status ?? null,
    created_at: iso(listed?.createdAtMs ?? null),
    predict_time: secondsOf(listed?.predictTimeMs ?? null),
  };
}

export function sumOf({ count, predictTimeMs: ms }: Share): Sum {
  return { count, predict_time: Number(ms) / 1_000 };
}

export function secondsOf(ms: bigint | null): number | null {
  return ms === null ? null : Number(ms) / 1_000;
}

export function iso(ms: number | null): string | null {
  return ms === null || !Number.isFinite(ms) ? null : new Date(ms).toISOString();
}
