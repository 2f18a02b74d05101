/** How wide text is on a terminal, and aligned columns. Control characters are never let through to a terminal. */

/** Characters that most terminals draw two columns wide: East Asian ones, and emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}|[\u{20000}-\u{3fffd}]/u;
const graphemes = new Intl.Segmenter();

export function textColumns(text: string): number {
  let columns = 0;
  for (const { segment } of graphemes.segment(text)) columns += WIDE.test(segment) ? 2 : 1;
  return columns;
}

/** Text of one line that does nothing to a terminal but show itself. */
export function harmless(text: string): string {
  return text
    .replace(/\s+/g, " ")
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd")
    .trim();
}

/** The text, or as much of it as fits with an ellipsis. */
export function cut(text: string, width: number): string {
  const shown = harmless(text);
  if (textColumns(shown) <= width) return shown;
  let kept = "";
  let columns = 1; // the ellipsis
  for (const { segment } of graphemes.segment(shown)) {
    columns += WIDE.test(segment) ? 2 : 1;
    if (columns > width) break;
    kept += segment;
  }
  return width <= 0 ? "" : `${kept.trimEnd()}…`;
}

export function padEnd(text: string, width: number): string {
  return text + " ".repeat(Math.max(width - textColumns(text), 0));
}

/** Rows under a header; each column as wide as its widest cell, numbers to the right. */
export function table(header: readonly string[], rows: readonly (readonly (string | number)[])[]): readonly string[] {
  const cells = rows.map((row) =>
    row.map((cell) => (typeof cell === "number" ? cell.toLocaleString("en-US") : cut(cell, 60))),
  );
  const widths = header.map((title, at) =>
    Math.max(textColumns(title), ...cells.map((row) => textColumns(row[at] ?? ""))),
  );
  const isNumber = header.map((_, at) => typeof rows[0]?.[at] === "number");
  return [header, ...cells].map((row) =>
    row
      .map((cell, at) => {
        const width = widths[at] ?? 0;
        return isNumber[at] === true ? " ".repeat(Math.max(width - textColumns(cell), 0)) + cell : padEnd(cell, width);
      })
      .join("  ")
      .trimEnd(),
  );
}

/** Names and values, a line each; a null has none. */
export function fields(values: Readonly<Record<string, string | null>>): readonly string[] {
  const shown = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== null);
  const width = Math.max(...shown.map(([name]) => textColumns(name)));
  return shown.map(([name, value]) => `${padEnd(name, width)}  ${value}`);
}

/** To the minute, in UTC. */
export function shortTime(iso: string): string {
  return iso.slice(0, 16).replace("T", " ");
}
