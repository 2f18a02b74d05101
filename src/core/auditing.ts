/**
 * Three books against one another: what the bucket has on record, what Redis believes, what the provider lists
 * (`list-book.ts`).
 *
 * `judgeItem` says what became of each prediction an item bought, and where bucket and Redis contradict each other; the
 * bucket is the record, so its word counts.
 */

import { failureGroup } from "./failing.ts";
import { type ItemByte, type ItemState, isEnd } from "./item.ts";
import { LIST_GROUPS, type ListGroup } from "./list-book.ts";
import type { Receipt } from "./receipt.ts";
import { HOUR } from "./time.ts";

// ── items ─────────────────────────────────────────────────────────────────────

export type ItemFacts = {
  /** As Redis has it. */
  readonly byte: ItemByte;
  /** By attempt; null where one was looked for and isn't there. */
  readonly receipts: ReadonlyMap<number, Receipt | null>;
  /** By attempt: the prediction that Redis knows it to hold. */
  readonly bound: ReadonlyMap<number, string>;
  /** Sizes of the item's files in the bucket, by object key. */
  readonly files: ReadonlyMap<string, number>;
};

/**
 * What became of what an attempt bought, or that it bought nothing.
 *
 * `not-bought`: it waits, or it ended before it was bought. `carried`: a later attempt of the item has this prediction.
 */
export type Standing =
  | { readonly kind: "saved"; readonly predictionId: string | null }
  | { readonly kind: "in-flight" | "carried"; readonly predictionId: string }
  | {
      readonly kind: "not-saved";
      readonly predictionId: string | null;
      readonly why: string;
      readonly error: string | null;
    }
  | { readonly kind: "not-bought" | "sending" | "unclear" };

export type Judgement = {
  readonly attempts: readonly (Standing & { readonly attempt: number; readonly receipt: Receipt | null })[];
  /** Sentences: where bucket and Redis contradict each other. */
  readonly disagreements: readonly string[];
};

export const NO_RECEIPT = "its receipt is missing";

export function judgeItem(facts: ItemFacts): Judgement {
  const last = Math.max(facts.byte.attempt, ...facts.receipts.keys(), ...facts.bound.keys());
  const disagreements: string[] = [];
  const judged = Array.from({ length: last }, (_, at) => {
    const attempt = at + 1;
    const receipt = facts.receipts.get(attempt) ?? null;
    disagreements.push(...contradictions(facts, attempt, receipt));
    const standing = receipt === null ? withoutReceipt(facts, attempt) : byReceipt(receipt, facts.files);
    return { ...standing, attempt, receipt };
  });
  return {
    disagreements,
    attempts: judged.map((one, at) => {
      const predictionId = "predictionId" in one ? one.predictionId : null;
      const isCarried = judged
        .slice(at + 1)
        .some((later) => "predictionId" in later && later.predictionId === predictionId);
      const { attempt, receipt } = one;
      return predictionId !== null && isCarried ? { kind: "carried", predictionId, attempt, receipt } : one;
    }),
  };
}

function byReceipt(receipt: Receipt, files: ReadonlyMap<string, number>): Standing {
  const { status, prediction_id: predictionId, error } = receipt;
  if (status === "saved") {
    const fault = fileFault(receipt, files);
    return fault === null
      ? { kind: "saved", predictionId }
      : { kind: "not-saved", predictionId, error: null, ...fault };
  }
  if (predictionId === null) return { kind: "not-bought" };
  return { kind: "not-saved", predictionId, why: `${status}: ${failureGroup(error)}`, error };
}

function fileFault({ outputs }: Receipt, files: ReadonlyMap<string, number>): { readonly why: string } | null {
  if (outputs.some(({ key }) => !files.has(key))) return { why: "a file that was saved isn't in the bucket any more" };
  const resized = outputs.some(({ key, bytes }) => files.get(key) !== bytes);
  return resized ? { why: "a file that was saved has another length now" } : null;
}

function withoutReceipt({ byte, bound }: ItemFacts, attempt: number): Standing {
  const predictionId = bound.get(attempt) ?? null;
  const lost = { kind: "not-saved", predictionId, why: NO_RECEIPT, error: null } as const;
  // What ended unbought, by a cancel or a redrive of it, leaves no receipt.
  if (attempt !== byte.attempt) return predictionId === null ? { kind: "not-bought" } : lost;
  switch (byte.state) {
    case "waiting":
      return predictionId === null
        ? { kind: "not-bought" }
        : { ...lost, why: "Redis has forgotten that it was bought" };
    case "claimed":
      return predictionId === null ? { kind: "sending" } : { kind: "in-flight", predictionId };
    case "unclear":
      return { kind: "unclear" };
    case "running":
    case "copying":
      return predictionId === null
        ? { ...lost, why: "Redis has lost its prediction's id" }
        : { kind: "in-flight", predictionId };
    case "recording":
      // What the provider refused is recorded, too.
      return predictionId === null ? { kind: "not-bought" } : { kind: "in-flight", predictionId };
    case "saved":
    case "failed":
      return lost;
    case "canceled":
      return predictionId === null ? { kind: "not-bought" } : lost;
    default:
      return byte.state satisfies never;
  }
}

