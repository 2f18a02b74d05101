/**
 * Finds what inputs a listed one could show without comparing it with each: ten thousand inputs and fifty thousand listed
 * ones are half a billion pairs, and nearly all of them differ.
 *
 * Inputs are sorted by shape, that is by where their scalars stand and of what kind those are, and within a shape by
 * the values that the listed input shows too. What is found is still to be compared; what isn't found is provably other.
 */

import {
  couldBe,
  isWild,
  type Path,
  ROUNDING,
  type Scalar,
  SHORTEST_CUT,
  scalarsOf,
  showsExactly,
  textOf,
} from "./matching.ts";

type Part = { readonly path: Path; readonly kind: "text" | "number" | "wild" };

type Shape<Thing> = {
  readonly parts: readonly Part[];
  readonly things: { readonly thing: Thing; readonly scalars: ReadonlyMap<Path, Scalar> }[];
  readonly all: Thing[];
  /** Those of its numbers that things are sorted by. */
  numbers?: ReadonlySet<Path>;
  /** By some of its parts, as they were asked for. */
  readonly sorted: Map<string, ReadonlyMap<string, readonly Thing[]>>;
};

/** A provider shows the same keys of nearly all inputs; if it doesn't, sorting anew is still cheaper than comparing. */
const MAX_SORTED = 16;

/** Things that are still to be held against the listed input; the same array each time where they are the same. */
export type Found<Thing> = { readonly things: readonly Thing[]; readonly isMatch: (thing: Thing) => boolean };

/**
 * No thing is found twice. What isn't a match, or isn't found, is provably other, or another matches so well that it must
 * be other (`resolving.ts`). `isPossible`: whether a thing is in question at all; else it excludes nobody.
 */
export function openInputIndex<Thing extends { readonly input: unknown }>(
  things: Iterable<Thing>,
): (listed: unknown, isPossible: (thing: Thing) => boolean) => readonly Found<Thing>[] {
  const shapes = shapesOf(things);
  return (listed, isPossible) => {
    const shown = scalarsOf(listed);
    const isAlike = ({ input }: Thing) => couldBe(input, listed);
    // The second look is the dearer one.
    const isExact = (thing: Thing) => isAlike(thing) && showsExactly(listed, thing.input);
    const alike = shapes.map((shape) => findExact(shape, shown));
    const exact = shapes.filter((_, at) =>
      alike[at]?.some((some) => some.some((thing) => isPossible(thing) && isExact(thing))),
    );
    return shapes.flatMap((shape, at) => {
      if (exact.some((other) => isWithin(shape, other))) {
        return (alike[at] ?? []).map((some) => ({ things: some, isMatch: isExact }));
      }
      const comparable = shape.parts.filter(({ path, kind }) => kind !== "wild" && isTelling(shown.get(path)));
      const found = comparable.length === shape.parts.length ? (alike[at] ?? []) : find(shape, comparable, shown);
      return found.map((some) => ({ things: some, isMatch: isAlike }));
    });
  };
}

/** Whether every scalar of one shape stands in the other, too. */
function isWithin<Thing>(one: Shape<Thing>, other: Shape<Thing>): boolean {
  const paths = new Set(other.parts.map(({ path }) => path));
  return one === other || one.parts.every(({ path }) => paths.has(path));
}

function shapesOf<Thing extends { readonly input: unknown }>(things: Iterable<Thing>): readonly Shape<Thing>[] {
  const shapes = new Map<string, Shape<Thing>>();
  for (const thing of things) {
    const scalars = scalarsOf(thing.input);
    const parts = [...scalars]
      .map(([path, value]): Part => ({ path, kind: kindOf(value) }))
      .toSorted((a, b) => (a.path < b.path ? -1 : 1));
    const name = parts.map(({ path, kind }) => `${kind} ${path}`).join("\n");
    const shape: Shape<Thing> = shapes.get(name) ?? { parts, things: [], all: [], sorted: new Map() };
    shapes.set(name, shape);
    shape.things.push({ thing, scalars });
    shape.all.push(thing);
  }
  return [...shapes.values()];
}

function kindOf(value: Scalar): Part["kind"] {
  if (isWild(value)) return "wild";
  return typeof value === "number" ? "number" : "text";
}

