import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeDataUrl } from "../../src/bucket/data-url.ts";

const decoded = (url: string, maxBytes = 1_000): [string, string] => {
  const { bytes, contentType } = decodeDataUrl(url, maxBytes);
  return [bytes.toString(), contentType];
};

describe("a data URL", () => {
  test.each([
    ["data:text/plain;base64,aGVsbG8=", "hello", "text/plain"],
    ["data:text/plain;base64,aGVsbG8", "hello", "text/plain"],
    ["data:text/plain;charset=utf-8;base64,aGVs\nbG8=", "hello", "text/plain"],
    ["data:image/PNG;base64,aGVsbG8%3D", "hello", "image/png"],
    ["DATA:image/svg+xml,%3Csvg/%3E", "<svg/>", "image/svg+xml"],
    ["data:,plain", "plain", "text/plain"],
    ["data:;base64,aGk=", "hi", "text/plain"],
    ["data:text/plain,a,b", "a,b", "text/plain"],
    ["data:text/plain,größe", "größe", "text/plain"],
    ["data:base64,aGk=", "aGk=", "text/plain"],
  ])("%j is decoded", (url, text, type) => {
    expect(decoded(url)).toEqual([text, type]);
  });

  test.each([
    "data:image/png;base64",
    "data:,",
    "data:image/png;base64,",
    "data:image/png;base64,a",
    "data:image/png;base64,aGk===",
    "data:image/png;base64,aG=k",
    "data:image/png;base64,aGk=aGk=",
    "data:image/png;base64,aGVsb*8=",
    "data:image/png;base64,aGVs_-8=",
    "data:image/png;base64,aGVsbG=",
    "data:text/plain,50%",
    "data:text/plain,%zz",
  ])("%j is refused as it can't be decoded exactly", (url) => {
    expect(() => decodeDataUrl(url, 1_000)).toThrow(
      expect.objectContaining({ name: "DownloadError", kind: "bad-body" }),
    );
  });

  test("over the size allowed is refused, and one of just that size is not", () => {
    const url = `data:application/octet-stream;base64,${Buffer.alloc(1_000).toString("base64")}`;
    expect(decodeDataUrl(url, 1_000).bytes).toHaveLength(1_000);
    for (const maxBytes of [999, 10, 0]) {
      expect(() => decodeDataUrl(url, maxBytes)).toThrow(expect.objectContaining({ kind: "too-large" }));
    }
    expect(() => decodeDataUrl(`data:,${"x".repeat(11)}`, 10)).toThrow(expect.objectContaining({ kind: "too-large" }));
  });

  test("gives back any bytes, written either way", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 300 }), (array) => {
        const bytes = Buffer.from(array);
        const percent = [...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
        expect(decodeDataUrl(`data:a/b;base64,${bytes.toString("base64")}`, 300).bytes).toEqual(bytes);
        expect(decodeDataUrl(`data:a/b,${percent}`, 300).bytes).toEqual(bytes);
      }),
    );
  });
});
