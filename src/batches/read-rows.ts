/**
 * Reads a file of inputs, or stdin, row by row: JSONL, CSV or TSV, always UTF-8 (a byte order mark is dropped).
 *
 * Every row comes with the number of the line it starts in, as an editor shows it, and is either a `Row` or the reason
 * why it isn't one. The caller decides how many reasons it wants to hear; leaving the loop closes the source.
 * Mistakes that no row is to blame for (no such column, UTF-16) throw a RowsError whose message is one line.
 *
 *   JSONL  one object a line, as `src/core/rows.ts` says. Lines of white space are skipped.
 *   CSV    RFC 4180: a header line, commas, fields in double quotes where they hold commas, quotes or line ends.
 *   TSV    a header line, then a tab splits, and nothing else: quotes are plain characters.
 *
 * In CSV and TSV, `map` says which column fills which input, and `idColumn` which one holds the id. Without `map`
 * every column is an input of its own name, as text, and a column `id` is the id. With `map` only what it names is
 * used, and the id only by `idColumn`. An empty cell leaves its input out. Every record needs as many cells as the header.
 *
 * Memory is bounded by the row cap, whatever comes: of a line that is too long the rest is skipped. A CSV record that
 * never ends, or breaks the rules of quoting, ends the reading, since nobody can say where the next one starts.
 * Only ids are remembered, to name the first line of two that have the same.
 */

import { extname } from "node:path";
import { pipeline, Readable } from "node:stream";
import { type CsvError, parse } from "csv-parse";
import type { Target } from "../core/prediction.ts";
import { MAX_ROW_BYTES, type Row, readRow } from "../core/rows.ts";

export type RowFormat = "jsonl" | "csv" | "tsv";

/** An input, and the column that fills it: `--map seed:number=Seed`. */
export type Mapping = { readonly key: string; readonly type: CellType; readonly column: string };
type CellType = "string" | "number" | "boolean" | "json";

export type ReadRowsOptions = {
  readonly format: RowFormat;
  /** For rows that name none of their own; CSV and TSV can't. */
  readonly target?: Target;
  readonly map?: readonly Mapping[];
  readonly idColumn?: string;
};

export type ReadRow = { readonly line: number; readonly row: Row } | { readonly line: number; readonly reason: string };

/** The file can't be read this way, whatever its rows hold; the message is one line for a person. */
export class RowsError extends Error {
  override readonly name = "RowsError";
}

