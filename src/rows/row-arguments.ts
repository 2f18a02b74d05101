/** What the command line says about a file of rows: its format, and which column fills which input. */

import { extname } from "node:path";
import { quote } from "../core/rows.ts";
import type { RowFormat } from "./read-rows.ts";
import { RowsError } from "./rows-error.ts";
import type { Mapping } from "./table-values.ts";

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
