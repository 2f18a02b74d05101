/**
 * Which files an output holds, in what order, and what remains of it once they are copied.
 *
 * A provider's output is any JSON: a URL, a list of them, objects with URLs and text, data URLs, plain numbers.
 * A string is a file if all of it is one http(s) or data URL; everything else is kept as it is in the receipt.
 */

import { SECOND } from "./time.ts";

export type OutputFile = {
  /** Its place in reading order, from 0; names the object. */
  readonly n: number;
  readonly url: string;
};

/** Nobody returns so many; a limit on everything. */
export const MAX_FILES = 10_000;
const MAX_DEPTH = 64;

/**
 * The files of an output, depth first, in the order in which JSON writes them; a URL named twice is one file. Throws
 * RangeError past 10,000 files or 64 levels.
 */
export function filesOf(output: unknown): readonly OutputFile[] {
  const files = new Map<string, OutputFile>();
  const collect = (text: string) => {
    if (isFileUrl(text) && !files.has(text)) {
      if (files.size === MAX_FILES) throw new RangeError(`an output holds more than ${MAX_FILES} files`);
      files.set(text, { n: files.size, url: text });
    }
  };
  visit(output, 0, collect, () => {
    throw new RangeError(`an output is nested deeper than ${MAX_DEPTH}`);
  });
  return [...files.values()];
}

/**
 * Of lists that else hold files alone, how many entries are null: a model's files that its host failed to take in (Cog up to
 * 0.22 only logged that).
 */
export function missingFiles(output: unknown, depth = 0): number {
  if (typeof output !== "object" || output === null || depth === MAX_DEPTH) return 0;
  const entries: readonly unknown[] = Object.values(output);
  const nulls = entries.filter((entry) => entry === null).length;
  const files = entries.filter((entry) => typeof entry === "string" && isFileUrl(entry)).length;
  if (Array.isArray(output) && nulls > 0 && files > 0 && nulls + files === entries.length) return nulls;
  return entries.reduce((sum: number, entry) => sum + missingFiles(entry, depth + 1), 0);
}

/** The output with every file URL that `keyOf` knows replaced by its key. */
export function withKeys(output: unknown, keyOf: (url: string) => string | undefined): unknown {
  return mapTexts(output, (text) => (isFileUrl(text) ? (keyOf(text) ?? text) : text));
}

/** The same JSON with each of its strings, however deep, replaced by what `replace` makes of it. */
export function mapTexts(value: unknown, replace: (text: string) => unknown): unknown {
  return visit(value, 0, replace, (deeper) => deeper);
}

export function isFileUrl(text: string): boolean {
  // A type or nothing before the comma: prose may begin with "Data: first, second".
  if (/^data:(?:[\w.+-]+\/[\w.+-]+)?(?:; ?[^\s,;]*)*,/i.test(text)) return true;
  return /^https?:\/\/[^\s]+$/i.test(text) && URL.canParse(text);
}

/** `png` for `…/out.png?x=1`; null where the path has none that would be safe in a key. */
export function extensionOf(url: string): string | null {
  if (!/^https?:/i.test(url) || !URL.canParse(url)) return null;
  const name = new URL(url).pathname.split("/").at(-1) ?? "";
  return /\.([a-z0-9]{1,8})$/i.exec(name)?.[1]?.toLowerCase() ?? null;
}

function visit(
  value: unknown,
  depth: number,
  onText: (text: string) => unknown,
  onDeeper: (value: unknown) => unknown,
): unknown {
  if (typeof value === "string") return onText(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth === MAX_DEPTH) return onDeeper(value);
  if (Array.isArray(value)) return value.map((entry) => visit(entry, depth + 1, onText, onDeeper));
  return Object.fromEntries(
    Object.entries(value).map(([name, entry]) => [name, visit(entry, depth + 1, onText, onDeeper)]),
  );
}

const UNIT_MS = 20 * SECOND;
/** BullMQ's priorities go from 1 to this. */
const MAX_PRIORITY = 2 ** 21 - 1;

/**
 * The place of a copy in its queue: thirds of a minute from 2026-01-01 to the expiry, so that the nearest expiry is served
 * first. Within whole minutes the last of a full minute would come too late where there is hardly time for all. BullMQ's
 * priorities are used up after 485 days, on 2027-05-01 for the first time, and begin again: for as long as files are kept,
 * those that expire after that moment come before those that expire before it.
 */
export function copyPriority(expiryMs: number): number {
  const units = Math.max(Math.floor((expiryMs - Date.UTC(2026, 0, 1)) / UNIT_MS), 1);
  return ((units - 1) % MAX_PRIORITY) + 1;
}
