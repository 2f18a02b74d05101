/**
 * Whose is a prediction on the provider's list? What an unclear attempt is resolved by, where no webhook told.
 *
 * The provider keeps no reference of ours, so a prediction is told by its input. Only difference proves anything: a
 * prediction is *provably other* if a scalar of its input differs from ours that the provider can't have changed. Our
 * keys are compared; keys it added are ignored, and one it left out proves nothing. URLs and data URLs (which it may
 * replace by copies of its own) and secrets (which it hides) are wild cards on either side. Model and version never
 * exclude: the list may show an alias.
 *
 * Likeness proves less: what shows nothing of ours, or only a part, could be anybody's. A prediction is given to an attempt
 * only if all of its input is shown, and equal as far as the provider can't have changed it. A stranger's identical
 * input can't be told from ours; nothing else of a stranger's is ever taken for it.
 *
 * Identical attempts, those of one digest, can't be told apart, and needn't be: they are resolved as a group. Nothing is
 * decided on a guess. A prediction that could be of two groups is of none, and as long as it is there neither group is
 * known to be absent.
 */

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
  /** A prediction is created so much before its intent at the earliest (clocks differ), and so much after it at the latest. */
  readonly earliestMs: number;
  readonly latestMs: number;
};

export type Resolution<Key> = {
  readonly bound: readonly { readonly key: Key; readonly prediction: PredictionId }[];
  /** Surely not accepted by the provider: they may be sent again. */
  readonly absent: readonly Key[];
};

export function resolveUnclear<Key>(evidence: Evidence<Key>): Resolution<Key> {
  const groups = Map.groupBy(evidence.unclear, ({ digest }) => digest);
  const waiting = Map.groupBy(evidence.unanswered, ({ digest }) => digest);
  const candidates = new Map(
    evidence.unbound.map((prediction) => [prediction, digestsOf(prediction, evidence)] as const),
  );

  const bound: { readonly key: Key; readonly prediction: PredictionId }[] = [];
  const absent: Key[] = [];
  for (const [digest, intents] of groups) {
    // A twin's answer is still on its way, and with it one of these predictions.
    if (waiting.has(digest)) continue;
    const possible = [...candidates].filter(([, digests]) => digests.has(digest));
    const own = possible
      .filter(([{ input }, digests]) => digests.size === 1 && intents.some((intent) => shows(input, intent.input)))
      .map(([prediction]) => prediction);
    const oldestFirst = intents.toSorted((a, b) => a.fromMs - b.fromMs);
    const pairs = own
      .toSorted((a, b) => a.createdAtMs - b.createdAtMs)
      .slice(0, oldestFirst.length)
      .map((prediction, at) => ({ intent: oldestFirst[at] as Intent<Key>, prediction }));
    bound.push(...pairs.map(({ intent, prediction }) => ({ key: intent.key, prediction: prediction.id })));
    // Whatever could be one of the rest keeps all of the rest unclear.
    if (possible.length > pairs.length) continue;
    absent.push(...oldestFirst.slice(pairs.length).flatMap((intent) => (evidence.isClean(intent) ? intent.key : [])));
  }
  return { bound, absent };
}

/** The digests of all attempts that a prediction could be of. */
function digestsOf<Key>(prediction: ListedPrediction, evidence: Evidence<Key>): ReadonlySet<string> {
  const { unclear, unanswered, earliestMs, latestMs } = evidence;
  return new Set(
    [...unclear, ...unanswered]
      .filter(
        ({ fromMs, toMs, input }) =>
          // Whose time can't be read could be of any.
          !(prediction.createdAtMs < fromMs - earliestMs) &&
          !(prediction.createdAtMs > toMs + latestMs) &&
          couldBe(input, prediction.input),
      )
      .map(({ digest }) => digest),
  );
}

const MAX_DEPTH = 32;

/** False only where the listed input is provably another's. */
export function couldBe(ours: unknown, listed: unknown, depth = 0): boolean {
  if (depth === MAX_DEPTH) return true;
  if (isObject(ours)) {
    if (!isObject(listed)) return true;
    return Object.entries(ours).every(
      ([key, value]) => !Object.hasOwn(listed, key) || couldBe(value, listed[key], depth + 1),
    );
  }
  if (Array.isArray(ours)) {
    if (!Array.isArray(listed)) return true;
    const both: readonly unknown[] = ours.slice(0, listed.length);
    return both.every((value, at) => couldBe(value, listed[at], depth + 1));
  }
  if (!isScalar(listed) || !isScalar(ours) || isWild(ours) || isWild(listed)) return true;
  return sameScalar(ours, listed);
}