function isTelling(shown: Scalar | undefined): boolean {
  return shown !== undefined && !isWild(shown);
}

/** Those among which the ones are that the listed input shows exactly. */
function findExact<Thing>(shape: Shape<Thing>, shown: ReadonlyMap<Path, Scalar>): readonly (readonly Thing[])[] {
  if (!shape.parts.every(({ path }) => shown.has(path))) return [];
  return find(shape, shape.parts, shown);
}

function find<Thing>(
  shape: Shape<Thing>,
  parts: readonly Part[],
  shown: ReadonlyMap<Path, Scalar>,
): readonly (readonly Thing[])[] {
  if (parts.length === 0) return [shape.all];
  const numbers = (shape.numbers ??= sortingNumbers(shape));
  const sorting = parts.filter(({ path, kind }) => kind !== "number" || numbers.has(path));
  const sorted = sortedBy(shape, sorting);
  let keys = [""];
  for (const { path, kind } of sorting) {
    const marks = marksOf(kind, shown.get(path) as Scalar);
    keys = keys.flatMap((key) => marks.map((mark) => join(key, mark)));
  }
  return keys.flatMap((key) => {
    const found = sorted.get(key);
    return found === undefined ? [] : [found];
  });
}

/**
 * Each number may have come over an edge, and doubles the keys to look under: of a vector of hundreds, those that tell
 * most.
 */
const MOST_NUMBERS = 8;

function sortingNumbers<Thing>({ parts, things }: Shape<Thing>): ReadonlySet<Path> {
  const paths = parts.filter(({ kind }) => kind === "number").map(({ path }) => path);
  if (paths.length <= MOST_NUMBERS) return new Set(paths);
  const values = new Map(paths.map((path) => [path, new Set(things.map(({ scalars }) => scalars.get(path))).size]));
  const mostFirst = paths.toSorted((a, b) => (values.get(b) ?? 0) - (values.get(a) ?? 0));
  return new Set(mostFirst.slice(0, MOST_NUMBERS));
}

function sortedBy<Thing>(shape: Shape<Thing>, parts: readonly Part[]): ReadonlyMap<string, readonly Thing[]> {
  const name = parts.map(({ path }) => path).join("\n");
  const known = shape.sorted.get(name);
  if (known !== undefined) return known;
  const sorted = Map.groupBy(shape.things, ({ scalars }) =>
    parts.reduce((key, { path, kind }) => join(key, markOf(kind, scalars.get(path) as Scalar)), ""),
  );
  const found = new Map([...sorted].map(([key, some]) => [key, some.map(({ thing }) => thing)] as const));
  if (shape.sorted.size >= MAX_SORTED) shape.sorted.clear();
  shape.sorted.set(name, found);
  return found;
}

function join(key: string, mark: string): string {
  return `${key}\n${mark}`;
}

/** What equal scalars have in common, however they are shown (`sameScalar`); others may have it in common, too. */
function markOf(kind: Part["kind"], value: Scalar): string {
  if (kind === "number") return String(step(Math.log(Math.abs(Number(value))))) + Math.sign(Number(value));
  const text = textOf(value);
  // Of data URLs the ends differ. Of a long text the beginning may be all that is shown.
  return kind === "wild" ? `${text.length} ${text.slice(-SHORTEST_CUT)}` : text.slice(0, SHORTEST_CUT);
}

/** Numbers of one step have one mark; one that is shown rounded may have come over the edge of its step. */
const STEP = 20 * ROUNDING;

function step(logarithm: number): number {
  return Math.floor(logarithm / STEP);
}

function marksOf(kind: Part["kind"], shown: Scalar): readonly string[] {
  if (kind !== "number") return [markOf(kind, shown)];
  // As text, where it is one: no number is shown as true.
  const number = typeof shown === "number" ? shown : Number(textOf(shown));
  if (Number.isNaN(number)) return [];
  const logarithm = Math.log(Math.abs(number));
  const [below, above] = [step(logarithm - 2 * ROUNDING), step(logarithm + 2 * ROUNDING)];
  return [...new Set([below, above])].map((one) => String(one) + Math.sign(number));
}
