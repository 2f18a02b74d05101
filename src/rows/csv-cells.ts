/**
 * CSV by RFC 4180: commas, and double quotes round fields that hold commas, quotes or line ends. Empty lines are
 * skipped.
 *
 * A record may take several lines. Inside a field a quote is written twice, so a record goes on over the end of a line
 * as long as it holds an odd number of quotes. Lines are joined into records here, where they can be numbered and
 * bounded; `csv-parse` then finds the fields of one record at a time.
 *
 * A record that never ends, or breaks the rules of quoting, ends the reading: nobody can say where the next one starts.
 */

import { CsvError, parse } from "csv-parse/sync";
import { MAX_ROW_BYTES } from "../core/rows.ts";
import { type AtLine, type Line, TOO_LARGE } from "./row-lines.ts";
import type { Cells } from "./table-values.ts";

/** What is held of a record to find its end, so that one over the row cap is refused and the next one read. */
export const MAX_RECORD_BYTES = 2 * MAX_ROW_BYTES;

const NEVER_CLOSED = "a quote is opened and never closed";
const FAULTS: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: NEVER_CLOSED,
  CSV_INVALID_CLOSING_QUOTE: 'text follows a closing quote (inside quotes, a quote is written twice: "")',
  INVALID_OPENING_QUOTE: "a quote stands inside a field that doesn't begin with one (quote the whole field)",
};
const QUOTE = 0x22;

/** `lines` are those of up to MAX_RECORD_BYTES. */
export async function* csvCells(lines: AsyncIterable<AtLine<Line>>): AsyncGenerator<AtLine<Cells>, void, undefined> {
  let text = "";
  let start = 1;
  let quotes = 0;
  for await (const line of lines) {
    if (text === "") start = line.line;
    if ("reason" in line) {
      yield theEnd(start, line.reason);
      return;
    }
    text += line.bytes.toString("latin1") + line.end;
    quotes += quotesIn(line.bytes);
    const isOpen = quotes % 2 === 1;
    if (isOpen && text.length <= MAX_RECORD_BYTES) continue;

    const { cells, fault } = fieldsOf(text);
    if (fault !== undefined) {
      yield theEnd(start, fault === NEVER_CLOSED ? TOO_LARGE : fault);
      return;
    }
    if (text.length > MAX_ROW_BYTES) yield { line: start, reason: TOO_LARGE };
    else if (cells !== undefined) yield { line: start, cells };
    text = "";
    quotes = 0;
  }
  if (text !== "") yield theEnd(start, fieldsOf(text).fault ?? NEVER_CLOSED);
}

function quotesIn(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(QUOTE); at !== -1; at = bytes.indexOf(QUOTE, at + 1)) count++;
  return count;
}

/** No cells: the line is empty. */
function fieldsOf(record: string): { readonly cells?: readonly string[] | undefined; readonly fault?: string } {
  try {
    const [cells] = parse(record, { record_delimiter: ["\r\n", "\n"], skip_empty_lines: true });
    return { cells };
  } catch (error) {
    if (error instanceof CsvError) return { fault: FAULTS[error.code] ?? error.message };
    throw error;
  }
}

function theEnd(line: number, reason: string): { readonly line: number; readonly reason: string } {
  return { line, reason: `${reason}; what follows was not read` };
}