/** Whether the listed input shows some scalar that is ours; where nothing can be compared, nothing agrees. */
export function agrees(ours: unknown, listed: unknown, depth = 0): boolean {
  if (depth === MAX_DEPTH) return false;
  if (isObject(ours)) {
    if (!isObject(listed)) return false;
    return Object.entries(ours).some(
      ([key, value]) => Object.hasOwn(listed, key) && agrees(value, listed[key], depth + 1),
    );
  }
  if (Array.isArray(ours)) {
    if (!Array.isArray(listed)) return false;
    const both: readonly unknown[] = ours.slice(0, listed.length);
    return both.some((value, at) => agrees(value, listed[at], depth + 1));
  }
  return isScalar(ours) && isScalar(listed) && !isWild(ours) && !isWild(listed) && sameScalar(ours, listed);
}

/** A scalar as it is compared, where it is one that can tell predictions apart; else null. */
export function telling(value: unknown): string | null {
  return isScalar(value) && !isWild(value) ? textOf(value) : null;
}

/** Whether the listed input shows all of ours, and some of it as it was sent: then it is an input like ours. */
export function shows(listed: unknown, ours: unknown): boolean {
  const found = compare(ours, listed, 0);
  return found.missing === 0 && found.equal > 0;
}

type Compared = { readonly equal: number; readonly missing: number };

const NOTHING: Compared = { equal: 0, missing: 0 };
const MISSING: Compared = { equal: 0, missing: 1 };

/** Of our scalars: how many are shown as they were sent, and how many are missing or differ. A changed URL is neither. */
function compare(ours: unknown, listed: unknown, depth: number): Compared {
  if (depth === MAX_DEPTH) return MISSING;
  if (isObject(ours)) {
    if (!isObject(listed)) return Object.keys(ours).length === 0 ? NOTHING : MISSING;
    const parts = Object.entries(ours).map(([key, value]) =>
      compare(value, Object.hasOwn(listed, key) ? listed[key] : undefined, depth + 1),
    );
    return sumOf(parts);
  }
  if (Array.isArray(ours)) {
    if (!Array.isArray(listed) || listed.length !== ours.length) return MISSING;
    return sumOf(ours.map((value, at) => compare(value, listed[at], depth + 1)));
  }
  if (!isScalar(ours)) return NOTHING;
  if (!isScalar(listed)) return MISSING;
  if (sameScalar(ours, listed)) return { equal: 1, missing: 0 };
  return isWild(ours) || isWild(listed) ? NOTHING : MISSING;
}

function sumOf(parts: readonly Compared[]): Compared {
  return parts.reduce(
    (sum, { equal, missing }) => ({ equal: sum.equal + equal, missing: sum.missing + missing }),
    NOTHING,
  );
}

type Scalar = string | number | boolean;

/** A value that is null may be the provider's way to leave a key out. */
function isScalar(value: unknown): value is Scalar {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

/** What the provider may show otherwise than it was sent: addresses of files, and what it takes for a secret. */
function isWild(value: Scalar): boolean {
  if (typeof value !== "string") return false;
  return (
    /^\s*(?:data:|[a-z][a-z0-9+.-]*:\/\/)/i.test(value) ||
    /^(?:\*{3,}|•{3,}|\[?redacted\]?|\[?secret\]?)$/i.test(value.trim())
  );
}

/** As far as a store of JSON may round and trim it. */
function sameScalar(ours: Scalar, listed: Scalar): boolean {
  if (typeof ours === "number" && typeof listed === "number") {
    return Math.abs(ours - listed) <= 1e-6 * Math.max(Math.abs(ours), Math.abs(listed));
  }
  const [a, b] = [textOf(ours), textOf(listed)];
  return a === b || isCut(a, b) || isCut(b, a);
}

function textOf(value: Scalar): string {
  return String(value).normalize("NFC").trim();
}

/** A long text may be shown by its beginning; a shorter one is shown whole. */
export const SHORTEST_CUT = 200;

function isCut(whole: string, shown: string): boolean {
  const beginning = shown.replace(/(?:…|\.{3})$/, "");
  return beginning.length >= SHORTEST_CUT && whole.startsWith(beginning);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
