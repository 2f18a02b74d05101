import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import { encodeIndex, parseRow, placeRows, readRow, type StoredRow } from "../../src/bucket/input-parts.ts";
import { type BatchId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { WEBHOOK_EVENTS } from "../../src/core/prediction.ts";
import { batchNamed } from "../support/stages.ts";

let folder = "";
let bucket: Bucket;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "outlast-parts-"));
  bucket = await openFileBucket(folder);
});
afterAll(async () => {
  await bucket.close();
  await rm(folder, { recursive: true, force: true });
});

const anyName = fc.string({ minLength: 1, maxLength: 8 });
const anyTime = fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }).map((at) => at.toISOString());
const anyRow: fc.Arbitrary<StoredRow> = fc
  .record(
    {
      input: fc.dictionary(fc.string(), fc.jsonValue(), { noNullPrototype: true, maxKeys: 4 }),
      target: fc.oneof(
        fc.record({ kind: fc.constant("model" as const), owner: anyName, name: anyName }),
        fc.record({ kind: fc.constant("deployment" as const), owner: anyName, name: anyName }),
        fc.record({ kind: fc.constant("version" as const), version: anyName }),
      ),
      id: fc.string({ unit: "grapheme" }),
      reply_to: anyName,
      identity: anyName,
      input_sha256: anyName,
      nonce: fc.uuid(),
      created_at: anyTime,
      deadline: anyTime,
      webhook: fc.record(
        { url: fc.webUrl(), events: fc.subarray([...WEBHOOK_EVENTS]), base_url: fc.webUrl() },
        { noNullPrototype: true },
      ),
    },
    { requiredKeys: ["input", "target"], noNullPrototype: true },
  )
  // As JSON gives it back: -0 becomes 0.
  .map((row) => JSON.parse(JSON.stringify(row)) as StoredRow);

let made = 0;
async function writePart(batch: BatchId, part: number, first: number, rows: readonly StoredRow[]): Promise<void> {
  const lines = rows.map((row) => `${JSON.stringify(row)}\n`);
  let end = 0;
  const ends = lines.map((line) => (end += Buffer.byteLength(line)));
  await bucket.put(OBJECT_KEYS.input(batch, part), lines.join(""), { contentType: "application/x-ndjson" });
  await bucket.put(OBJECT_KEYS.inputIndex(batch, part), encodeIndex(first, ends), {
    contentType: "application/octet-stream",
  });
}

test("any row of any part is found by its index and comes back as it was put", async () => {
  const world = fc.record({
    rows: fc.array(anyRow, { minLength: 1, maxLength: 12 }),
    first: fc.nat(1_000),
    part: fc.nat(20),
    from: fc.nat(11),
    count: fc.integer({ min: 1, max: 20 }),
  });
  await fc.assert(
    fc.asyncProperty(world, async ({ rows, first, part, from, count }) => {
      const batch = batchNamed(`parts ${made++}`);
      const at = from % rows.length;
      await writePart(batch, part, first, rows);
      const places = await placeRows(bucket, batch, { part, first }, first + at, count);
      const expected = rows.slice(at, at + count);
      expect(places.map(({ index }) => index)).toEqual(expected.map((_, n) => first + at + n));
      const read = await Promise.all(places.map((place) => readRow(bucket, batch, { ...place, part })));
      expect(read).toEqual(expected);
    }),
    { numRuns: 40 },
  );
});

describe("a part", () => {
  const row: StoredRow = { input: { n: 1 }, target: { kind: "model", owner: "a", name: "b" } };

  test("has no rows past its end", async () => {
    const batch = batchNamed("past the end");
    await writePart(batch, 0, 0, [row, row, row]);
    const indexes = async (index: number, count: number) =>
      (await placeRows(bucket, batch, { part: 0, first: 0 }, index, count)).map((place) => place.index);
    expect(await indexes(0, 99)).toEqual([0, 1, 2]);
    expect(await indexes(2, 1)).toEqual([2]);
    expect(await indexes(3, 1)).toEqual([]);
    expect(await indexes(50, 5)).toEqual([]);
  });

  test("that begins later holds no earlier rows: asking for them is a defect", async () => {
    const batch = batchNamed("later");
    await writePart(batch, 1, 10, [row]);
    await expect(placeRows(bucket, batch, { part: 1, first: 10 }, 9, 1)).rejects.toThrow(/before part 1/);
  });

  test("that is missing, whole or in part, is told by name", async () => {
    const batch = batchNamed("missing");
    await expect(placeRows(bucket, batch, { part: 0, first: 0 }, 0, 1)).rejects.toThrow(
      /input index of part 0.*missing/,
    );
    await expect(readRow(bucket, batch, { part: 0, offset: 0, length: 5 })).rejects.toThrow(/input-0\.jsonl.*missing/);
    await writePart(batch, 0, 0, [row]);
    await expect(readRow(bucket, batch, { part: 0, offset: 0, length: 5_000 })).rejects.toThrow(/missing/);
  });

  test("keeps every key of an input, whatever its name", () => {
    const line = '{"input":{"__proto__":{"a":1},"constructor":2},"target":{"kind":"model","owner":"a","name":"b"}}';
    expect(JSON.stringify(parseRow(line))).toBe(line);
  });

  test("whose line isn't a row is refused", () => {
    for (const line of ["", "null", "[]", '{"input":{}}', '{"input":{},"target":{"kind":"other"}}', "{"]) {
      expect(() => parseRow(line), line).toThrow(/./);
    }
  });
});