export async function* readRows(source: Readable, options: ReadRowsOptions): AsyncGenerator<ReadRow, void, undefined> {
  const defaults = options.target === undefined ? {} : { target: options.target };
  const firstLines = new Map<string, number>();
  try {
    for await (const record of recordsOf(source, options)) {
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

// -- what the command line says --------------------------------------------------------------------------------------

/** The format asked for, else the one of the file's name; stdin (`-`) is JSONL unless asked otherwise. */
export function formatOf(fileName: string, asked?: string): RowFormat {
  const name = asked ?? (fileName === "-" ? "jsonl" : extname(fileName).slice(1));
  switch (name.toLowerCase()) {
    case "jsonl":
    case "ndjson":
      return "jsonl";
    case "csv":
      return "csv";
    case "tsv":
    case "tab":
      return "tsv";
    default:
      throw new RowsError(
        asked === undefined
          ? `the format of ${fileName} doesn't show in its name: add --format jsonl, csv or tsv`
          : `--format is jsonl, csv or tsv, not ${quote(asked)}`,
      );
  }
}

/** `prompt=Prompt`, `seed:number=Seed`: an input, the type of its cells, and the column. Columns may hold `=`. */
export function parseMapping(text: string): Mapping {
  const match = /^([^=:]+)(?::([^=:]*))?=(.+)$/s.exec(text);
  const [, key, type = "string", column] = match ?? [];
  if (key === undefined || column === undefined) {
    throw new RowsError(`--map is INPUT=COLUMN or INPUT:TYPE=COLUMN, as in seed:number=Seed, not ${quote(text)}`);
  }
  if (type !== "string" && type !== "number" && type !== "boolean" && type !== "json") {
    throw new RowsError(`the type in --map ${text} is string, number, boolean or json, not ${quote(type)}`);
  }
  return { key, type, column };
}

// -- records ---------------------------------------------------------------------------------------------------------

type Rejected = { readonly line: number; readonly reason: string };
type Value = { readonly line: number; readonly value: unknown };
/** A cell's bytes stand in its characters, one each (latin1), until it is used: bad UTF-8 is told, not replaced. */
type Cells = { readonly line: number; readonly cells: readonly string[] };

function recordsOf(source: Readable, options: ReadRowsOptions): AsyncGenerator<Value | Rejected, void, undefined> {
  switch (options.format) {
    case "jsonl":
      if ((options.map ?? []).length > 0 || options.idColumn !== undefined) {
        throw new RowsError(
          '--map and --id name columns of CSV and TSV; in JSONL "input" and "id" are keys of each row',
        );
      }
      return jsonValues(linesOf(bytesOf(source)));
    case "csv":
      return tableValues(csvCells(source), options);
    case "tsv":
      return tableValues(tsvCells(linesOf(bytesOf(source))), options);
    default:
      return options.format satisfies never;
  }
}

async function* jsonValues(lines: AsyncIterable<Line | Rejected>): AsyncGenerator<Value | Rejected, void, undefined> {
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
      yield parsedJson(line, text);
    }
  }
}

function parsedJson(line: number, text: string): Value | Rejected {
  try {
    return { line, value: JSON.parse(text) as unknown };
  } catch (error) {
    return { line, reason: `not JSON: ${error instanceof Error ? error.message.slice(0, 200) : String(error)}` };
  }
}

async function* tableValues(
  records: AsyncIterable<Cells | Rejected>,
  options: ReadRowsOptions,
): AsyncGenerator<Value | Rejected, void, undefined> {
  let header: { readonly width: number; readonly plan: Plan } | null = null;
  for await (const record of records) {
    if (header === null) {
      if ("reason" in record) throw new RowsError(`the header in line ${record.line} can't be read: ${record.reason}`);
      const columns = record.cells.map(decodeCell);
      if (!columns.every((column) => column !== null)) throw new RowsError("the header line isn't valid UTF-8");
      header = { width: columns.length, plan: planOf(columns, options) };
    } else if ("reason" in record) {
      yield record;
    } else if (record.cells.length !== header.width) {
      const reason = `${count(record.cells.length, "cell")}, but the header has ${count(header.width, "column")}`;
      yield { line: record.line, reason };
    } else {
      yield fill(record, header.plan);
    }
  }
  if (header === null)
    throw new RowsError(`no header line: a ${options.format.toUpperCase()} file begins with its columns`);
}

// -- columns ---------------------------------------------------------------------------------------------------------

type Plan = {
  readonly inputs: readonly (Mapping & { readonly index: number })[];
  readonly idIndex: number;
};

function planOf(columns: readonly string[], { map = [], idColumn }: ReadRowsOptions): Plan {
  const indexOf = (column: string): number => {
    const index = columns.indexOf(column);
    if (index === -1) throw new RowsError(`no column ${quote(column)}; the columns are ${listed(columns)}`);
    if (columns.includes(column, index + 1)) throw new RowsError(`two columns are named ${quote(column)}: rename one`);
    return index;
  };
  if (map.length === 0) {
    const unnamed = columns.indexOf("");
    if (unnamed !== -1)
      throw new RowsError(`column ${unnamed + 1} has no name: choose columns with --map INPUT=COLUMN`);
  }
  const idIndex = indexOfId(columns, map, idColumn, indexOf);
  const used =
    map.length > 0
      ? map
      : columns
          .filter((_, index) => index !== idIndex)
          .map((column): Mapping => ({ key: column, type: "string", column }));
  const inputs = used.map((mapping) => ({ ...mapping, index: indexOf(mapping.column) }));
  const twice = inputs.find(({ key }, index) => inputs.findIndex((other) => other.key === key) !== index);
  if (twice !== undefined) throw new RowsError(`--map fills the input ${quote(twice.key)} twice`);
  return { inputs, idIndex };
}

/** -1: the rows have no ids. */
function indexOfId(
  columns: readonly string[],
  map: readonly Mapping[],
  idColumn: string | undefined,
  indexOf: (column: string) => number,
): number {
  if (idColumn !== undefined) return indexOf(idColumn);
  return map.length === 0 && columns.includes("id") ? indexOf("id") : -1;
}

function fill({ line, cells }: Cells, plan: Plan): Value | Rejected {
  const entries: [string, unknown][] = [];
  for (const { index, key, type, column } of plan.inputs) {
    const text = decodeCell(cells[index]);
    if (text === null) return { line, reason: NOT_UTF8 };
    if (text === "") continue;
    const value = convert(text, type);
    if (value === undefined) {
      return { line, reason: `column ${quote(column)}: ${quote(text)} is not ${TYPE_WORDS[type]}` };
    }
    entries.push([key, value]);
  }
  if (entries.length === 0) return { line, reason: "no input: every cell that would fill one is empty" };

  const id = plan.idIndex === -1 ? "" : decodeCell(cells[plan.idIndex]);
  if (id === null) return { line, reason: NOT_UTF8 };
  return { line, value: { input: Object.fromEntries(entries), ...(id !== "" && { id }) } };
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
        return JSON.parse(text) as unknown;
      } catch {
        return undefined;
      }
    default:
      return type satisfies never;
  }
}

