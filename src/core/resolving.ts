/**
 * Whose are the predictions on the provider's list? What unclear attempts are resolved by, where no webhook told. What
 * an input tells is `matching.ts`'s to say.
 *
 * A prediction could be of an attempt if it was created in the attempt's time and isn't provably other. Where it shows
 * one attempt's input exactly, URLs and all, it isn't of another that has nothing more in its input, and differs by a URL
 * alone: the provider would have to have put the first one's address in the place of the other's. Without such an
 * exact match a URL that differs excludes nobody.
 *
 * Identical attempts, those of one digest, can't be told apart, and needn't be: they are resolved as a group. Nothing is
 * decided on a guess. A prediction that could be of two groups is of none, and as long as it is there neither group is
 * known to be absent. One that could be of one group only is given to it if it shows its input.
 */

import { shows } from "./matching.ts";
import { openInputIndex } from "./matching-index.ts";
import type { PredictionId } from "./prediction.ts";

/** An attempt whose request was sent. */
export type Intent<Key> = {
  readonly key: Key;
  /** Of what was sent: equal for identical attempts. */
  readonly digest: string;
  readonly input: Readonly<Record<string, unknown>>;
  /** When it was sent, on the provider's clock: between these two, which are the same but for a claim that Redis lost. */
  readonly fromMs: number;
  readonly toMs: number;
};

export type ListedPrediction = {
  readonly id: PredictionId;
  /** As the list shows it; anything but an object shows nothing. */
  readonly input: unknown;
  /** On the provider's clock; NaN where it can't be read. */
  readonly createdAtMs: number;
};

export type Evidence<Key> = {
  readonly unclear: readonly Intent<Key>[];
  /** Requests that haven't been answered yet: a prediction may be theirs, too. */
  readonly unanswered: readonly Intent<Key>[];
  /** Predictions of the list that no attempt of ours holds. */
  readonly unbound: readonly ListedPrediction[];
  /** Whether the list was read so that a prediction of this intent that isn't in it surely isn't there (`isClean`). */
  readonly isClean: (intent: Intent<Key>) => boolean;
  /** Whether some sweep, now or later, may be clean for this intent (`mayBeClean`). */
  readonly mayBeClean: (intent: Intent<Key>) => boolean;
  /**
   * A prediction is created so much before its intent at the earliest (clocks differ), and so much after it at the
   * latest.
   */
  readonly earliestMs: number;
  readonly latestMs: number;
};

export type Resolution<Key> = {
  readonly bound: readonly { readonly key: Key; readonly prediction: PredictionId }[];
  /** Surely not accepted by the provider: they may be sent again. */
  readonly absent: readonly Key[];
};

/** The attempts of one digest, and what of the list could be theirs. */
type Group<Key> = {
  readonly input: Readonly<Record<string, unknown>>;
  readonly unclear: readonly Intent<Key>[];
  /** A twin's answer is still on its way, and with it one of the predictions. */
  readonly isAwaited: boolean;
  /** When its predictions can have been created. */
  readonly spans: readonly Span[];
  /** Predictions that could be of no other group. */
  readonly own: ListedPrediction[];
  /** Whether there are predictions that could be of another group, too. */
  hasShared: boolean;
};

export function resolveUnclear<Key>(evidence: Evidence<Key>): Resolution<Key> {
  const groups = groupsOf(evidence);
  giveOut(evidence.unbound, groups);

  const bound: { readonly key: Key; readonly prediction: PredictionId }[] = [];
  const absent: Key[] = [];
  for (const { unclear, isAwaited, input, own, hasShared } of groups) {
    if (isAwaited) continue;
    const inTurn = inTurnOf(unclear, evidence);
    const pairs = own
      .filter((prediction) => shows(prediction.input, input))
      .toSorted((a, b) => a.createdAtMs - b.createdAtMs)
      .slice(0, inTurn.length)
      .map((prediction, at) => ({ key: (inTurn[at] as Intent<Key>).key, prediction: prediction.id }));
    bound.push(...pairs);
    // Whatever could be one of the rest keeps all of the rest unclear.
    if (hasShared || own.length > pairs.length) continue;
    absent.push(...inTurn.slice(pairs.length).flatMap((intent) => (evidence.isClean(intent) ? intent.key : [])));
  }
  return { bound, absent };
}

