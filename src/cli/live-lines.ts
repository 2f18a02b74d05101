/** A few lines at the bottom of a terminal that are drawn again and again in place. */

import type { WriteStream } from "node:tty";
import { stripVTControlCharacters, styleText } from "node:util";
import { textColumns } from "./columns.ts";
import { type Paint, PLAIN } from "./progress-bar.ts";

const HIDE_CURSOR = "\x1b[?25l";
const SHOW_CURSOR = "\x1b[?25h";
const CLEAR_BELOW = "\x1b[J";

export type LiveLines = Disposable & {
  /** Columns that a line may take. */
  readonly width: number;
  /** Replaces what was drawn before. */
  draw(lines: readonly string[]): void;
};

/** Disposing leaves the last lines where they are, and the cursor below them. */
export function openLiveLines(terminal: WriteStream): LiveLines {
  let drawn: readonly string[] = [];
  const showCursor = () => terminal.write(SHOW_CURSOR);
  process.once("exit", showCursor);
  terminal.write(HIDE_CURSOR);

  return {
    get width() {
      // A full line would wrap on some terminals, and the ^C that a terminal echoes behind it on all of them.
      return Math.max((terminal.columns || 80) - 3, 1);
    },
    draw(lines) {
      if (lines.join("\n") === drawn.join("\n")) return;
      terminal.write(`${backTo(drawn, terminal.columns || 80)}${CLEAR_BELOW}${lines.join("\n")}`);
      drawn = lines;
    },
    [Symbol.dispose]() {
      process.off("exit", showCursor);
      terminal.write(`${drawn.length > 0 ? "\n" : ""}${SHOW_CURSOR}`);
    },
  };
}

/** To the start of what was drawn; a terminal that became narrower since then has wrapped it. */
function backTo(drawn: readonly string[], columns: number): string {
  const rows = drawn.reduce((sum, line) => {
    return sum + Math.max(Math.ceil(textColumns(stripVTControlCharacters(line)) / columns), 1);
  }, 0);
  return rows > 1 ? `\r\x1b[${rows - 1}A` : "\r";
}

/** Whether lines can be redrawn there. */
export function canRedraw(stream: WriteStream, term: string | undefined): boolean {
  return stream.isTTY && term !== "dumb";
}

/** Colours where the stream shows them and nobody asked for none (NO_COLOR). */
export function paintFor(stream: WriteStream): Paint {
  return stream.isTTY ? (style, text) => styleText(style, text, { stream }) : PLAIN;
}
