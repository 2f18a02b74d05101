/**
 * What a prediction on the provider's list tells of whose it is. The provider keeps no reference of ours, so a prediction
 * is told by its input. `resolving.ts` decides by it.
 *
 * Only difference proves anything: a prediction is *provably other* if a scalar of its input differs from ours that the
 * provider can't have changed. Our keys are compared; keys it added are ignored, and one it left out proves nothing. URLs
 * and data URLs (which it may replace by copies of its own) and secrets (which it hides) are wild cards on either side.
 * Model and version never exclude: the list may show an alias.
 *
 * Likeness proves less: what shows nothing of ours, or only a part, could be anybody's. A prediction counts as showing ours
 * only if all of our scalars are there, and equal. One exception: where a URL or a secret of ours is shown as another,
 * all the rest must be equal and have in it what few others have: a text of at least `SHORTEST_PROMPT` characters, a prompt,
 * or a seed. So what can be taken wrongly is a stranger's identical input, and a stranger's that has our very prompt or
 * seed and all of our other values, and another file; nothing else of a stranger's is.
 */

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

/** So long is a text of ours that a stranger hardly sends too. */
export const SHORTEST_PROMPT = 16;

/** Whether the listed input shows all of ours, as far as can be asked (see above): then it is an input like ours. */
export function shows(listed: unknown, ours: unknown): boolean {
  const { equal, missing, changed, isRare } = compare(ours, listed, 0);
  return missing === 0 && equal > 0 && (changed === 0 || isRare);
}

/** Whether the listed input shows all of ours, URLs among it, as it was sent. */
export function showsExactly(listed: unknown, ours: unknown): boolean {
  const { equal, missing, changed } = compare(ours, listed, 0);
  return missing === 0 && changed === 0 && equal > 0;
}

/** Of our scalars: how many are shown as they were sent, how many are missing or differ, how many wild ones differ. */
type Compared = {
  readonly equal: number;
  readonly missing: number;
  readonly changed: number;
  /** Whether one of the equal ones that aren't wild is such as few others have. */
  readonly isRare: boolean;
};

const NOTHING: Compared = { equal: 0, missing: 0, changed: 0, isRare: false };
const MISSING: Compared = { ...NOTHING, missing: 1 };
const CHANGED: Compared = { ...NOTHING, changed: 1 };

/** `name`: the key under which it stands. */
function compare(ours: unknown, listed: unknown, depth: number, name = ""): Compared {
  if (depth === MAX_DEPTH) return MISSING;
  if (isObject(ours)) {
    if (!isObject(listed)) return Object.keys(ours).length === 0 ? NOTHING : MISSING;
    const parts = Object.entries(ours).map(([key, value]) =>
      compare(value, Object.hasOwn(listed, key) ? listed[key] : undefined, depth + 1, key),
    );
    return sumOf(parts);
  }
  if (Array.isArray(ours)) {
    if (!Array.isArray(listed) || listed.length !== ours.length) return MISSING;
    return sumOf(ours.map((value, at) => compare(value, listed[at], depth + 1)));
  }
  if (!isScalar(ours)) return NOTHING;
  if (!isScalar(listed)) return MISSING;
  return compareScalars(ours, listed, name);
}

function compareScalars(ours: Scalar, listed: Scalar, name: string): Compared {
  if (isWild(ours) || isWild(listed)) {
    // Of two files the data URLs may begin the same; and a secret that is hidden isn't shown.
    return !isHidden(listed) && textOf(ours) === textOf(listed) ? { ...NOTHING, equal: 1 } : CHANGED;
  }
  // Seeds of ten digits that follow one another are as good as equal to a store that rounds; but this one isn't shown.
  const isAnother = Number.isSafeInteger(ours) && Number.isSafeInteger(listed) && ours !== listed;
  if (isAnother || !sameScalar(ours, listed)) return MISSING;
  return { ...NOTHING, equal: 1, isRare: isRare(ours, name) };
}

function isRare(ours: Scalar, name: string): boolean {
  if (typeof ours === "string") return textOf(ours).length >= SHORTEST_PROMPT;
  // Zero, and no seed, are what many leave it at.
  return typeof ours === "number" && ours !== 0 && /(?:^|_)seed$/i.test(name);
}

function sumOf(parts: readonly Compared[]): Compared {
  return parts.reduce(
    (sum, part) => ({
      equal: sum.equal + part.equal,
      missing: sum.missing + part.missing,
      changed: sum.changed + part.changed,
      isRare: sum.isRare || part.isRare,
    }),
    NOTHING,
  );
}

/** Where a scalar stands in an input, as one text: the same only where the objects and lists around it are, too. */
export type Path = string;

/** All scalars of an input, by where they stand; what can't be compared, since it lies too deep, is left out. */
export function scalarsOf(input: unknown): ReadonlyMap<Path, Scalar> {
  const found = new Map<Path, Scalar>();
  collect(input, "", 0, found);
  return found;
}

function collect(value: unknown, path: Path, depth: number, found: Map<Path, Scalar>): void {
  if (depth === MAX_DEPTH) return;
  if (isScalar(value)) found.set(path, value);
  else if (Array.isArray(value)) {
    for (const [at, one] of value.entries()) collect(one, `${path}\n[${at}`, depth + 1, found);
  } else if (isObject(value)) {
    for (const [key, one] of Object.entries(value)) collect(one, `${path}\n.${key}`, depth + 1, found);
  }
}

export type Scalar = string | number | boolean;

/** A value that is null may be the provider's way to leave a key out. */
function isScalar(value: unknown): value is Scalar {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

/** What the provider may show otherwise than it was sent: addresses of files, and what it takes for a secret. */
export function isWild(value: Scalar): boolean {
  return (typeof value === "string" && /^\s*(?:data:|[a-z][a-z0-9+.-]*:\/\/)/i.test(value)) || isHidden(value);
}

function isHidden(value: Scalar): boolean {
  return typeof value === "string" && /^(?:\*{3,}|•{3,}|\[?redacted\]?|\[?secret\]?)$/i.test(value.trim());
}

/** By so much of itself a number may be shown otherwise than it was sent. */
export const ROUNDING = 1e-6;

/** As far as a store of JSON may round and trim it. */
function sameScalar(ours: Scalar, listed: Scalar): boolean {
  if (typeof ours === "number" && typeof listed === "number") {
    return Math.abs(ours - listed) <= ROUNDING * Math.max(Math.abs(ours), Math.abs(listed));
  }
  const [a, b] = [textOf(ours), textOf(listed)];
  return a === b || isCut(a, b) || isCut(b, a);
}

export function textOf(value: Scalar): string {
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
