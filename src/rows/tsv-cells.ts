/** TSV: a tab splits, and nothing else; quotes are plain characters. Empty lines are skipped. */

import type { AtLine, Line } from "./row-lines.ts";
import type { Cells } from "./table-values.ts";

export async function* tsvCells(lines: AsyncIterable<AtLine<Line>>): AsyncGenerator<AtLine<Cells>, void, undefined> {
  for await (const record of lines) {
    if ("reason" in record) {
      yield record;
    } else if (record.bytes.length > 0) {
      yield { line: record.line, cells: record.bytes.toString("latin1").split("\t") };
    }
  }
}
