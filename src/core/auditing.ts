/**
 * Three books against one another: what the bucket has on record, what Redis believes, what the provider lists.
 *
 * `judgeItem` says what became of each prediction an item bought, and where bucket and Redis contradict each other; the
 * bucket is the record, so its word counts. `openListBook` sorts the provider's list: each prediction of it is in exactly
 * one group, and none is called another's where it could be ours (`matching.ts`), nor ours because it looks like it.
 */

import { failureGroup } from "./failing.ts";
import { type ItemByte, type ItemState, isEnd } from "./item.ts";
import { agrees, couldBe, SHORTEST_CUT, telling } from "./matching.ts";
import type { Prediction, PredictionId } from "./prediction.ts";
import { predictTimeMs, type Receipt } from "./receipt.ts";
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

// ── the provider's list ───────────────────────────────────────────────────────

export type ListedRun = Pick<Prediction, "id" | "status" | "dataRemoved"> & {
  /** On the provider's clock; NaN where it can't be read. */
  readonly createdAtMs: number;
  readonly predictTimeMs: bigint;
  readonly input: unknown;
  /** The errand of the attempt of ours that Redis knows to hold it. */
  readonly holder: string | null;
};

export function listedRun(prediction: Prediction, input: unknown, holder: string | null): ListedRun {
  const { id, status, dataRemoved, createdAt, metrics } = prediction;
  const createdAtMs = Date.parse(createdAt ?? "");
  return { id, status, dataRemoved, createdAtMs, predictTimeMs: predictTimeMs(metrics), input, holder };
}

/**
 * `held`: by an attempt that was looked at. `elsewhere`: by an attempt of ours that wasn't. `duplicate`: booked as bought
 * for an attempt that holds another. `foreign`: provably not ours. `matching`: held by nobody, and its input agrees with
 * one of ours. `silent`: held by nobody, and nothing of its input can be compared.
 */
export const LIST_GROUPS = ["held", "elsewhere", "duplicate", "matching", "silent", "foreign"] as const;
export type ListGroup = (typeof LIST_GROUPS)[number];

export type LooseRun = ListedRun & {
  /** Items whose prediction it could be, by its input; the first few. Where that shows nothing, batches. */
  readonly couldBe: readonly string[];
  readonly agrees: boolean;
};

/** So many items are named that a prediction could be of. */
const NAMED = 3;

export function openListBook(runs: Iterable<ListedRun>) {
  type Entry = { run: ListedRun; holder: string | null; booked: boolean; couldBe: string[]; agrees: boolean };
  const entries = new Map<string, Entry>();
  for (const run of runs) entries.set(run.id, { run, holder: null, booked: false, couldBe: [], agrees: false });
  let nobodys: readonly Entry[] | null = null;
  const loose = () =>
    (nobodys ??= [...entries.values()].filter(
      ({ run, holder, booked }) => holder === null && !booked && run.holder === null,
    ));
  let index: ((input: Readonly<Record<string, unknown>>) => readonly Entry[]) | null = null;

  function name(entry: Entry, owner: string): void {
    if (entry.couldBe.length < NAMED) entry.couldBe.push(owner);
  }

  function groupOf({ run, holder, booked, couldBe, agrees: doesAgree }: Entry): ListGroup {
    if (holder !== null) return "held";
    if (booked) return "duplicate";
    if (run.holder !== null) return "elsewhere";
    if (couldBe.length === 0) return "foreign";
    return doesAgree ? "matching" : "silent";
  }

  return {
    size: entries.size,
    find: (id: string): ListedRun | null => entries.get(id)?.run ?? null,

    /** Notes who holds a prediction; answers who held it before: an item's attempts may hand one on, nobody else. */
    hold(id: string, item: string): string | null {
      const entry = entries.get(id);
      const before = entry?.holder ?? null;
      if (entry !== undefined) entry.holder ??= item;
      nobodys = null;
      return before;
    },

    /** Notes that a prediction is booked as a duplicate. */
    book(id: string): void {
      const entry = entries.get(id);
      if (entry !== undefined) entry.booked = true;
      nobodys = null;
    },

    /** What Redis says of a prediction's holder by now. */
    bind(id: PredictionId, holder: string): void {
      const entry = entries.get(id);
      if (entry !== undefined) entry.run = { ...entry.run, holder };
      nobodys = null;
    },

    /** Those that nobody is known to hold. */
    loose: (): readonly ListedRun[] => loose().map(({ run }) => run),

    /**
     * Notes that items of a batch may have bought what nobody holds since `fromMs`: of an input that shows nothing no more
     * can be told. Answers whether there are others, to be held against the batch's inputs one by one. Ask for it, and
     * for `compare`, once everybody who holds has been noted.
     */
    open(batch: string, fromMs: number): boolean {
      const inTime = loose().filter(({ run }) => !(run.createdAtMs < fromMs));
      const silent = inTime.filter(({ run }) => !tells(run.input));
      for (const entry of silent) name(entry, batch);
      return silent.length < inTime.length;
    },

    /** A batch whose inputs can't be compared may have bought whatever nobody holds. */
    suspect(batch: string, fromMs: number): void {
      for (const entry of loose()) if (!(entry.run.createdAtMs < fromMs)) name(entry, batch);
    },

    /** Holds an item's input against what nobody holds. Its prediction can't have been created before `fromMs`. */
    compare(item: string, input: Readonly<Record<string, unknown>>, fromMs: number): void {
      index ??= indexByText(
        loose().filter(({ run }) => tells(run.input)),
        ({ run }) => run.input,
      );
      for (const entry of index(input)) {
        if (entry.run.createdAtMs < fromMs || !couldBe(input, entry.run.input)) continue;
        entry.agrees ||= agrees(input, entry.run.input);
        name(entry, item);
      }
    },

    *groups(): Generator<LooseRun & { readonly group: ListGroup }> {
      for (const entry of entries.values()) {
        yield { ...entry.run, couldBe: entry.couldBe, agrees: entry.agrees, group: groupOf(entry) };
      }
    },
  };
}

