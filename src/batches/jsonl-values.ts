/** JSONL: a JSON value a line. Lines of white space are skipped. */

import { type AtLine, decode, type Line, NOT_UTF8 } from "./row-lines.ts";

export async function* jsonlValues(
  lines: AsyncIterable<AtLine<Line>>,
): AsyncGenerator<AtLine<{ readonly value: unknown }>, void, undefined> {
  for await (const record of lines) {
    if ("reason" in record) {
      yield record;
      continue;
    }
    const { line } = record;
    const text = decode(record.bytes);
    if (text === null) {
      yield { line, reason: NOT_UTF8 };
    } else if (text.trim() !== "") {
      yield { line, ...parsed(text) };
    }
  }
}

function parsed(text: string): { readonly value: unknown } | { readonly reason: string } {
  try {
    return { value: JSON.parse(text) as unknown };
  } catch (error) {
    return { reason: `not JSON: ${error instanceof Error ? error.message.slice(0, 200) : String(error)}` };
  }
}