function contradictions({ byte, bound }: ItemFacts, attempt: number, receipt: Receipt | null): readonly string[] {
  const holds = bound.get(attempt);
  if (receipt === null) {
    if (attempt < byte.attempt)
      return holds === undefined ? [] : [`attempt ${attempt} bought ${holds}, and has no receipt`];
    if (attempt > byte.attempt)
      return [`Redis knows ${attempts(byte)}, and holds prediction ${holds} for attempt ${attempt}`];
    if (byte.state === "waiting" && holds !== undefined)
      return [`Redis says waiting, and holds prediction ${holds} for it`];
    if (needsReceipt(byte.state, holds)) return [`Redis says ${byte.state}, and attempt ${attempt} has no receipt`];
    return byte.state !== "claimed" && isInFlight(byte.state) && byte.state !== "recording" && holds === undefined
      ? [`Redis says ${byte.state}, and holds no prediction for it`]
      : [];
  }
  if (attempt > byte.attempt)
    return [`the bucket has a receipt of attempt ${attempt} (${receipt.status}), and Redis knows ${attempts(byte)}`];
  if (attempt < byte.attempt || byte.state === "recording" || byte.state === receipt.status) return [];
  return [`Redis says ${byte.state}, and the receipt of attempt ${attempt} says ${receipt.status}`];
}

function attempts({ attempt }: ItemByte): string {
  return attempt === 1 ? "one attempt alone" : `${attempt} attempts alone`;
}

function needsReceipt(state: ItemState, holds: string | undefined): boolean {
  return state === "saved" || state === "failed" || (state === "canceled" && holds !== undefined);
}

function isInFlight(state: ItemState): boolean {
  return state !== "waiting" && state !== "unclear" && !isEnd(state);
}

/** Whether a prediction's files can still be fetched, as far as one can tell: the provider keeps them for an hour. */
export function probablyAlive(prediction: {
  readonly createdAtMs: number | null;
  readonly status: string | null;
  readonly dataRemoved: boolean;
  readonly nowMs: number;
}): boolean {
  const { createdAtMs, status, dataRemoved, nowMs } = prediction;
  const hasNoFiles = status === "failed" || status === "canceled" || status === "aborted";
  return createdAtMs !== null && nowMs - createdAtMs < HOUR && !dataRemoved && !hasNoFiles;
}

// ── the outcome ───────────────────────────────────────────────────────────────

/** How many attempts, or predictions, and the run time they were billed for. */
export type Share = { readonly count: number; readonly predictTimeMs: bigint };

const NOTHING: Share = { count: 0, predictTimeMs: 0n };
/** So many causes are told apart. */
const MAX_CAUSES = 100;
const OTHERS = "other causes";

export type AuditTotals = {
  /** Attempts by what became of what they bought. */
  readonly attempts: Readonly<Record<Standing["kind"], Share>>;
  /** Of the attempts that are billed and not saved; they add up. */
  readonly causes: ReadonlyMap<string, Share>;
  readonly duplicates: Share;
  readonly list: Readonly<Record<ListGroup, Share>>;
  readonly disagreements: number;
  /** Items whose latest attempt ended failed or canceled, or is billed and not saved. */
  readonly unsavedItems: number;
};

export function openTally() {
  const attempts = shares(["saved", "in-flight", "carried", "not-saved", "not-bought", "sending", "unclear"] as const);
  const list = shares(LIST_GROUPS);
  const causes = new Map<string, Share>();
  let duplicates = NOTHING;
  let disagreements = 0;
  let unsavedItems = 0;
  return {
    attempt(standing: Standing, billedMs: bigint): void {
      attempts[standing.kind] = plus(attempts[standing.kind], billedMs);
      if (standing.kind !== "not-saved") return;
      const cause = causes.has(standing.why) || causes.size < MAX_CAUSES - 1 ? standing.why : OTHERS;
      causes.set(cause, plus(causes.get(cause) ?? NOTHING, billedMs));
    },
    listed(group: ListGroup, billedMs: bigint): void {
      list[group] = plus(list[group], billedMs);
    },
    duplicate(billedMs: bigint): void {
      duplicates = plus(duplicates, billedMs);
    },
    disagreement(): void {
      disagreements++;
    },
    unsavedItem(): void {
      unsavedItems++;
    },
    totals: (): AuditTotals => ({ attempts, causes, duplicates, list, disagreements, unsavedItems }),
  };
}

function shares<Name extends string>(names: readonly Name[]): Record<Name, Share> {
  return Object.fromEntries(names.map((name) => [name, NOTHING])) as Record<Name, Share>;
}

function plus({ count, predictTimeMs: before }: Share, billedMs: bigint): Share {
  return { count: count + 1, predictTimeMs: before + billedMs };
}

/** The highest that applies: 4 something is unclear, 2 not everything is saved, paid once and agreed upon, 0 all is. */
export function auditExitCode({ attempts, list, duplicates, disagreements, unsavedItems }: AuditTotals): 0 | 2 | 4 {
  if (attempts.unclear.count + list.matching.count > 0) return 4;
  return unsavedItems + duplicates.count + disagreements > 0 ? 2 : 0;
}
