/**
 * Reads a file of inputs, or stdin, row by row: JSONL, CSV or TSV, always UTF-8 (a byte order mark is dropped).
 *
 * Every row comes with the number of the line it starts in, as an editor shows it, and is either a `Row` or the reason
 * why it isn't one. The caller decides how many reasons it wants to hear; leaving the loop closes the source.
 * Mistakes that no row is to blame for (no such column, UTF-16) throw a RowsError whose message is one line.
 *
 * On its way a row passes three files: `row-lines.ts` splits bytes into lines; `jsonl-values.ts`, or `csv-cells.ts` or
 * `tsv-cells.ts` with `table-values.ts`, make an object of one line or several; `src/core/rows.ts` judges the object.
 *
 * Memory is bounded by the row cap, whatever comes. Only ids are remembered, to name the first line of two that have
 * the same.
 */

import type { Readable } from "node:stream";
import type { Target } from "../core/prediction.ts";
import { quote, type Row, readRow } from "../core/rows.ts";
import { csvCells, MAX_RECORD_BYTES } from "./csv-cells.ts";
import { jsonlValues } from "./jsonl-values.ts";
import { type AtLine, linesOf } from "./row-lines.ts";
import { RowsError } from "./rows-error.ts";
import { type ColumnChoice, tableValues } from "./table-values.ts";
import { tsvCells } from "./tsv-cells.ts";

export type RowFormat = "jsonl" | "csv" | "tsv";

export type ReadRowsOptions = ColumnChoice & {
  readonly format: RowFormat;
  /** For rows that name none of their own; CSV and TSV can't. */
  readonly target?: Target;
};

export type ReadRow = AtLine<{ readonly row: Row }>;

export async function* readRows(source: Readable, options: ReadRowsOptions): AsyncGenerator<ReadRow, void, undefined> {
  const defaults = options.target === undefined ? {} : { target: options.target };
  const firstLines = new Map<string, number>();
  try {
    for await (const record of valuesOf(source, options)) {
      if ("reason" in record) {
        yield record;
        continue;
      }
      const { line } = record;
      const reading = readRow(record.value, defaults);
      if (!reading.ok) {
        yield { line, reason: reading.reason };
        continue;
      }
      const { id } = reading.row;
      const firstLine = id === undefined ? undefined : firstLines.get(id);
      if (firstLine !== undefined) {
        yield { line, reason: `the id ${quote(id)} was given to line ${firstLine} already` };
        continue;
      }
      // A copy: a piece of a line would keep the whole line in memory.
      if (id !== undefined) firstLines.set(Buffer.from(id).toString(), line);
      yield { line, row: reading.row };
    }
  } finally {
    source.destroy();
  }
}

function valuesOf(
  source: Readable,
  options: ReadRowsOptions,
): AsyncGenerator<AtLine<{ readonly value: unknown }>, void, undefined> {
  switch (options.format) {
    case "jsonl":
      if ((options.map ?? []).length > 0 || options.idColumn !== undefined) {
        throw new RowsError(
          '--map and --id name columns of CSV and TSV; in JSONL "input" and "id" are keys of each row',
        );
      }
      return jsonlValues(linesOf(source));
    case "csv":
      return tableValues(csvCells(linesOf(source, MAX_RECORD_BYTES)), "csv", options);
    case "tsv":
      return tableValues(tsvCells(linesOf(source)), "tsv", options);
    default:
      return options.format satisfies never;
  }
}
