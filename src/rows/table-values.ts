/**
 * CSV and TSV: the header line, and what each record after it says by its columns.
 *
 * `map` says which column fills which input, and `idColumn` which one holds the id. Without `map` every column is an
 * input of its own name, as text, and a column `id` is the id. With `map` only what it names is used, and the id only by
 * `idColumn`. An empty cell leaves its input out. Every record needs as many cells as the header.
 */

import { quote } from "../core/rows.ts";
import { parseExactJson } from "./exact-json.ts";
import { type AtLine, decode, NOT_UTF8 } from "./row-lines.ts";
import { RowsError } from "./rows-error.ts";

/** A cell's bytes stand in its characters, one each (latin1), until it is used: bad UTF-8 is told, not replaced. */
export type Cells = { readonly cells: readonly string[] };

/** An input, and the column that fills it: `--map seed:number=Seed`. */
export type Mapping = { readonly key: string; readonly type: CellType; readonly column: string };
type CellType = "string" | "number" | "boolean" | "json";

export type ColumnChoice = { readonly map?: readonly Mapping[]; readonly idColumn?: string };

type Value = { readonly value: unknown };

export async function* tableValues(
  records: AsyncIterable<AtLine<Cells>>,
  format: "csv" | "tsv",
  choice: ColumnChoice,
): AsyncGenerator<AtLine<Value>, void, undefined> {
  let header: Header | null = null;
  for await (const record of records) {
    const { line } = record;
    if (header === null) {
      if ("reason" in record) throw new RowsError(`the header in line ${line} can't be read: ${record.reason}`);
      header = readHeader(record.cells, choice);
    } else if ("reason" in record) {
      yield record;
    } else if (record.cells.length !== header.width) {
      const reason = `${count(record.cells.length, "cell")}, but the header has ${count(header.width, "column")}`;
      yield { line, reason };
    } else {
      yield { line, ...valueOf(record.cells, header) };
    }
  }
  if (header === null) throw new RowsError(`no header line: a ${format.toUpperCase()} file begins with its columns`);
}

// -- the header ------------------------------------------------------------------------------------------------------

type Header = {
  readonly width: number;
  readonly inputs: readonly (Mapping & { readonly index: number })[];
  /** null: the rows have no ids. */
  readonly idIndex: number | null;
};

function readHeader(cells: readonly string[], { map = [], idColumn }: ColumnChoice): Header {
  const columns = cells.map(decodeCell);
  if (!columns.every((column) => column !== null)) throw new RowsError("the header line isn't valid UTF-8");
  const indexOf = (column: string): number => {
    const index = columns.indexOf(column);
    if (index === -1) throw new RowsError(`no column ${quote(column)}; the columns are ${listed(columns)}`);
    if (columns.includes(column, index + 1)) throw new RowsError(`two columns are named ${quote(column)}: rename one`);
    return index;
  };

  const isMapped = map.length > 0;
  if (!isMapped && columns.includes("")) {
    throw new RowsError(`column ${columns.indexOf("") + 1} has no name: choose columns with --map INPUT=COLUMN`);
  }
  const idName = idColumn ?? (!isMapped && columns.includes("id") ? "id" : null);
  const idIndex = idName === null ? null : indexOf(idName);
  const used = isMapped
    ? map
    : columns.filter((column) => column !== idName).map((column): Mapping => ({ key: column, type: "string", column }));
  const inputs = used.map((mapping) => ({ ...mapping, index: indexOf(mapping.column) }));
  const twice = inputs.find(({ key }, index) => inputs.findIndex((other) => other.key === key) !== index);
  if (twice !== undefined) throw new RowsError(`--map fills the input ${quote(twice.key)} twice`);
  return { width: columns.length, inputs, idIndex };
}

function listed(columns: readonly string[]): string {
  const shown = columns.slice(0, 50).map(quote).join(", ");
  return columns.length > 50 ? `${shown} and ${columns.length - 50} more` : shown;
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}

// -- a record --------------------------------------------------------------------------------------------------------

/** As JSONL would have it: `{"input": {…}, "id"?: "…"}`. */
function valueOf(cells: readonly string[], header: Header): Value | { readonly reason: string } {
  const entries: [string, unknown][] = [];
  for (const { index, key, type, column } of header.inputs) {
    const text = decodeCell(cells[index]);
    if (text === null) return { reason: NOT_UTF8 };
    if (text === "") continue;
    const value = convert(text, type);
    if (value === undefined) return { reason: `column ${quote(column)}: ${quote(text)} is not ${TYPE_WORDS[type]}` };
    entries.push([key, value]);
  }
  if (entries.length === 0) return { reason: "no input: every cell that would fill one is empty" };

  const id = header.idIndex === null ? "" : decodeCell(cells[header.idIndex]);
  if (id === null) return { reason: NOT_UTF8 };
  return { value: { input: Object.fromEntries(entries), ...(id !== "" && { id }) } };
}

function decodeCell(cell = ""): string | null {
  return /[\x80-\xff]/.test(cell) ? decode(Buffer.from(cell, "latin1")) : cell;
}

const TYPE_WORDS = {
  string: "text",
  number: "a number that can be kept exactly",
  boolean: "true or false",
  json: "JSON",
};

/** undefined: the cell isn't of that type. */
function convert(text: string, type: CellType): unknown {
  switch (type) {
    case "string":
      return text;
    case "number": {
      const trimmed = text.trim();
      const value = Number(trimmed);
      if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(trimmed) || !Number.isFinite(value)) return undefined;
      return Number.isInteger(value) && !Number.isSafeInteger(value) ? undefined : value;
    }
    case "boolean": {
      const word = text.trim().toLowerCase();
      return word === "true" ? true : word === "false" ? false : undefined;
    }
    case "json":
      try {
        return parseExactJson(text);
      } catch {
        return undefined;
      }
    default:
      return type satisfies never;
  }
}
