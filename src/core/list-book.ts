/**
 * The provider's list as a book to be held against ours: each prediction of it is in exactly one group, and none is called
 * another's where it could be ours (`matching.ts`), nor ours because it looks like it.
 */

import { agrees, couldBe, SHORTEST_CUT, telling } from "./matching.ts";
import type { Prediction, PredictionId } from "./prediction.ts";
import { predictTimeMs } from "./receipt.ts";

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
