/** Tables for people: plain text when it isn't a terminal, the first column to the left, numbers to the right. */

import { styleText } from "node:util";

export function printTable(title: string, head: readonly string[], rows: readonly (readonly string[])[]): void {
  const widths = head.map((name, at) => Math.max(name.length, ...rows.map((row) => (row[at] ?? "").length)));
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, at) => (at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)))
      .join("  ")
      .trimEnd();
  console.log(`\n${styleText("bold", title)}`);
  console.log(styleText("dim", line(head)));
  for (const row of rows) console.log(coloured(line(row)));
}

export function printNote(text: string): void {
  console.log(styleText("dim", text));
}

export function fixed(value: number, digits: number): string {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A goal and whether it was met, as one cell. */
export function goal(value: number, relation: "at least" | "at most", bound: number, digits: number): string {
  const met = relation === "at least" ? value >= bound : value <= bound;
  return `${relation} ${fixed(bound, digits)} ${met ? MET : SHORT}`;
}

const MET = "met";
const SHORT = "SHORT";

function coloured(line: string): string {
  return line
    .replaceAll(new RegExp(`\\b${MET}\\b`, "g"), (word) => styleText("green", word))
    .replaceAll(new RegExp(`\\b${SHORT}\\b`, "g"), (word) => styleText("red", word));
}
