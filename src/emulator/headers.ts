/** The two request headers that a create understands beyond the usual ones. */

const LONGEST_HOLD_S = 60;
const SHORTEST_DEADLINE_S = 5;
const LONGEST_DEADLINE_S = 24 * 3_600;
const SECONDS: Readonly<Record<string, number>> = { h: 3_600, m: 60, s: 1 };

/**
 * `Prefer: wait` holds the request up to 60 s, `wait=n` up to n, 1 to 60. More is held for 60 s (the JavaScript client
 * sends whatever it is told); anything else is ignored, as a preference may be.
 */
export function parsePrefer(header: string | undefined): { readonly holdMs: number; readonly applied: string } | null {
  const match = /^\s*wait(?:=(\d{1,9}))?\s*$/.exec(header ?? "");
  if (!match) return null;
  if (match[1] === undefined) return { holdMs: LONGEST_HOLD_S * 1_000, applied: "wait" };
  const seconds = Math.min(Math.max(Number(match[1]), 1), LONGEST_HOLD_S);
  return { holdMs: seconds * 1_000, applied: `wait=${seconds}` };
}

export type CancelAfter = { readonly ms: number } | { readonly mistake: string } | null;

/** `Cancel-After`: seconds, or hours, minutes and seconds as in 1h30m45s; from 5 s to 24 h. */
export function parseCancelAfter(header: string | undefined): CancelAfter {
  if (header === undefined) return null;
  const text = header.trim();
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : sumOfUnits(text);
  if (seconds === null)
    return { mistake: `Cancel-After: ${JSON.stringify(text)} isn't a duration such as 90, 90s or 1m30s` };
  if (seconds < SHORTEST_DEADLINE_S) return { mistake: `Cancel-After must be at least ${SHORTEST_DEADLINE_S} seconds` };
  if (seconds > LONGEST_DEADLINE_S) return { mistake: "Cancel-After must be at most 24 hours" };
  return { ms: Math.round(seconds * 1_000) };
}

function sumOfUnits(text: string): number | null {
  const match = /^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text);
  if (!match || text === "") return null;
  return ["h", "m", "s"].reduce((sum, unit, index) => sum + Number(match[index + 1] ?? 0) * (SECONDS[unit] ?? 0), 0);
}
