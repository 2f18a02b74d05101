/** Request headers that Replicate's API knows, read as its documentation has them. */

import { HOUR, MINUTE, SECOND } from "../core/time.ts";
import { type InvalidField, invalidInput } from "./problems.ts";

export const LONGEST_WAIT_SECONDS = 60;
export const SHORTEST_RUN_MS = 5 * SECOND;
export const LONGEST_RUN_MS = 24 * HOUR;
export const LONGEST_KEY = 255;

/** What a preference to wait comes to. `applied`: as the answer repeats it. */
export type Hold = { readonly seconds: number; readonly applied: string };

/**
 * `Prefer: wait` or `wait=n`, 1 to 60: how many seconds the request may be held; null: not at all. Other preferences
 * are ignored, as RFC 7240 has it. Throws a 422.
 */
export function readPrefer(header: string | readonly string[] | undefined): Hold | null {
  const preferences = [header ?? []].flat().join(",").split(",");
  for (const preference of preferences) {
    const match = /^wait(?:=(.*))?$/i.exec(preference.trim());
    if (match === null) continue;
    const [applied, value] = match;
    if (value === undefined) return { seconds: LONGEST_WAIT_SECONDS, applied };
    const seconds = Number(value);
    if (/^\d{1,3}$/.test(value) && seconds >= 1 && seconds <= LONGEST_WAIT_SECONDS) return { seconds, applied };
    throw wrong("Prefer", `wait=n takes 1 to ${LONGEST_WAIT_SECONDS} seconds`);
  }
  return null;
}

/** `Cancel-After: 90`, `90s`, `1h30m45s`: 5 s to 24 h; null: none. Throws a 422. */
export function readCancelAfter(header: string | readonly string[] | undefined): number | null {
  if (header === undefined) return null;
  const text = String(header).trim();
  const [, hours, minutes, seconds] = /^(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6}(?:\.\d{1,3})?)s?)?$/.exec(text) ?? [];
  const ms = Number(hours ?? 0) * HOUR + Number(minutes ?? 0) * MINUTE + Number(seconds ?? 0) * SECOND;
  if (ms >= SHORTEST_RUN_MS && ms <= LONGEST_RUN_MS) return ms;
  throw wrong("Cancel-After", "a number of seconds, or a duration such as 1h30m45s; 5 seconds to 24 hours");
}

/** `Idempotency-Key`: 1 to 255 visible characters, quoted or not; null: none. Throws a 422. */
export function readIdempotencyKey(header: string | readonly string[] | undefined): string | null {
  if (header === undefined) return null;
  const text = String(header).trim();
  const key = /^"(.*)"$/.exec(text)?.[1] ?? text;
  if (key.length >= 1 && key.length <= LONGEST_KEY && /^[\x21-\x7e]+$/.test(key)) return key;
  throw wrong("Idempotency-Key", `1 to ${LONGEST_KEY} visible ASCII characters`);
}

function wrong(header: string, description: string): Error {
  const field: InvalidField = { type: "invalid_header", field: `headers.${header}`, description };
  return invalidInput([field]);
}