export type ListBook = ReturnType<typeof openListBook>;

const MAX_DEPTH = 32;

/** Whether anything of a listed input can be compared; if not, it could be anybody's. */
function tells(input: unknown, depth = 0): boolean {
  if (typeof input !== "object" || input === null) return telling(input) !== null;
  return depth < MAX_DEPTH && Object.values(input).some((value) => tells(value, depth + 1));
}

/**
 * Finds what could be an input's without comparing each: by one short text of each listed input, its longest, which must
 * be ours if ours has that key. What is found is still to be compared; what isn't found is provably other.
 */
export function indexByText<T>(
  things: Iterable<T>,
  inputOf: (thing: T) => unknown,
): (input: Readonly<Record<string, unknown>>) => readonly T[] {
  const byKey = new Map<string, { readonly all: T[]; readonly byText: Map<string, T[]> }>();
  const others: T[] = [];
  for (const thing of things) {
    const best = longestShortText(inputOf(thing));
    if (best === null) {
      others.push(thing);
      continue;
    }
    const group = byKey.get(best.key) ?? { all: [], byText: new Map<string, T[]>() };
    byKey.set(best.key, group);
    group.all.push(thing);
    const same = group.byText.get(best.text) ?? [];
    group.byText.set(best.text, same);
    same.push(thing);
  }
  return (input) => [
    ...others,
    ...[...byKey].flatMap(([key, { all, byText }]) => {
      const text = Object.hasOwn(input, key) ? telling(input[key]) : null;
      return text === null ? all : (byText.get(text) ?? []);
    }),
  ];
}

/** Numbers may be rounded and long texts cut: neither is found by its text. */
function longestShortText(input: unknown): { readonly key: string; readonly text: string } | null {
  if (typeof input !== "object" || input === null || Array.isArray(input)) return null;
  let best: { readonly key: string; readonly text: string } | null = null;
  for (const [key, value] of Object.entries(input)) {
    const text = typeof value === "string" ? telling(value) : null;
    if (text === null || text.length >= SHORTEST_CUT || text.length <= (best?.text.length ?? -1)) continue;
    best = { key, text };
  }
  return best;
}

/** What of the list was read: between these moments on the provider's clock, `oldestMs` being the oldest it came to. */
export type ListSpan = {
  readonly afterMs: number;
  readonly beforeMs: number;
  readonly readAtMs: number;
  readonly complete: boolean;
  readonly oldestMs: number;
};

/**
 * Why a prediction that we hold isn't on the list. `unread`: it may stand where the list wasn't read. `young`: a list
 * that lags may not have it yet. `vanished`: it should be there.
 */
export function whyUnlisted(
  createdAtMs: number | null,
  span: ListSpan,
  policy: { readonly settlingMs: number; readonly skewMs: number },
): "unread" | "young" | "vanished" {
  if (createdAtMs === null) return "unread";
  if (createdAtMs > span.readAtMs - policy.settlingMs) return "young";
  const from = Math.max(span.afterMs, span.complete ? span.afterMs : span.oldestMs) + policy.skewMs;
  return createdAtMs < from || createdAtMs >= span.beforeMs - policy.skewMs ? "unread" : "vanished";
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
