/** Files of inputs, read row by row: every format, every way they are broken, and memory that stays bounded. */

import { createReadStream, existsSync } from "node:fs";
import { PassThrough, Readable } from "node:stream";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Target } from "../../src/core/prediction.ts";
import { type ReadRow, type ReadRowsOptions, readRows } from "../../src/rows/read-rows.ts";
import { formatOf, parseMapping } from "../../src/rows/row-arguments.ts";
import { RowsError } from "../../src/rows/rows-error.ts";

const TARGET: Target = { kind: "model", owner: "outlast", name: "text" };
const JSONL: ReadRowsOptions = { format: "jsonl", target: TARGET };
const CSV: ReadRowsOptions = { format: "csv", target: TARGET };
const TSV: ReadRowsOptions = { format: "tsv", target: TARGET };

async function read(content: string | Buffer | readonly Buffer[], options: ReadRowsOptions): Promise<ReadRow[]> {
  const chunks = Array.isArray(content) ? (content as readonly Buffer[]) : [Buffer.from(content as string)];
  return await collect(readRows(Readable.from(chunks), options));
}

async function collect(rows: AsyncIterable<ReadRow>): Promise<ReadRow[]> {
  const all: ReadRow[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

/** `[line, input, id?]` of good rows, `[line, reason]` of bad ones. */
async function brief(content: string | Buffer, options: ReadRowsOptions): Promise<unknown[]> {
  return (await read(content, options)).map((read) =>
    "reason" in read
      ? [read.line, read.reason]
      : [read.line, read.row.input, ...(read.row.id === undefined ? [] : [read.row.id])],
  );
}

describe("JSONL", () => {
  test("is read line by line, with the file's line numbers; blank lines are skipped", async () => {
    const text = '{"input":{"a":1}}\n\n  \r\n{"input":{"a":2},"id":"x","model":"o/n"}\r\n{"input":{"a":3}}';
    expect(await read(text, JSONL)).toEqual([
      { line: 1, row: { input: { a: 1 }, target: TARGET } },
      { line: 4, row: { input: { a: 2 }, id: "x", target: { kind: "model", owner: "o", name: "n" } } },
      { line: 5, row: { input: { a: 3 }, target: TARGET } },
    ]);
  });

  test("tells every bad line with its number and reason, and reads on", async () => {
    const bad = Buffer.concat([
      Buffer.from('{"input":{"a":1},"id":"x"}\nnonsense\n[1]\n{"id":"y"}\n{"input":{"a":"'),
      Buffer.from([0xc3, 0x28]),
      Buffer.from(
        `"}}\n{"input":{"a":"${"x".repeat(1_100_000)}"}}\n{"input":{},"id":"x"}\n{"input":{},"modle":"o/n"}\n`,
      ),
      Buffer.from('{"input":{"a":2}}\n{"input"'),
    ]);
    expect(await brief(bad, JSONL)).toEqual([
      [1, { a: 1 }, "x"],
      [2, expect.stringMatching(/^not JSON: /)],
      [3, 'a row is an object, {"input": {…}}, not a list'],
      [4, 'no "input"'],
      [5, "not valid UTF-8"],
      [6, "larger than 1048576 bytes: give files as URLs"],
      [7, 'the id "x" was given to line 1 already'],
      [8, expect.stringMatching(/^unknown key "modle"/)],
      [9, { a: 2 }],
      [10, expect.stringMatching(/^not JSON: /)],
    ]);
  });

  test("may begin with a byte order mark, and may be empty", async () => {
    expect(await brief('\ufeff{"input":{"a":1}}\n', JSONL)).toEqual([[1, { a: 1 }]]);
    expect(await brief("", JSONL)).toEqual([]);
    expect(await brief("\ufeff", JSONL)).toEqual([]);
    expect(await brief("\n\n", JSONL)).toEqual([]);
  });

  test("takes no --map and no --id", async () => {
    await expect(read("", { ...JSONL, map: [parseMapping("a=b")] })).rejects.toThrow(/--map and --id name columns/);
    await expect(read("", { ...JSONL, idColumn: "b" })).rejects.toThrow(/--map and --id name columns/);
  });

  test("in UTF-16 is refused with what to do", async () => {
    const utf16 = Buffer.from('\ufeff{"input":{}}\n', "utf16le");
    await expect(read(utf16, JSONL)).rejects.toThrow(new RowsError("the file is UTF-16: save it as UTF-8"));
  });
});

describe("CSV", () => {
  test("fields in quotes may hold commas, quotes and lines; a record's line is the one it starts in", async () => {
    const text = 'id,prompt\r\n1,"a, b"\r\n2,"say ""hi""\r\n\r\nthere"\r\n\r\n\r\n3,plain\n4,"x\ny"\n5,end';
    expect(await brief(text, CSV)).toEqual([
      [2, { prompt: "a, b" }, "1"],
      [3, { prompt: 'say "hi"\r\n\r\nthere' }, "2"],
      [8, { prompt: "plain" }, "3"],
      [9, { prompt: "x\ny" }, "4"],
      [11, { prompt: "end" }, "5"],
    ]);
  });

  test("tells a wrong number of columns, bad UTF-8 and repeated ids, and reads on", async () => {
    const text = Buffer.concat([
      Buffer.from("id,prompt\n1,a\n2\n3,c,d\n4,"),
      Buffer.from([0xff]),
      Buffer.from('\n1,e\n5,""\n6,f\n'),
    ]);
    expect(await brief(text, CSV)).toEqual([
      [2, { prompt: "a" }, "1"],
      [3, "1 cell, but the header has 2 columns"],
      [4, "3 cells, but the header has 2 columns"],
      [5, "not valid UTF-8"],
      [6, 'the id "1" was given to line 2 already'],
      [7, "no input: every cell that would fill one is empty"],
      [8, { prompt: "f" }, "6"],
    ]);
  });

  test.each([
    ['prompt\na\n"b\nc', 3, "a quote is opened and never closed"],
    ['prompt\na\n\n"b"c\nd\n', 4, "text follows a closing quote"],
    ['prompt\na\nb "c" d\ne\n', 3, "a quote stands inside a field"],
  ])("that breaks the rules of quoting is read up to there: %j", async (text, line, reason) => {
    expect(await brief(text, CSV)).toEqual([
      [2, { prompt: "a" }],
      [line, expect.stringMatching(new RegExp(`^${reason}.*; what follows was not read$`))],
    ]);
  });

  test("a record over the cap is told, and the next one read", async () => {
    const text = `prompt\n"${"x\n".repeat(540_000)}"\nb\n`;
    expect(await brief(text, CSV)).toEqual([
      [2, "larger than 1048576 bytes: give files as URLs"],
      [540_003, { prompt: "b" }],
    ]);
  });

  test("a byte order mark is no part of the first column's name", async () => {
    expect(await brief("\ufeffprompt\na\n", CSV)).toEqual([[2, { prompt: "a" }]]);
    expect(await brief('\ufeff"prompt"\na\n', CSV)).toEqual([[2, { prompt: "a" }]]);
  });

  test.each([
    ["", "no header line: a CSV file begins with its columns"],
    ["\n\n", "no header line: a CSV file begins with its columns"],
    ["a,a\n1,2\n", 'two columns are named "a": rename one'],
    [",a\n1,2\n", "column 1 has no name: choose columns with --map INPUT=COLUMN"],
  ])("%j as a whole is refused", async (text, message) => {
    await expect(read(text, CSV)).rejects.toThrow(new RowsError(message));
  });
});

describe("TSV", () => {
  test("has no quoting: a tab splits, and quotes are plain characters", async () => {
    const text = 'prompt\tid\r\n"a\t1\r\n\r\nb "c", d\t2\r\n""\t3';
    expect(await brief(text, TSV)).toEqual([
      [2, { prompt: '"a' }, "1"],
      [4, { prompt: 'b "c", d' }, "2"],
      [5, { prompt: '""' }, "3"],
    ]);
  });

  test("tells bad lines and reads on", async () => {
    const text = Buffer.concat([
      Buffer.from("prompt\tnote\na\tb\nc\n\td\te\n"),
      Buffer.from([0xe2, 0x82]),
      Buffer.from(`\tx\n${"y".repeat(1_100_000)}\tz\nf\t\n`),
    ]);
    expect(await brief(text, TSV)).toEqual([
      [2, { prompt: "a", note: "b" }],
      [3, "1 cell, but the header has 2 columns"],
      [4, "3 cells, but the header has 2 columns"],
      [5, "not valid UTF-8"],
      [6, "larger than 1048576 bytes: give files as URLs"],
      [7, { prompt: "f" }],
    ]);
  });

  const parti = new URL("../../../shared/data/PartiPrompts.tsv", import.meta.url);
  test.skipIf(!existsSync(parti))(
    "PartiPrompts has 1,632 prompts (skipped where the file isn't beside the project)",
    async () => {
      const options = { ...TSV, map: [parseMapping("prompt=Prompt")] };
      const rows = await collect(readRows(createReadStream(parti), options));
      expect(rows).toHaveLength(1_632);
      expect(rows.filter((row) => "reason" in row)).toEqual([]);
      expect(rows[0]).toEqual({ line: 2, row: { input: { prompt: "bond" }, target: TARGET } });
    },
  );
});

describe("columns", () => {
  const text = 'id,Prompt,Seed,Fast,More\n7,a,42,TRUE,"[1,{""b"":2}]"\n8,b,,,\n';

  test("without --map all are inputs of their own names, as text, but `id`, which is the id", async () => {
    expect(await brief(text, CSV)).toEqual([
      [2, { Prompt: "a", Seed: "42", Fast: "TRUE", More: '[1,{"b":2}]' }, "7"],
      [3, { Prompt: "b" }, "8"],
    ]);
  });

  test("with --map only the mapped ones are used, with their types; an empty cell leaves its input out", async () => {
    const map = ["prompt=Prompt", "seed:number=Seed", "go_fast:boolean=Fast", "extra:json=More"].map(parseMapping);
    expect(await brief(text, { ...CSV, map })).toEqual([
      [2, { prompt: "a", seed: 42, go_fast: true, extra: [1, { b: 2 }] }],
      [3, { prompt: "b" }],
    ]);
  });

  test("--id names the column of the id, with and without --map", async () => {
    expect(await brief(text, { ...CSV, map: [parseMapping("p=Prompt")], idColumn: "id" })).toEqual([
      [2, { p: "a" }, "7"],
      [3, { p: "b" }, "8"],
    ]);
    expect(await brief("id,a\n1,x\n2,\n", { ...CSV, idColumn: "a" })).toEqual([
      [2, { id: "1" }, "x"],
      [3, { id: "2" }],
    ]);
  });

  test("a name that isn't there is told with those that are", async () => {
    const map = [parseMapping("prompt=prompt")];
    const columns = '"id", "Prompt", "Seed", "Fast", "More"';
    await expect(read(text, { ...CSV, map })).rejects.toThrow(`no column "prompt"; the columns are ${columns}`);
    await expect(read(text, { ...CSV, idColumn: "ID" })).rejects.toThrow(`no column "ID"; the columns are ${columns}`);
  });

  test("one input can't be filled twice, one column can fill two", async () => {
    await expect(read(text, { ...CSV, map: ["a=Seed", "a=Fast"].map(parseMapping) })).rejects.toThrow(/"a" twice/);
    expect((await brief(text, { ...CSV, map: ["a=Seed", "b:number=Seed"].map(parseMapping) }))[0]).toEqual([
      2,
      { a: "42", b: 42 },
    ]);
  });

  test.each([
    ["n:number=x", "12", 12],
    ["n:number=x", " -1.5e3 ", -1500],
    ["n:number=x", ".5", 0.5],
    ["n:number=x", "0x10", 'column "x": "0x10" is not a number that can be kept exactly'],
    ["n:number=x", "1e999", 'column "x": "1e999" is not a number that can be kept exactly'],
    ["n:number=x", "9007199254740993", 'column "x": "9007199254740993" is not a number that can be kept exactly'],
    ["n:number=x", "many", 'column "x": "many" is not a number that can be kept exactly'],
    ["n:boolean=x", "False", false],
    ["n:boolean=x", "1", 'column "x": "1" is not true or false'],
    ["n:json=x", "null", null],
    ["n:json=x", "{a}", 'column "x": "{a}" is not JSON'],
    ["n:string=x", " a ", " a "],
  ])("--map %s reads %j as %j", async (map, cell, expected) => {
    const [row] = await read(`x\n${cell}\n`, { ...TSV, map: [parseMapping(map)] });
    expect(row && ("reason" in row ? row.reason : row.row.input["n"])).toEqual(expected);
  });

  test("an input may be named __proto__ without harm", async () => {
    const [row] = await read("__proto__\nx\n", TSV);
    expect(row && "row" in row && Object.keys(row.row.input)).toEqual(["__proto__"]);
  });

  test.each([
    ["prompt=Prompt", { key: "prompt", type: "string", column: "Prompt" }],
    ["seed:number=My=Seed:x", { key: "seed", type: "number", column: "My=Seed:x" }],
  ])("--map %s is understood", (text, mapping) => {
    expect(parseMapping(text)).toEqual(mapping);
  });

  test.each([
    ["prompt", /--map is INPUT=COLUMN/],
    ["=x", /--map is INPUT=COLUMN/],
    ["x=", /--map is INPUT=COLUMN/],
    ["seed:int=Seed", /the type in --map seed:int=Seed is string, number, boolean or json, not "int"/],
  ])("--map %s is refused", (text, message) => {
    expect(() => parseMapping(text)).toThrow(message);
  });
});

describe("the format", () => {
  test.each([
    ["a.jsonl", undefined, "jsonl"],
    ["a.NDJSON", undefined, "jsonl"],
    ["b/c.csv", undefined, "csv"],
    ["c.tsv", undefined, "tsv"],
    ["-", undefined, "jsonl"],
    ["-", "tsv", "tsv"],
    ["a.txt", "csv", "csv"],
  ])("of %j asked as %j is %s", (name, asked, format) => {
    expect(formatOf(name, asked)).toBe(format);
  });

  test("that can't be told has to be asked for", () => {
    expect(() => formatOf("inputs.txt")).toThrow("the format of inputs.txt doesn't show in its name: add --format");
    expect(() => formatOf("inputs.csv", "xml")).toThrow('--format is jsonl, csv or tsv, not "xml"');
  });
});

describe("any chunking gives the same rows", () => {
  const cell = fc.string({
    unit: fc.constantFrom("a", ",", "\t", '"', "\n", "\r\n", "é", "漢", "🦊", "\u2028", " "),
    maxLength: 8,
  });
  const table = fc.array(fc.record({ a: cell, b: cell }), { maxLength: 12 });
  const cuts = fc.array(fc.nat({ max: 400 }), { maxLength: 30 });
  const newline = fc.constantFrom("\n", "\r\n");
  const mark = fc.constantFrom("", "\ufeff");

  function split(content: string | Buffer, at: readonly number[]): Buffer[] {
    const bytes = Buffer.from(content);
    const places = [0, ...at.map((n) => n % (bytes.length + 1)).sort((x, y) => x - y), bytes.length];
    return places.slice(1).map((end, index) => bytes.subarray(places[index], end));
  }

  test("of JSONL", async () => {
    await fc.assert(
      fc.asyncProperty(table, cuts, newline, mark, async (rows, at, end, bom) => {
        const text = bom + rows.map((row) => JSON.stringify({ input: row }) + end).join("");
        const expected = rows.map((input, index) => ({ line: index + 1, row: { input, target: TARGET } }));
        expect(await read(split(text, at), JSONL)).toEqual(expected);
      }),
    );
  });

  test("of CSV, with the lines that records start in", async () => {
    const blank = fc.nat({ max: 2 });
    await fc.assert(
      fc.asyncProperty(table, cuts, newline, mark, fc.array(blank), async (rows, at, end, bom, blanks) => {
        const quoted = (text: string) =>
          /[",\n\r]/.test(text) || text === "" ? `"${text.replaceAll('"', '""')}"` : text;
        let text = `${bom}a,b${end}`;
        const expected = rows.map((row, index) => {
          text += end.repeat(blanks[index] ?? 0);
          const line = text.split("\n").length;
          text += `${quoted(row.a)},${quoted(row.b)}${end}`;
          const input = Object.fromEntries(Object.entries(row).filter(([, value]) => value !== ""));
          if (Object.keys(input).length > 0) return { line, row: { input, target: TARGET } };
          return { line, reason: "no input: every cell that would fill one is empty" };
        });
        expect(await read(split(text, at), CSV)).toEqual(expected);
      }),
      { numRuns: 400 },
    );
  });

  test("of TSV", async () => {
    const plain = cell.map((text) => `x${text.replace(/[\t\r\n]/g, "")}`);
    await fc.assert(
      fc.asyncProperty(fc.array(fc.record({ a: plain, b: plain })), cuts, newline, mark, async (rows, at, end, bom) => {
        const text = `${bom}a\tb${end}${rows.map((row) => `${row.a}\t${row.b}${end}`).join("")}`;
        const expected = rows.map((input, index) => ({ line: index + 2, row: { input, target: TARGET } }));
        expect(await read(split(text, at), TSV)).toEqual(expected);
      }),
    );
  });

  test("of any bytes at all: rows and reasons, or a RowsError", async () => {
    const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
    const texty = fc
      .string({ unit: fc.constantFrom('"', ",", "\n", "\r", "\t", "a", "é"), maxLength: 60 })
      .map((text) => Buffer.from(text));
    const format = fc.constantFrom(JSONL, CSV, TSV);
    const outcome = async (chunks: readonly Buffer[], options: ReadRowsOptions) =>
      await read(chunks, options).catch((error: unknown) => {
        if (error instanceof RowsError) return error.message;
        throw error;
      });
    await fc.assert(
      fc.asyncProperty(fc.oneof(bytes, texty), cuts, format, async (content, at, options) => {
        const whole = await outcome([content], options);
        expect(await outcome(split(content, at), options)).toEqual(whole);
      }),
      { numRuns: 500 },
    );
  });
});

describe("memory", () => {
  /** The most that was in use, beyond what had been before, while `source` was read; what may be collected isn't. */
  async function growth(
    source: Iterable<Buffer>,
    options: ReadRowsOptions,
  ): Promise<{ rows: number; bad: ReadRow[]; mib: number }> {
    setFlagsFromString("--expose-gc");
    const collectGarbage = runInNewContext("gc") as () => void;
    const held = () => {
      collectGarbage();
      const { heapUsed, arrayBuffers } = process.memoryUsage();
      return heapUsed + arrayBuffers;
    };
    const before = held();
    let most = 0;
    function* measured(): Generator<Buffer> {
      let unmeasuredBytes = 0;
      for (const piece of source) {
        yield piece;
        unmeasuredBytes += piece.length;
        if (unmeasuredBytes < 16 * 1024 * 1024) continue;
        most = Math.max(most, held() - before);
        unmeasuredBytes = 0;
      }
    }
    let rows = 0;
    const bad: ReadRow[] = [];
    for await (const row of readRows(Readable.from(measured()), options)) {
      rows++;
      if ("reason" in row) bad.push(row);
    }
    return { rows, bad, mib: Math.max(most, held() - before) / 1024 / 1024 };
  }

  const ROWS = 200_000;
  const padding = "x".repeat(900);
  function* lines(header: string, row: (n: number) => string): Generator<Buffer> {
    yield Buffer.from(header);
    for (let n = 0; n < ROWS; n += 100) {
      yield Buffer.from(Array.from({ length: 100 }, (_, k) => row(n + k)).join(""));
    }
  }

  test.each([
    ["JSONL", JSONL, () => lines("", (n) => `{"input":{"p":"${padding}${n}"},"id":"row ${n}"}\n`)],
    ["CSV", CSV, () => lines("id,p\n", (n) => `row ${n},"${padding}${n}"\n`)],
    ["TSV", TSV, () => lines("id\tp\n", (n) => `row number ${n}\t${padding}${n}\n`)],
  ] as const)("stays bounded over 200,000 rows of %s, 180 MB", { timeout: 120_000 }, async (_name, options, source) => {
    const { rows, bad, mib } = await growth(source(), options);
    expect(rows).toBe(ROWS);
    expect(bad).toEqual([]);
    expect(mib).toBeLessThan(150);
  });

  function* gigabyte(start: string, filling: string): Generator<Buffer> {
    yield Buffer.from(start);
    const piece = Buffer.alloc(1024 * 1024, filling);
    for (let n = 0; n < 1024; n++) yield piece;
    yield Buffer.from("\n");
  }

  test.each([
    ["JSONL", JSONL, '{"input":{}}\n', "x", 2],
    ["TSV", TSV, "p\na\n", "x", 3],
    ["CSV, quoted", CSV, 'p\na\n"', "x", 3],
    ["CSV, commas", CSV, "p\na\n", ",", 3],
  ] as const)(
    "stays bounded over one line of a gigabyte in %s",
    { timeout: 120_000 },
    async (_name, options, start, filling, line) => {
      const { bad, mib } = await growth(gigabyte(start, filling), options);
      expect(bad).toEqual([{ line, reason: expect.stringMatching(/^larger than 1048576 bytes/) as string }]);
      expect(mib).toBeLessThan(150);
    },
  );
});

describe("the source", () => {
  test.each([JSONL, CSV, TSV])(
    "is closed when the reader stops early, even while it waits for more: $format",
    async (options) => {
      const source = new PassThrough();
      source.write(options.format === "jsonl" ? '{"input":{}}\n{"input":{}}\n' : "p\na\nb\nc\nd\n");
      for await (const row of readRows(source, options)) {
        expect(row).toHaveProperty("row");
        break;
      }
      expect(source.destroyed).toBe(true);
    },
  );

  test.each([JSONL, CSV, TSV])("that fails is told by its own error: $format", async (options) => {
    const source = createReadStream("/nowhere/at/all.csv");
    await expect(collect(readRows(source, options))).rejects.toThrow(/ENOENT/);
  });
});
