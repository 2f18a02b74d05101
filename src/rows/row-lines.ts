/**
 * The lines of a file of rows, with their numbers as an editor shows them: UTF-8, without the byte order mark.
 *
 * A line over the cap is skipped and told, and never held, so memory is bounded whatever the file holds.
 */

import { MAX_ROW_BYTES } from "../core/rows.ts";
import { RowsError } from "./rows-error.ts";

/** What was read from that line on, or the reason why it can't be used. */
export type AtLine<T> = (T & { readonly line: number }) | { readonly line: number; readonly reason: string };

/** `end`: LF, CRLF, or whatever of them the last line of the file has. */
export type Line = { readonly bytes: Buffer; readonly end: "\n" | "\r\n" | "\r" | "" };

export const NOT_UTF8 = "not valid UTF-8";
export const TOO_LARGE = `larger than ${MAX_ROW_BYTES} bytes: give files as URLs`;

const NEWLINE = 0x0a;
const RETURN = 0x0d;

export async function* linesOf(
  source: AsyncIterable<Uint8Array | string>,
  maxBytes = MAX_ROW_BYTES,
): AsyncGenerator<AtLine<Line>, void, undefined> {
  let parts: Uint8Array[] = [];
  let size = 0;
  let line = 1;
  for await (const chunk of source) {
    const piece = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    for (let at = 0; at < piece.length; ) {
      const newline = piece.indexOf(NEWLINE, at);
      const end = newline === -1 ? piece.length : newline;
      size += end - at;
      if (size > maxBytes + 1) parts = [];
      else parts.push(piece.subarray(at, end));
      at = end + 1;
      if (newline === -1) continue;
      yield size > maxBytes + 1 ? { line, reason: TOO_LARGE } : { line, ...lineOf(parts, line, "\n") };
      parts = [];
      size = 0;
      line++;
    }
  }
  if (size > 0) yield size > maxBytes + 1 ? { line, reason: TOO_LARGE } : { line, ...lineOf(parts, line, "") };
}

function lineOf(parts: readonly Uint8Array[], line: number, newline: "\n" | ""): Line {
  const whole = Buffer.concat(parts);
  const bytes = line === 1 ? withoutMark(whole) : whole;
  return bytes.at(-1) === RETURN ? { bytes: bytes.subarray(0, -1), end: `\r${newline}` } : { bytes, end: newline };
}

function withoutMark(bytes: Buffer): Buffer {
  const mark = bytes.toString("latin1", 0, 3);
  if (mark.startsWith("\xff\xfe") || mark.startsWith("\xfe\xff")) {
    throw new RowsError("the file is UTF-16: save it as UTF-8");
  }
  return mark === "\xef\xbb\xbf" ? bytes.subarray(3) : bytes;
}

/** A new decoder would cost more than what it decodes. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** null: the bytes aren't UTF-8. */
export function decode(bytes: Buffer): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}
