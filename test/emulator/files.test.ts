/** What the models make, and how the file host hands it out. */

import { createHash } from "node:crypto";
import fc from "fast-check";
import { PNG } from "pngjs";
import { expect, test } from "vitest";
import { startEmulator } from "../../src/emulator/emulator.ts";
import { noise } from "../../src/emulator/noise.ts";
import { drawPicture, fitText } from "../../src/emulator/picture.ts";
import { get, QUICK, run, UNLIMITED } from "./asker.ts";

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");
const bytesOf = async (response: Response): Promise<Buffer> => Buffer.from(await response.arrayBuffer());

test("a picture is a PNG of the size asked for, the same for the same input and another for any other", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK, ...UNLIMITED });
  const inputs = [
    { prompt: "a red kite" },
    { prompt: "a red kite" },
    { prompt: "A red kite" },
    { prompt: "a red kite", seed: 1 },
    { prompt: "a red kite", style: "unknown to the schema" },
    { prompt: "a red kite", width: 64, height: 65 },
  ];
  const files = [];
  for (const input of inputs) {
    const { output } = await run(emulator, "picture", input);
    files.push(await bytesOf(await fetch(String(output))));
  }
  const sizes = files.map((file) => PNG.sync.read(file)).map(({ width, height }) => `${width}x${height}`);
  expect(sizes).toEqual(["512x512", "512x512", "512x512", "512x512", "512x512", "64x65"]);
  expect(new Set(files.map(sha256)).size).toBe(inputs.length - 1);
  expect(files[0]).toEqual(files[1]);
});

test("any text can be drawn, at any size", () => {
  fc.assert(
    fc.property(
      fc.string({ unit: "grapheme", minLength: 1, maxLength: 300 }),
      fc.integer({ min: 64, max: 200 }),
      fc.integer({ min: 64, max: 200 }),
      (text, width, height) => {
        const png = PNG.sync.read(drawPicture({ text, width, height, digest: sha256(Buffer.from(text)) }));
        expect([png.width, png.height]).toEqual([width, height]);
      },
    ),
    { numRuns: 50 },
  );
});

test("words keep together while they fit, and grow as large as there is room", () => {
  expect(fitText("one two", 200, 400)).toEqual({ scale: 10, lines: ["one", "two"] });
  expect(fitText("a ".repeat(5_000), 100, 100).lines.at(-1)).toBe("...");
});

test("what a run made before it failed is shown and served; what one lost is null", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const halted = await run(emulator, "halting", { prompt: "kites", made: 2 });
  expect(halted).toMatchObject({ status: "failed", error: "CUDA out of memory (E1001)" });
  const urls = halted.output as string[];
  expect(urls).toHaveLength(2);
  for (const url of urls) PNG.sync.read(await bytesOf(await fetch(url)));
  expect(await run(emulator, "forgetful", { prompt: "kites" })).toMatchObject({ status: "succeeded", output: null });
  const holes = await run(emulator, "forgetful", { prompt: "kites", num_outputs: 3, kept: 1 });
  expect(holes.output).toEqual([expect.stringContaining("out-0.png"), null, null]);
});

test("a set of pictures is a list of different files in order", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "pictures", { prompt: "kites" });
  const urls = output as string[];
  expect(urls.map((url) => url.split("/").at(-1))).toEqual(["out-0.png", "out-1.png", "out-2.png", "out-3.png"]);
  const files = await Promise.all(urls.map(async (url) => sha256(await bytesOf(await fetch(url)))));
  expect(new Set(files).size).toBe(4);
});

test("speech is a WAV whose header tells its length", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "speech", { text: "Hello there" });
  const response = await fetch(String(output));
  const wav = await bytesOf(response);
  expect(response.headers.get("content-type")).toBe("audio/wav");
  expect([wav.toString("latin1", 0, 4), wav.toString("latin1", 8, 16)]).toEqual(["RIFF", "WAVEfmt "]);
  expect(wav.readUInt32LE(4)).toBe(wav.length - 8);
  expect(wav.readUInt32LE(40)).toBe(wav.length - 44);
  expect([wav.readUInt16LE(20), wav.readUInt16LE(22), wav.readUInt32LE(24), wav.readUInt16LE(34)]).toEqual([
    1, 1, 8_000, 16,
  ]);
  expect(wav.length - 44).toBe(2 * (256 + 11 * 560));
});

