import { expect, test } from "vitest";
import type { Receipt } from "../../src/core/receipt.ts";
import { judgeBytes, judgeLength, judgeOutput, needsReceipt } from "../../src/core/verifying.ts";

const KEY = "batches/b/items/00000000/output-0.png";
const FILE = { key: KEY, url: "u", bytes: 10, sha256: "5a", content_type: "image/png" };

test("a file is there, as long as it was, and the same", () => {
  expect(judgeLength(FILE, 10)).toBeNull();
  expect(judgeLength(FILE, null)).toMatchObject({ kind: "missing", key: KEY });
  expect(judgeLength(FILE, 9)).toMatchObject({ kind: "length", what: "it has 9 bytes, and its receipt says 10" });
  expect(judgeBytes(FILE, { bytes: 10, sha256: "5a" })).toBeNull();
  expect(judgeBytes(FILE, { bytes: 10, sha256: "5b" })).toMatchObject({ kind: "bytes" });
  expect(judgeBytes(FILE, { bytes: 11, sha256: "5a" })).toMatchObject({ kind: "length" });
});

test("an output names each of its kept files, and a saved one no other", () => {
  const receipt = (fields: Partial<Receipt>) =>
    ({ status: "saved", output: KEY, outputs: [FILE], ...fields }) as Receipt;
  const table: readonly (readonly [Partial<Receipt>, readonly (string | null)[]])[] = [
    [{}, []],
    [{ output: { deep: [[KEY, "words"]] } }, []],
    [{ output: "words", outputs: [] }, []],
    [{ output: null }, [KEY]],
    [{ output: `${KEY}.bak` }, [KEY]],
    [{ output: [KEY, "https://h.example/a.png"] }, [null]],
    [{ status: "failed", output: [KEY, "https://h.example/a.png"] }, []],
  ];
  for (const [fields, keys] of table) {
    const faults = judgeOutput(receipt(fields));
    expect([fields, faults.map(({ key }) => key)]).toEqual([fields, keys]);
  }
});

test("what ended saved or failed has a receipt", () => {
  expect(needsReceipt({ attempt: 2, state: "saved" }, 2)).toBe(true);
  expect(needsReceipt({ attempt: 2, state: "failed" }, 2)).toBe(true);
  expect(needsReceipt({ attempt: 2, state: "canceled" }, 2)).toBe(false);
  expect(needsReceipt({ attempt: 2, state: "running" }, 2)).toBe(false);
});