function groupsOf<Key>({ unclear, unanswered, earliestMs, latestMs }: Evidence<Key>): readonly Group<Key>[] {
  const unclearBy = Map.groupBy(unclear, ({ digest }) => digest);
  const awaited = new Set(unanswered.map(({ digest }) => digest));
  return [...Map.groupBy([...unclear, ...unanswered], ({ digest }) => digest)].map(([digest, twins]) => ({
    input: (twins[0] as Intent<Key>).input,
    unclear: unclearBy.get(digest) ?? [],
    isAwaited: awaited.has(digest),
    spans: joined(twins.map(({ fromMs, toMs }) => ({ afterMs: fromMs - earliestMs, beforeMs: toMs + latestMs }))),
    own: [],
    hasShared: false,
  }));
}

/** Gives each prediction to the group that it could be of; where there are two, it marks both, and all others. */
function giveOut<Key>(predictions: readonly ListedPrediction[], groups: readonly Group<Key>[]): void {
  const inOrder = groups.toSorted((a, b) => (startOf(a) < startOf(b) ? -1 : 1));
  const longestMs = inOrder.reduce((longest, group) => Math.max(longest, endOf(group) - startOf(group)), 0);
  const find = openInputIndex(inOrder);
  for (const { id, input, createdAtMs } of predictions) {
    const isInTime = ({ spans }: Group<Key>) => spans.some((span) => isWithin(createdAtMs, span));
    let first: Group<Key> | null = null;
    let isShared = false;
    for (const { things, isMatch } of find(input, isInTime)) {
      const start = Number.isNaN(createdAtMs) ? 0 : firstFrom(things, createdAtMs - longestMs);
      for (let at = start; at < things.length; at++) {
        const group = things[at] as Group<Key>;
        if (startOf(group) > createdAtMs) break;
        if (isShared && group.hasShared) continue;
        if (!isInTime(group) || !isMatch(group)) continue;
        isShared = first !== null;
        if (first === null) first = group;
        else [first.hasShared, group.hasShared] = [true, true];
      }
    }
    if (!isShared) first?.own.push({ id, input, createdAtMs });
  }
}

/**
 * In which order twins get what there is of theirs: first who can be known to be absent first, so that nobody is known to be
 * absent before all that could have been given to him can be seen; last, who never can be.
 */
function inTurnOf<Key>(twins: readonly Intent<Key>[], { mayBeClean }: Evidence<Key>): readonly Intent<Key>[] {
  const rank = (intent: Intent<Key>) => (mayBeClean(intent) ? 0 : 1);
  return twins.toSorted((a, b) => rank(a) - rank(b) || a.toMs - b.toMs || a.fromMs - b.fromMs);
}

function startOf<Key>({ spans }: Group<Key>): number {
  return spans[0]?.afterMs ?? -Infinity;
}

function endOf<Key>({ spans }: Group<Key>): number {
  return spans.at(-1)?.beforeMs ?? Infinity;
}

/** Of groups in the order of their starts, the first that starts then or later. */
function firstFrom<Key>(groups: readonly Group<Key>[], ms: number): number {
  let [from, to] = [0, groups.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (startOf(groups[middle] as Group<Key>) < ms) from = middle + 1;
    else to = middle;
  }
  return from;
}

type Span = { readonly afterMs: number; readonly beforeMs: number };

/** Whose time can't be read could be of any. */
function isWithin(ms: number, { afterMs, beforeMs }: Span): boolean {
  return !(ms < afterMs) && !(ms > beforeMs);
}

/** The same spans, as few as they can be written: of ten thousand twins they are one, or some. */
function joined(spans: readonly Span[]): readonly Span[] {
  const known = spans
    .map(({ afterMs, beforeMs }) => ({
      afterMs: Number.isNaN(afterMs) ? -Infinity : afterMs,
      beforeMs: Number.isNaN(beforeMs) ? Infinity : beforeMs,
    }))
    .toSorted((a, b) => (a.afterMs < b.afterMs ? -1 : 1));
  const all: Span[] = [];
  for (const span of known) {
    const last = all.at(-1);
    if (last === undefined || span.afterMs > last.beforeMs) all.push(span);
    else all[all.length - 1] = { ...last, beforeMs: Math.max(last.beforeMs, span.beforeMs) };
  }
  return all;
}