test("a text is a string or a list of strings that joins to it", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const text = await run(emulator, "text", { prompt: "kites" });
  const list = await run(emulator, "text", { prompt: "kites", as: "list" });
  expect(text.output).toContain('"kites"');
  expect((list.output as string[]).join("")).toContain('"kites"');
});

test("a nested output holds files, text, an inline picture, numbers and nulls", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "nested", { prompt: "kites" });
  const { media, missing } = output as {
    missing: null;
    media: { pictures: [{ url: string }, null]; speech: string; thumbnail: string };
  };
  expect(missing).toBeNull();
  expect(PNG.sync.read(Buffer.from(media.thumbnail.split(",")[1] ?? "", "base64")).width).toBe(64);
  expect(PNG.sync.read(await bytesOf(await fetch(media.pictures[0].url))).width).toBe(256);
  expect((await fetch(media.speech)).status).toBe(200);
});

test("a large file has exactly its size, streams without memory, and its sum is in the books", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const bytes = 400_000_003;
  const { id, output } = await run(emulator, "large", { bytes });
  const before = process.memoryUsage().rss;
  const response = await fetch(String(output));
  const sum = createHash("sha256");
  let received = 0;
  let highest = 0;
  for await (const chunk of response.body ?? []) {
    sum.update(chunk);
    received += chunk.length;
    highest = Math.max(highest, process.memoryUsage.rss());
  }
  expect(response.headers.get("content-length")).toBe(String(bytes));
  expect(received).toBe(bytes);
  expect(highest - before).toBeLessThan(200_000_000);
  await expect
    .poll(() => [...emulator.fileRows()])
    .toEqual([{ prediction: id, name: "out.bin", bytes, sha256: sum.digest("hex"), complete: 1, partial: 0 }]);
});

test("noise read in ranges is the noise read whole", () => {
  const digest = sha256(Buffer.from("x"));
  const whole = Buffer.concat([...noise(digest, 0, 200_000)]);
  fc.assert(
    fc.property(fc.nat(200_000), fc.nat(200_000), (a, b) => {
      const [from, to] = [Math.min(a, b), Math.max(a, b)];
      expect(Buffer.concat([...noise(digest, from, to)]).equals(whole.subarray(from, to))).toBe(true);
    }),
    { numRuns: 50 },
  );
});

test("ranges are answered by 206, beyond the end by 416, and a changed file by the whole", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { output } = await run(emulator, "large", { bytes: 100_000 });
  const url = String(output);
  const full = await fetch(url);
  const whole = await bytesOf(full);
  const etag = full.headers.get("etag") ?? "";
  const ranged = async (headers: Record<string, string>) => {
    const response = await fetch(url, { headers });
    return { status: response.status, range: response.headers.get("content-range"), bytes: await bytesOf(response) };
  };
  const middle = await ranged({ range: "bytes=1000-1999", "if-range": etag });
  expect([middle.status, middle.range]).toEqual([206, "bytes 1000-1999/100000"]);
  expect(middle.bytes.equals(whole.subarray(1_000, 2_000))).toBe(true);
  expect((await ranged({ range: "bytes=99990-" })).bytes.equals(whole.subarray(99_990))).toBe(true);
  expect((await ranged({ range: "bytes=-5" })).bytes.equals(whole.subarray(99_995))).toBe(true);
  expect((await ranged({ range: "bytes=99999-200000" })).range).toBe("bytes 99999-99999/100000");
  expect((await ranged({ range: "bytes=100000-" })).range).toBe("bytes */100000");
  expect((await ranged({ range: "bytes=5-", "if-range": '"other"' })).status).toBe(200);
  const head = await fetch(url, { method: "HEAD" });
  expect([head.status, head.headers.get("content-length"), head.headers.get("accept-ranges")]).toEqual([
    200,
    "100000",
    "bytes",
  ]);
});

test("an address can't be guessed from another, and an empty file is a file", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const { id, output } = await run(emulator, "large", { bytes: 0 });
  const empty = await fetch(String(output));
  expect([empty.status, (await bytesOf(empty)).length]).toEqual([200, 0]);
  expect((await fetch(`${emulator.filesUrl}/xezq/${id}${"a".repeat(18)}/out.bin`)).status).toBe(404);
  expect((await fetch(String(output).replace("out.bin", "other.bin"))).status).toBe(404);
  expect((await get(emulator, id)).output).toBe(output);
});
