import fc from "fast-check";
import { expect, test } from "vitest";
import { judgeType, LOOKED_AT_BYTES } from "../../src/bucket/file-types.ts";

const hex = (text: string) => Buffer.from(text.replaceAll(" ", ""), "hex");
const PNG = hex("89504e470d0a1a0a 0000000d 49484452 00000001 00000001 08060000 00 1f15c489 0000000a 49444154");
const JPEG = hex("ffd8ffe000104a46494600010100000100010000");
const GIF = Buffer.from("GIF89a\u0001\u0000\u0001\u0000", "latin1");
const MP3 = Buffer.concat([hex("fffb9064"), Buffer.alloc(32)]);
/** Its tags are longer than what is looked at. */
const TAGGED_MP3 = Buffer.concat([Buffer.from("ID3"), hex("04000000010000"), Buffer.alloc(32)]);
const WAV = Buffer.concat([Buffer.from("RIFF"), hex("24000000"), Buffer.from("WAVEfmt "), Buffer.alloc(24)]);
const MP4 = Buffer.concat([hex("00000018"), Buffer.from("ftypisom"), hex("00000200"), Buffer.from("isomiso2")]);
const WEBM = hex("1a45dfa3 9f 42868101 42f78101 42f28104 42f38108 4282847765626d");
const ZIP = Buffer.concat([hex("504b0304 14000000 0800"), Buffer.alloc(40)]);
const GZIP = Buffer.concat([hex("1f8b0800 00000000 0003"), Buffer.alloc(40)]);
const BYTES = Buffer.concat([Buffer.alloc(16), hex("ff00ff00ff00")]);
const HTML = Buffer.from("\n<!DOCTYPE html><html><title>502 Bad Gateway</title></html>");
const XML = Buffer.from('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>');
const JSON_ERROR = Buffer.from('{"detail": "not found"}');
const WORDS = Buffer.from("error code: 1016 – größer");
const SVG = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"/>');

test("what a file is, and whether it is what was to come, as a table", async () => {
  type Expected = readonly [contentType: string | null, extension: string] | string;
  const table: readonly (readonly [head: Buffer, declared: string | null, name: string | null, Expected])[] = [
    // What was declared.
    [PNG, "image/png", "png", ["image/png", "png"]],
    [PNG, "image/png", null, ["image/png", "png"]],
    [JPEG, "image/jpeg", "jpeg", ["image/jpeg", "jpeg"]],
    [MP3, "audio/mpeg", null, ["audio/mpeg", "mp3"]],
    [TAGGED_MP3, "audio/mpeg", null, ["audio/mpeg", "mp3"]],
    [BYTES, "video/quicktime", null, ["video/quicktime", "mov"]],
    [WAV, "audio/x-wav", "wav", ["audio/x-wav", "wav"]],
    [WEBM, "audio/webm", null, ["audio/webm", "webm"]],
    // The bytes are believed.
    [JPEG, "image/png", "png", ["image/jpeg", "jpg"]],
    [GIF, "image/webp", null, ["image/gif", "gif"]],
    [MP4, "image/gif", "gif", ["video/mp4", "mp4"]],
    [PNG, "text/html", "png", ["image/png", "png"]],
    [PNG, "application/octet-stream", "bin", ["image/png", "png"]],
    [PNG, null, null, ["image/png", "png"]],
    [ZIP, null, null, ["application/zip", "zip"]],
    [ZIP, "text/html", null, ["application/zip", "zip"]],
    // Something else than was declared, or than the name promised.
    [HTML, "image/png", "png", "it holds an HTML page, where image/png was to come"],
    [HTML, "text/html", "png", "it holds an HTML page, where image/png was to come"],
    [HTML, null, "mp4", "it holds an HTML page, where video/mp4 was to come"],
    [XML, "application/xml", "webp", "it holds XML, where image/webp was to come"],
    [JSON_ERROR, "application/json", "wav", "it holds JSON, where audio/wav was to come"],
    [WORDS, "video/mp4", null, "it holds text, where video/mp4 was to come"],
    [HTML, "application/pdf", "pdf", "it holds an HTML page, where application/pdf was to come"],
    [HTML, "model/gltf-binary", null, "it holds an HTML page, where model/gltf-binary was to come"],
    [GZIP, "image/png", "png", "it holds application/gzip, where image/png was to come"],
    // What can't be told by its first bytes passes.
    [WORDS, "text/plain", null, ["text/plain", "txt"]],
    [WORDS, "text/plain", "srt", ["text/plain", "srt"]],
    [WORDS, "text/plain", "ts", ["text/plain", "ts"]],
    [Buffer.from("BMW, ID3"), null, null, [null, "bin"]],
    [JSON_ERROR, "application/json", null, ["application/json", "json"]],
    [JSON_ERROR, "application/octet-stream", "json", ["application/json", "json"]],
    [Buffer.from("a,b\n1,2\n"), "text/csv", "txt", ["text/csv", "csv"]],
    [HTML, "text/html", null, ["text/html", "html"]],
    [SVG, "image/svg+xml", "svg", ["image/svg+xml", "svg"]],
    [SVG, null, "svg", ["image/svg+xml", "svg"]],
    [SVG, "image/png", "png", ["image/svg+xml", "svg"]],
    [SVG, null, null, ["image/svg+xml", "svg"]],
    [SVG, "text/plain", "txt", ["text/plain", "txt"]],
    [HTML, "text/html", "svg", "it holds an HTML page, where image/svg+xml was to come"],
    [JSON_ERROR, "image/svg+xml", null, "it holds JSON, where image/svg+xml was to come"],
    [Buffer.from("#EXTM3U\n"), "audio/mpegurl", "m3u8", ["audio/mpegurl", "m3u8"]],
    [Buffer.from("%PDF-1.4\n1 0 obj"), "application/pdf", "pdf", ["application/pdf", "pdf"]],
    [BYTES, "image/x-unheard-of", null, ["image/x-unheard-of", "bin"]],
    [BYTES, "application/octet-stream", "weights", ["application/octet-stream", "weights"]],
    [BYTES, null, "no-ext!", [null, "bin"]],
    [
      ZIP,
      "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
      "docx",
      ["application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx"],
    ],
  ];
  for (const [head, declared, extension, expected] of table) {
    const verdict = await judgeType(head, { declared, extension });
    const seen = verdict.kind === "wrong" ? verdict.fault : [verdict.contentType, verdict.extension];
    expect([declared, extension, seen]).toEqual([declared, extension, expected]);
  }
});

test("any first bytes get a verdict, wherever they are cut", async () => {
  const starts = [PNG, JPEG, GIF, MP3, WAV, MP4, WEBM, ZIP, GZIP, HTML, XML, SVG, Buffer.alloc(0)];
  const types = fc.constantFrom(null, "image/png", "text/plain", "application/zip", "application/octet-stream");
  const extensions = fc.constantFrom(null, "png", "zip", "txt", "x");
  const heads = fc
    .tuple(fc.constantFrom(...starts), fc.uint8Array({ maxLength: LOOKED_AT_BYTES }), fc.nat(LOOKED_AT_BYTES))
    .map(([start, rest, length]) => Buffer.concat([start, rest]).subarray(0, length));
  await fc.assert(
    fc.asyncProperty(heads, types, extensions, async (head, declared, extension) => {
      const verdict = await judgeType(head, { declared, extension });
      if (verdict.kind === "right") expect(verdict.extension).toMatch(/^[a-z0-9]{1,8}$/);
      else expect(verdict.fault).toMatch(/^it holds [^\n]+ was to come$/);
    }),
    { numRuns: 1_000 },
  );
});
