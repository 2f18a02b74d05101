/** What a job may show: nothing that looks like a secret, and not more than a person reads. */

/** Of JSON; more is cut. */
const MAX_SHOWN = 2_000;
const MAX_DEPTH = 32;

const SECRET_KEYS =
  /^(?:.*[_-])?(?:token|secret|password|passwd|authorization|cookie|signature|api_?key|credentials?)$/i;

/** Tokens by their makers' prefixes, credentials in headers and URLs, and the parameters that sign a URL. */
const SECRET_TEXTS: readonly (readonly [RegExp, string])[] = [
  [/\b(?:r8_|sk-|whsec_|hf_|ghp_|xox[a-z]-|AKIA)[\w+/=-]{6,}/g, "***"],
  [/\b(Bearer|Basic|Token)\s+[\w.~+/=-]{8,}/gi, "$1 ***"],
  [/(\/\/)[^/\s:@]+:[^/\s@]+@/g, "$1***@"],
  [/([?&](?:[\w-]*(?:token|signature|sig|secret|key|credential)[\w-]*)=)[^&\s"'<>]+/gi, "$1***"],
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
