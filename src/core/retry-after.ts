/**
 * How long a provider asked us to wait, wherever it said so.
 *
 * Replicate's 429 has been seen with the wait in the body's `retry_after` (seconds) and in its sentence ("Your rate
 * limit resets in ~12s."), never with a `Retry-After` header, though all its clients look for one. So the order is
 * header, number, sentence; what can't be read is passed over, and null means that nobody named a time.
 *
 * The answer is whole milliseconds from 0 to an hour, rounded up.
 */

import { DAY, HOUR, MINUTE, SECOND } from "./time.ts";

export type RetryHint = {
  /** The `Retry-After` header as it came: seconds, or a date. */
  readonly header?: string | null;
  /** The body's `retry_after`, in seconds. */
  readonly seconds?: number | null;
  /** The provider's sentence. */
  readonly detail?: string | null;
};

/** A provider that asks for longer is asked again after this. */
const LONGEST_WAIT_MS = HOUR;

/** `nowMs` should come from the same clock as a header's date would: the provider's. */
export function retryAfterMs({ header, seconds, detail }: RetryHint, nowMs: number): number | null {
  const waitMs = fromHeader(header ?? "", nowMs) ?? fromSeconds(seconds ?? NaN) ?? fromSentence(detail ?? "");
  return waitMs === null ? null : Math.min(Math.max(Math.ceil(waitMs), 0), LONGEST_WAIT_MS);
}

function fromSeconds(seconds: number): number | null {
  return Number.isNaN(seconds) ? null : seconds * SECOND;
}

/**
 * HTTP's three date forms; the third, asctime's, names no zone and means UTC. Replicate's Python client also takes ISO
 * 8601.
 */
const ZONED_DATE =
  /^(?:[a-z]{3,9}, \d{1,2}[ -][a-z]{3}[ -]\d{2,4} [\d:]{8} (?:gmt|utc)|\d{4}-\d\d-\d\dT[\d:.]{5,16}(?:z|[+-]\d\d:\d\d))$/i;
const ASCTIME_DATE = /^[a-z]{3} [a-z]{3} [ \d]\d [\d:]{8} \d{4}$/i;

function fromHeader(header: string, nowMs: number): number | null {
  const text = header.trim();
  if (/^[+-]?\d{1,15}(?:\.\d{1,15})?$/.test(text)) return fromSeconds(Number(text));
  const date = ASCTIME_DATE.test(text) ? `${text} GMT` : text;
  const atMs = ASCTIME_DATE.test(text) || ZONED_DATE.test(text) ? Date.parse(date) : NaN;
  return Number.isNaN(atMs) ? null : atMs - nowMs;
}

const UNITS: readonly (readonly [names: RegExp, ms: number])[] = [
  [/^(?:ms|msecs?|milliseconds?)$/i, 1],
  [/^(?:s|secs?|seconds?)$/i, SECOND],
  [/^(?:m|mins?|minutes?)$/i, MINUTE],
  [/^(?:h|hrs?|hours?)$/i, HOUR],
  [/^(?:d|days?)$/i, DAY],
];

/**
 * Every length of time that the sentence puts after "in", "after", "for" or "wait"; the longest, so that a second
 * number in it can make us wait too long but never too short. Rates ("6 requests per minute") have no such word.
 */
function fromSentence(sentence: string): number | null {
  const text = sentence.slice(0, 2_000);
  const waits = Array.from(
    text.matchAll(
      /\b(?:in|after|for|wait)\b[\s:~≈]{0,8}(?:(?:about|around|approximately|another)[\s~≈]{1,8})?(?=\d)/gi,
    ),
  )
    .map((found) => lengthAt(text, found.index + found[0].length))
    .filter((ms) => ms !== null);
  return waits.length === 0 ? null : Math.max(...waits);
}

/** Reads "12s", "1m30s", "1 minute and 30 seconds" from `start`. */
function lengthAt(text: string, start: number): number | null {
  const part = /(\d{1,9}(?:\.\d{1,9})?)[\s-]{0,4}([a-z]{1,12})(?:[\s,]{1,4}(?:and\s{1,4})?(?=\d))?/iy;
  part.lastIndex = start;
  let totalMs: number | null = null;
  for (let found = part.exec(text); found !== null; found = part.exec(text)) {
    const unit = UNITS.find(([names]) => names.test(found?.[2] ?? ""));
    if (unit === undefined) break;
    totalMs = (totalMs ?? 0) + Number(found[1]) * unit[1];
  }
  return totalMs;
}

/** What Replicate reduces an account to whose credit runs low, or which has no means of payment. */
export type LowCreditTier = { readonly perMinute: number; readonly burst: number };

/**
 * Seen in 2026: "… Your rate limit for creating predictions is reduced to 6 requests per minute with a burst of 1
 * requests while you have less than $5.0 in credit. …", also ending in "until you add a payment method", or in nothing.
 */
export function lowCreditTier(detail: string): LowCreditTier | null {
  const found = /\breduced to (\d{1,6}) requests? per (second|minute)(?: with a burst of (\d{1,6}))?/i.exec(
    detail.slice(0, 2_000).replace(/\s+/g, " "),
  );
  if (found === null) return null;
  const perMinute = Number(found[1]) * (found[2]?.toLowerCase() === "second" ? 60 : 1);
  return perMinute === 0 ? null : { perMinute, burst: Math.max(Number(found[3] ?? 1), 1) };
}