// -- bytes and lines -------------------------------------------------------------------------------------------------

const PIECE_BYTES = 64 * 1024;
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const NOT_UTF8 = "not valid UTF-8";

/** The source in pieces of at most 64 KiB, without its byte order mark. */
async function* bytesOf(source: AsyncIterable<Uint8Array | string>): AsyncGenerator<Buffer, void, undefined> {
  let start: Buffer | null = Buffer.alloc(0);
  for await (const chunk of source) {
    let bytes =
      typeof chunk === "string" ? Buffer.from(chunk) : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    if (start !== null) {
      bytes = Buffer.concat([start, bytes]);
      start = bytes.length < 3 ? bytes : null;
      if (start !== null) continue;
      bytes = withoutMark(bytes);
    }
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) yield bytes.subarray(at, at + PIECE_BYTES);
  }
  if (start !== null && start.length > 0) yield withoutMark(start);
}

function withoutMark(bytes: Buffer): Buffer {
  const mark = bytes.toString("latin1", 0, 3);
  if (mark.startsWith("\xff\xfe") || mark.startsWith("\xfe\xff")) {
    throw new RowsError("the file is UTF-16: save it as UTF-8");
  }
  return mark === "\xef\xbb\xbf" ? bytes.subarray(3) : bytes;
}

type Line = { readonly line: number; readonly bytes: Buffer };

/** Lines without their ends (LF or CRLF). One over the cap is skipped and told; it is never held. */
async function* linesOf(pieces: AsyncIterable<Buffer>): AsyncGenerator<Line | Rejected, void, undefined> {
  let parts: Buffer[] = [];
  let size = 0;
  let line = 1;
  const finished = (): Line | Rejected => {
    if (size > MAX_ROW_BYTES + 1) return { line, reason: TOO_LARGE };
    const bytes = Buffer.concat(parts);
    return { line, bytes: bytes.at(-1) === RETURN ? bytes.subarray(0, -1) : bytes };
  };
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const newline = piece.indexOf(NEWLINE, at);
      const end = newline === -1 ? piece.length : newline;
      size += end - at;
      if (size > MAX_ROW_BYTES + 1) parts = [];
      else parts.push(piece.subarray(at, end));
      at = end + 1;
      if (newline === -1) continue;
      yield finished();
      parts = [];
      size = 0;
      line++;
    }
  }
  if (size > 0) yield finished();
}

const TOO_LARGE = `larger than ${MAX_ROW_BYTES} bytes: give files as URLs`;

/** A new decoder would cost more than what it decodes. */
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decode(bytes: Buffer): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null;
  }
}

function decodeCell(cell = ""): string | null {
  return /[\x80-\xff]/.test(cell) ? decode(Buffer.from(cell, "latin1")) : cell;
}

// -- TSV and CSV -----------------------------------------------------------------------------------------------------

async function* tsvCells(lines: AsyncIterable<Line | Rejected>): AsyncGenerator<Cells | Rejected, void, undefined> {
  for await (const record of lines) {
    if ("reason" in record) {
      yield record;
    } else if (record.bytes.length > 0) {
      yield { line: record.line, cells: record.bytes.toString("latin1").split("\t") };
    }
  }
}

/** What may wait inside the parser beside the record it is in: pieces it wasn't given time for. */
const PARSER_SLACK_BYTES = 8 * PIECE_BYTES;

/**
 * csv-parse finds the fields. It can't number lines (a CRLF in quotes counts twice) and bounds a record by its text
 * alone (a gigabyte of commas passes), so both are done here, by the offset at which it says a record ends.
 */
