import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { keyFault } from "../../src/bucket/keys.ts";
import { batchIdFrom, OBJECT_KEYS } from "../../src/core/naming.ts";
import {
  copyPriority,
  extensionOf,
  filesOf,
  isFileUrl,
  MAX_FILES,
  mapTexts,
  missingFiles,
  withKeys,
} from "../../src/core/outputs.ts";
import { DAY, SECOND } from "../../src/core/time.ts";

const BATCH = batchIdFrom(new Uint8Array(13).fill(7));
const nasty = fc.oneof(
  fc.webUrl({ withQueryParameters: true, withFragments: true }),
  fc.string({ unit: "binary" }).map((path) => `https://h.example/${path}`),
  fc
    .stringMatching(/^(\.\.\/|%2e%2e%2f|\/){0,4}[a-z.%/\\]{0,20}(\.[a-zA-Z0-9.]{0,12})?$/)
    .map((path) => `http://h.example/${path}`),
  fc.string().map((text) => `data:text/plain,${text}`),
);
const anyOutput = fc.oneof(
  fc.jsonValue(),
  fc.letrec<{ tree: unknown; list: unknown[]; map: Record<string, unknown> }>((tie) => ({
    tree: fc.oneof({ maxDepth: 4 }, nasty, fc.jsonValue({ maxDepth: 0 }), tie("list"), tie("map")),
    list: fc.array(tie("tree"), { maxLength: 4 }),
    map: fc.dictionary(fc.string(), tie("tree"), { maxKeys: 4 }),
  })).tree,
);

test("object keys stay inside their item's folder, whatever the URL says", () => {
  fc.assert(
    fc.property(nasty, fc.nat(99_999_999), fc.nat(9_999), (url, index, n) => {
      const key = OBJECT_KEYS.output(BATCH, index, 1, n, extensionOf(url) ?? "bin");
      expect(key).toMatch(/^batches\/[0-9a-z]{20}\/items\/\d{8}\/output-\d+\.[a-z0-9]{1,8}$/);
      expect(keyFault(key)).toBeNull();
    }),
    { numRuns: 500 },
  );
});

test("files are numbered in reading order, each URL once", () => {
  fc.assert(
    fc.property(anyOutput, (output) => {
      const inOrder: string[] = [];
      JSON.stringify(output, (_name, value: unknown) => {
        if (typeof value === "string" && isFileUrl(value)) inOrder.push(value);
        return value;
      });
      const files = filesOf(output);
      expect(files.map(({ url }) => url)).toEqual([...new Set(inOrder)]);
      expect(files.map(({ n }) => n)).toEqual(files.map((_, n) => n));
    }),
  );
});

test("keys take the place of exactly their URLs; everything else stays as it is", () => {
  fc.assert(
    fc.property(anyOutput, fc.func(fc.boolean()), (output, isKept) => {
      const keys = new Map(filesOf(output).map(({ url, n }) => [url, isKept(url) ? `key-${n}` : undefined]));
      const replaced = withKeys(output, (url) => keys.get(url));
      const expected: unknown = JSON.parse(JSON.stringify(output ?? null), (_name, value: unknown) =>
        typeof value === "string" ? (keys.get(value) ?? value) : value,
      );
      expect(JSON.stringify(replaced ?? null)).toBe(JSON.stringify(expected));
      expect(withKeys(output, () => undefined)).toEqual(output);
    }),
  );
});

test("replacing the keys by their URLs again gives the output", () => {
  fc.assert(
    fc.property(anyOutput, (output) => {
      const files = filesOf(output);
      const keyOf = new Map(files.map(({ url, n }) => [url, `batches/b/items/00000000/output-${n}.bin`]));
      const urlOf = new Map(files.map(({ url, n }) => [`batches/b/items/00000000/output-${n}.bin`, url]));
      const kept = withKeys(output, (url) => keyOf.get(url));
      expect(filesOf(kept)).toEqual([]);
      expect(mapTexts(kept, (text) => urlOf.get(text) ?? text)).toEqual(output);
    }),
  );
});

