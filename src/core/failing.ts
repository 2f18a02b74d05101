/** Failures told apart by their cause, as far as their words tell: what a batch's page shows of ten thousand errors. */

/** So many groups of a batch are told apart; the last one is for all that comes later. */
export const MAX_GROUPS = 100;
export const OTHER_ERRORS = "other errors";
/** In characters. */
const LONGEST_GROUP = 160;
/** More of an error isn't looked at: some are whole logs. */
const LONGEST_READ = 10_000;

/**
 * An error's words without what differs from item to item: URLs, times, ids, numbers. Two failures with one cause come out
 * the same, mostly; that two causes do is possible, and harmless, since each item keeps its own error.
 */
export function failureGroup(error: string | null): string {
  const words = (error ?? "")
    .slice(0, LONGEST_READ)
    .replace(/https?:\/\/[^\s"'<>)]+/gi, "URL")
    .replace(/\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?/g, "TIME")
    .replace(/\b(?=[a-z0-9_-]*\d)[a-z0-9_-]{16,}\b/gi, "ID")
    .replace(/(?<![\w.])\d+(?:\.\d+)?(?![\w.]*\w)/g, "N")
    .replace(/\s+/g, " ")
    .trim();
  // Well-formed, since Redis reads it as JSON, which half a surrogate pair is not.
  return words === "" ? "no reason was given" : words.slice(0, LONGEST_GROUP).toWellFormed();
}
