/**
 * Pages of a list of predictions, newest first, a hundred a page. A cursor is base64 of `p=` and a moment, as in the
 * published sample, and means "older than this"; with `r=1` before it, "newer than this". As no two predictions share
 * a moment, pages neither repeat nor omit one, however many are created meanwhile. No I/O in here.
 */

import { isoMicros, type Prediction } from "./prediction.ts";

const PAGE_SIZE = 100;

export type Page = {
  readonly predictions: readonly Prediction[];
  readonly next: string | null;
  readonly previous: string | null;
};

/** Microseconds since 1970; `after` is inclusive, `before` exclusive. */
export type Span = { readonly afterUs: number; readonly beforeUs: number };

/** `created` is in order of creation. Null: the cursor makes no sense. */
export function page(created: readonly Prediction[], span: Span, cursor: string | null): Page | null {
  const oldest = firstFrom(created, span.afterUs);
  const end = Math.max(oldest, firstFrom(created, span.beforeUs));
  const position = cursor === null ? { newer: false, atUs: Infinity } : readCursor(cursor);
  if (position === null) return null;

  let from: number;
  let to: number;
  if (position.newer) {
    from = Math.min(Math.max(firstFrom(created, position.atUs + 1), oldest), end);
    to = Math.min(from + PAGE_SIZE, end);
  } else {
    to = Math.max(Math.min(firstFrom(created, position.atUs), end), oldest);
    from = Math.max(to - PAGE_SIZE, oldest);
  }
  const shown = created.slice(from, to).reverse();
  const newest = shown[0];
  const last = shown.at(-1);
  return {
    predictions: shown,
    next: last !== undefined && from > oldest ? writeCursor(false, last.createdAtUs) : null,
    previous: newest !== undefined && to < end ? writeCursor(true, newest.createdAtUs) : null,
  };
}

/** ISO 8601 to microseconds; null for anything else. */
export function microsOf(text: string): number | null {
  const match = /^(\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d)?)(\.\d+)?(Z|[+-]\d\d:?\d\d)?$/.exec(text);
  const ms = match ? Date.parse(`${match[1]}${match[3] ?? (match[1]?.includes("T") ? "Z" : "")}`) : Number.NaN;
  if (Number.isNaN(ms)) return null;
  return ms * 1_000 + Math.floor(Number(match?.[2] ?? 0) * 1_000_000 + 1e-6);
}

function writeCursor(newer: boolean, us: number): string {
  const moment = isoMicros(us).replace("T", " ").replace("Z", "+00:00");
  return Buffer.from(`${newer ? "r=1&" : ""}${new URLSearchParams({ p: moment }).toString()}`).toString("base64");
}

function readCursor(cursor: string): { readonly newer: boolean; readonly atUs: number } | null {
  const fields = new URLSearchParams(Buffer.from(cursor, "base64").toString("latin1"));
  const atUs = microsOf((fields.get("p") ?? "").replace(" ", "T"));
  return atUs === null ? null : { newer: fields.get("r") === "1", atUs };
}

/** The index of the first prediction created at or after the moment. */
function firstFrom(created: readonly Prediction[], us: number): number {
  let low = 0;
  let high = created.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((created[middle]?.createdAtUs ?? Infinity) < us) low = middle + 1;
    else high = middle;
  }
  return low;
}