async function* csvCells(source: Readable): AsyncGenerator<Cells | Rejected, void, undefined> {
  const place = new Place();
  let stopped = false;
  const stop = (reason: string) => {
    if (!stopped) parser.push({ line: place.nextLine(), reason: `${reason}; what follows was not read` });
    stopped = true;
  };

  const taken = (cells: readonly string[], end: number): Cells | Rejected => {
    const { line, size } = place.take(end);
    return size > MAX_ROW_BYTES ? { line, reason: TOO_LARGE } : { line, cells };
  };

  const parser = parse({
    encoding: "latin1",
    record_delimiter: ["\r\n", "\n"],
    relax_column_count: true,
    skip_empty_lines: true,
    skip_records_with_error: true, // a thrown error would take the good records before it along
    // Its types say that a record stays one; the line has to be found now, while the offset is known.
    on_record: (cells, { bytes }) => (stopped ? null : (taken(cells, bytes) as unknown as string[])),
  });
  parser.on("skip", (error: CsvError) => stop(QUOTING[error.code] ?? error.message));

  const pieces = async function* (): AsyncGenerator<Buffer, void, undefined> {
    for await (const piece of bytesOf(source)) {
      if (place.pending() > MAX_ROW_BYTES + PARSER_SLACK_BYTES) stop(TOO_LARGE);
      if (stopped) return;
      place.add(piece);
      yield piece;
    }
  };
  // Errors of the source destroy the parser, and so reach the loop below.
  pipeline(Readable.from(pieces(), { objectMode: false }), parser, () => {});
  for await (const record of parser) yield record as Cells | Rejected;
}

const QUOTING: Readonly<Record<string, string>> = {
  CSV_QUOTE_NOT_CLOSED: "a quote is opened and never closed",
  CSV_INVALID_CLOSING_QUOTE: 'text follows a closing quote (inside quotes, a quote is written twice: "")',
  INVALID_OPENING_QUOTE: "a quote stands inside a field that doesn't begin with one (quote the whole field)",
};

/** Turns offsets of records into line numbers, while bytes go by. */
class Place {
  /** Where the lines end that no record has taken yet, from `#first` on. */
  #ends: { readonly at: number; readonly blank: boolean }[] = [];
  #first = 0;
  #line = 1;
  /** Bytes seen; bytes that records have taken. */
  #seen = 0;
  #taken = 0;
  #lineStart = 0;
  #lastByte = 0;

  add(piece: Buffer): void {
    this.#ends = this.#ends.slice(this.#first);
    this.#first = 0;
    for (let at = piece.indexOf(NEWLINE); at !== -1; at = piece.indexOf(NEWLINE, at + 1)) {
      const length = this.#seen + at - this.#lineStart;
      const before = at === 0 ? this.#lastByte : piece[at - 1];
      this.#ends.push({ at: this.#seen + at, blank: length === 0 || (length === 1 && before === RETURN) });
      this.#lineStart = this.#seen + at + 1;
    }
    this.#seen += piece.length;
    this.#lastByte = piece.at(-1) ?? this.#lastByte;
  }

  /** Bytes that belong to no finished record. */
  pending(): number {
    return this.#seen - this.#taken;
  }

  /** Where the next record starts: blank lines before it are none. */
  nextLine(): number {
    for (; this.#ends[this.#first]?.blank === true; this.#first++) {
      this.#taken = (this.#ends[this.#first]?.at ?? 0) + 1;
      this.#line++;
    }
    return this.#line;
  }

  /** Takes the record that ends before offset `end`. */
  take(end: number): { readonly line: number; readonly size: number } {
    const line = this.nextLine();
    const size = end - this.#taken;
    for (; (this.#ends[this.#first]?.at ?? Number.POSITIVE_INFINITY) < end; this.#first++) this.#line++;
    this.#taken = end;
    return { line, size };
  }
}

// -- words -----------------------------------------------------------------------------------------------------------

function quote(text: string | undefined): string {
  const shown = text ?? "";
  return JSON.stringify(shown.length > 80 ? `${shown.slice(0, 77)}...` : shown);
}

function listed(columns: readonly string[]): string {
  const shown = columns.slice(0, 50).map(quote).join(", ");
  return columns.length > 50 ? `${shown} and ${columns.length - 50} more` : shown;
}

function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
