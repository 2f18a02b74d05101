/** Lines redrawn in place, and text that fits into columns. */

import { PassThrough } from "node:stream";
import type { WriteStream } from "node:tty";
import { describe, expect, test } from "vitest";
import { cut, fields, harmless, table, textColumns } from "../../src/cli/columns.ts";
import { canRedraw, openLiveLines } from "../../src/cli/live-lines.ts";

/** Of a terminal only what is used here. */
function terminal(columns: number) {
  const stream = Object.assign(new PassThrough({ encoding: "utf8" }), { columns, isTTY: true });
  return { stream, asTerminal: stream as unknown as WriteStream, written: () => String(stream.read() ?? "") };
}

describe("live lines", () => {
  test("are drawn over the ones before, and stay at the end with the cursor below", () => {
    const { asTerminal, written } = terminal(40);
    {
      using lines = openLiveLines(asTerminal);
      expect(lines.width).toBe(37);
      lines.draw(["one", "two"]);
      expect(written()).toBe("\u001b[?25l\r\u001b[Jone\ntwo");
      lines.draw(["one", "two"]);
      expect(written()).toBe("");
      lines.draw(["one", "2"]);
      expect(written()).toBe("\r\u001b[1A\u001b[Jone\n2");
    }
    expect(written()).toBe("\n\u001b[?25h");
  });

  test("are found again on a terminal that became narrower", () => {
    const { stream, asTerminal, written } = terminal(40);
    using lines = openLiveLines(asTerminal);
    lines.draw(["\u001b[32m123456789012345678901234567890\u001b[39m", "two"]);
    written();
    stream.columns = 20; // the first line takes two rows now
    lines.draw(["one"]);
    expect(written()).toBe("\r\u001b[2A\u001b[Jone");
  });

  test("are for terminals that can do it", () => {
    const { stream, asTerminal } = terminal(40);
    expect(canRedraw(asTerminal, "xterm-256color")).toBe(true);
    expect(canRedraw(asTerminal, "dumb")).toBe(false);
    stream.isTTY = false;
    expect(canRedraw(asTerminal, "xterm-256color")).toBe(false);
  });
});

describe("columns", () => {
  test.each([
    ["a fox", 5],
    ["狐", 2],
    ["한국어", 6],
    ["🦊", 2],
    ["e\u0301", 1],
  ])("%j takes %d", (text, columns) => {
    expect(textColumns(text)).toBe(columns);
  });

  test.each([
    ["a fox", 5, "a fox"],
    ["a red fox", 5, "a re…"],
    ["狐狐狐", 4, "狐…"],
    ["a  fox\n\tand\u001b[31m more", 40, "a fox and\ufffd[31m more"],
    ["anything", 0, ""],
  ])("%j cut to %d is %j", (text, width, expected) => {
    expect(cut(text, width)).toBe(expected);
  });

  test("text from elsewhere does nothing to a terminal but show itself", () => {
    expect(harmless("\u001b]0;owned\u0007\u202eevil\u009b2J")).toBe("\ufffd]0;owned\ufffd\ufffdevil\ufffd2J");
  });

  test("tables are aligned, numbers to the right", () => {
    const rows = [
      ["狐", 1_632, "open"],
      ["a long name", 7, "finished"],
    ];
    expect(table(["name", "items", "state"], rows)).toEqual([
      "name         items  state",
      "狐           1,632  open",
      "a long name      7  finished",
    ]);
    expect(fields({ id: "x", error: null, status: "saved" })).toEqual(["id      x", "status  saved"]);
  });
});
