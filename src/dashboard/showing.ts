/** What a job may show: nothing that looks like a secret, and not more than a person reads. */

/** Of what people call their things, in characters. */
export const MAX_NAME = 200;

/** Of JSON; more is cut. */
const MAX_SHOWN = 2_000;
const MAX_DEPTH = 32;

const SECRET_KEYS =
  /^(?:.*[_-])?(?:token|secret|password|passwd|authorization|cookie|signature|api_?key|credentials?)$/i;

/**
 * Tokens by their makers' prefixes, credentials in headers and URLs, and the parameters that sign a URL. What stands
 * before and behind a word is bounded: a model may write a megabyte of anything, and somebody waits for the page.
 */
const SECRET_TEXTS: readonly (readonly [RegExp, string])[] = [
  [/\b(?:r8_|sk-|whsec_|hf_|ghp_|xox[a-z]-|AKIA)[\w+/=-]{6,}/g, "***"],
  [/\b(Bearer|Basic|Token)\s+[\w.~+/=-]{8,}/gi, "$1 ***"],
  [/(\/\/)[^/\s:@]{1,200}:[^/\s@]{1,200}@/g, "$1***@"],
  [/([?&][\w-]{0,40}(?:token|signature|sig|secret|key|credential)[\w-]{0,40}=)[^&\s"'<>]+/gi, "$1***"],
];

/** The same value with everything that looks like a secret starred out. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === "string") return redactText(value);
  if (typeof value !== "object" || value === null) return value;
  if (depth === MAX_DEPTH) return "…";
  if (Array.isArray(value)) return value.map((entry) => redact(entry, depth + 1));
  return Object.fromEntries(
    Object.entries(value).map(([key, entry]) => [
      key,
      typeof entry === "string" && SECRET_KEYS.test(key) ? "***" : redact(entry, depth + 1),
    ]),
  );
}

export function redactText(text: string): string {
  return SECRET_TEXTS.reduce((shown, [pattern, stars]) => shown.replace(pattern, stars), text);
}

/** Redacted, and cut to what fits on a screen, with its true size. */
export function showable(value: unknown): unknown {
  const shown = redact(value);
  const json = JSON.stringify(shown) ?? "null";
  if (json.length <= MAX_SHOWN) return shown;
  return { trimmed: `${json.slice(0, MAX_SHOWN)}…`, characters: json.length };
}

/** A text, redacted and cut. What would be cut anyway isn't looked at, a margin aside: no secret ends at the cut. */
export function excerpt(text: string, characters: number): string {
  const shown = redactText(text.slice(0, characters + MARGIN));
  return shown.length <= characters && text.length <= characters + MARGIN
    ? shown
    : `${shown.slice(0, characters).toWellFormed()}…`;
}

const MARGIN = 500;

/** JSON as a person reads it, redacted and cut. */
export function excerptOfJson(value: unknown, characters: number): string {
  const text = JSON.stringify(redact(beginningOf(value, { characters })), null, 2) ?? "null";
  return text.length <= characters ? text : `${text.slice(0, characters).toWellFormed()}…`;
}

/** Of a value of any size, a little more than so many characters can tell. */
function beginningOf(value: unknown, left: { characters: number }): unknown {
  if (typeof value === "string") {
    const kept = value.slice(0, Math.max(left.characters, 0) + MARGIN);
    left.characters -= kept.length;
    return kept;
  }
  left.characters -= 4;
  if (typeof value !== "object" || value === null) return value;
  const kept: [string, unknown][] = [];
  for (const key in value) {
    if (left.characters <= -MARGIN) break;
    left.characters -= key.length;
    kept.push([key, beginningOf((value as Record<string, unknown>)[key], left)]);
  }
  return Array.isArray(value) ? kept.map(([, entry]) => entry) : Object.fromEntries(kept);
}
