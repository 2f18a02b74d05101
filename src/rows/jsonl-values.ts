/** JSONL: a JSON value a line. Lines of white space are skipped. */

import { parseExactJson } from "./exact-json.ts";
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
    return { value: parseExactJson(text) };
  } catch (error) {
    if (error instanceof RangeError) return { reason: "nested too deeply" };
    const why = (error as Error).message.slice(0, 200);
    return { reason: why.startsWith("the number ") ? why : `not JSON: ${why}` };
  }
}