test("what a file is, as a table", () => {
  const table: readonly (readonly [text: string, isFile: boolean, extension: string | null])[] = [
    ["https://replicate.delivery/x/out.png", true, "png"],
    ["http://127.0.0.1:7701/files/a.WAV?x=1.jpg#b.gif", true, "wav"],
    ["https://replicate.delivery/x/out.tar.gz", true, "gz"],
    ["https://replicate.delivery/x/out", true, null],
    ["https://replicate.delivery/x/out.", true, null],
    ["https://replicate.delivery/x/out.toolongextension", true, null],
    ["https://replicate.delivery/x.y/out", true, null],
    ["https://replicate.delivery/x/out.p%6Eg", true, null],
    ["https://replicate.delivery", true, null],
    ["HTTPS://REPLICATE.DELIVERY/A.PNG", true, "png"],
    ["data:image/png;base64,iVBORw0KGgo=", true, null],
    ["data:text/plain;charset=utf-8,hello", true, null],
    ["data:;base64,aGk=", true, null],
    ["data:,hello", true, null],
    ["", false, null],
    ["a sentence with https://h.example/a.png in it", false, null],
    ["https://h.example/a.png and more", false, null],
    ["https://", false, null],
    ["ftp://h.example/a.png", false, null],
    ["file:///etc/passwd", false, null],
    ["//h.example/a.png", false, null],
    ["Data: first, second", false, null],
    ["data:1,2,3", false, null],
    ["data", false, null],
  ];
  for (const [text, isFile, extension] of table) {
    expect([text, isFileUrl(text), isFile ? extensionOf(text) : null]).toEqual([text, isFile, extension]);
  }
});

test("nulls among files are missing files; nulls among anything else mean something", () => {
  const file = "https://h.example/a.png";
  const table: readonly (readonly [unknown, number])[] = [
    [null, 0],
    [[], 0],
    [[null], 0],
    [[null, "words"], 0],
    [[file, null, file, null], 2],
    [{ pictures: [file, null], other: [[null, file]], caption: null }, 2],
    [[{ url: file }, null], 0],
    [[file, null, "words"], 0],
  ];
  for (const [output, missing] of table) expect([output, missingFiles(output)]).toEqual([output, missing]);
  fc.assert(
    fc.property(anyOutput, (output) => {
      const nulls = JSON.stringify(output ?? null).split("null").length - 1;
      expect(missingFiles(output)).toBeLessThanOrEqual(nulls);
    }),
  );
});

describe("an output", () => {
  test("of a language model, in pieces, keeps its words", () => {
    const output = ["The", " data:", " first, second", "\n", "https://h.example/", " is a link"];
    expect(filesOf(output).map(({ url }) => url)).toEqual(["https://h.example/"]);
    expect(filesOf("Data: first, second")).toEqual([]);
  });

  test("keeps names that mean something to JavaScript", () => {
    const output: unknown = JSON.parse('{"__proto__": "https://h.example/a.png", "constructor": 1, "1": 2}');
    const replaced = withKeys(output, () => "key");
    expect(JSON.stringify(replaced)).toBe('{"1":2,"__proto__":"key","constructor":1}');
  });

  test("with more files, or deeper, than anybody returns is refused", () => {
    const urls = Array.from({ length: MAX_FILES + 1 }, (_, n) => `https://h.example/${n}`);
    expect(filesOf(urls.slice(1))).toHaveLength(MAX_FILES);
    expect(() => filesOf(urls)).toThrow(RangeError);
    let deep: unknown = "https://h.example/a";
    for (let depth = 0; depth < 64; depth++) deep = [deep];
    expect(filesOf(deep)).toHaveLength(1);
    expect(() => filesOf([deep])).toThrow(RangeError);
  });
});

test("a copy's priority is the minutes to its expiry, so that the nearest comes first", () => {
  expect(copyPriority(Date.UTC(2026, 0, 1, 0, 1))).toBe(3);
  expect(copyPriority(Date.UTC(2026, 10, 20, 12))).toBe(3 * 465_840);
  expect(copyPriority(0)).toBe(1);
  const turn = Date.UTC(2026, 0, 1) + 2 ** 21 * 20 * SECOND;
  expect([copyPriority(turn - 1), copyPriority(turn)], "it begins again").toEqual([2 ** 21 - 1, 1]);
  expect(new Date(turn).toISOString()).toBe("2027-05-01T10:50:40.000Z");
  const anyTime = fc.integer({ min: Date.UTC(2026, 0, 2), max: turn - DAY - 1 });
  fc.assert(
    fc.property(anyTime, fc.integer({ min: 20 * SECOND, max: DAY }), (expiryMs, laterMs) => {
      expect(copyPriority(expiryMs + laterMs)).toBeGreaterThan(copyPriority(expiryMs));
      expect(Number.isInteger(copyPriority(expiryMs))).toBe(true);
    }),
  );
});
