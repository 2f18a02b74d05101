/**
 * Draws a picture that shows its text: white words on a sky of one hue, hills below. Colours and hills are drawn from
 * the digest of the input, and the last row of pixels holds all 256 bits of it, so no two inputs give the same file.
 */

import { dotsOf, GLYPH_HEIGHT, GLYPH_WIDTH, plainText } from "./font.ts";
import { type Colour, encodePng } from "./png.ts";

export type Picture = {
  readonly text: string;
  readonly width: number;
  readonly height: number;
  /** 64 hex digits: what the picture is made from. */
  readonly digest: string;
};

const SKY_COLOURS = 10;
const HILL_COLOURS = 3;
const SHADOW = SKY_COLOURS + HILL_COLOURS;
const BLACK = SHADOW + 1;
const WHITE = SHADOW + 2;

export function drawPicture(picture: Picture): Buffer {
  const { width, height } = picture;
  const bytes = Buffer.from(picture.digest, "hex");
  const pixels = new Uint8Array(width * height);
  paintSky(pixels, width, height);
  paintHills(pixels, width, height, bytes);
  writeText(pixels, width, height, plainText(picture.text));
  writeBits(pixels, width, height, bytes);
  return encodePng({ width, height, palette: paletteOf(bytes.readUInt16BE(0) % 360), pixels });
}

function paletteOf(hue: number): readonly Colour[] {
  const sky = Array.from({ length: SKY_COLOURS }, (_, step) => hsl(hue + 5 * step, 0.5, 0.24 + 0.034 * step));
  const hills = Array.from({ length: HILL_COLOURS }, (_, step) => hsl(hue + 150 + 12 * step, 0.34, 0.36 - 0.08 * step));
  return [...sky, ...hills, hsl(hue, 0.6, 0.1), [0, 0, 0], [255, 255, 255]];
}

/** Dark above, light below; the steps are dithered by a row-wise pattern so that no edge shows. */
function paintSky(pixels: Uint8Array, width: number, height: number): void {
  for (let y = 0; y < height; y++) {
    const exact = (y / height) * (SKY_COLOURS - 1);
    const step = Math.floor(exact);
    const row = pixels.subarray(y * width, (y + 1) * width);
    row.fill(step);
    const everyNth = Math.round(1 / Math.max(exact - step, 0.05));
    for (let x = (y * 7) % everyNth; x < width; x += everyNth) row[x] = step + 1;
  }
}

function paintHills(pixels: Uint8Array, width: number, height: number, bytes: Buffer): void {
  for (let hill = 0; hill < HILL_COLOURS; hill++) {
    const [phase = 0, length = 0, rise = 0] = bytes.subarray(4 + 3 * hill);
    const waves = 1 + length / 100;
    const size = height * (0.03 + rise / 4_000);
    const base = height * (0.74 + 0.09 * hill);
    for (let x = 0; x < width; x++) {
      const angle = (2 * Math.PI * waves * x) / width + phase / 40;
      const top = Math.round(base - size * (Math.sin(angle) + 0.4 * Math.sin(2.3 * angle)));
      for (let y = Math.max(0, top); y < height; y++) pixels[y * width + x] = SKY_COLOURS + hill;
    }
  }
}

/** Words as large as they fit, centred; what doesn't fit even in dots of one pixel ends in an ellipsis. */
function writeText(pixels: Uint8Array, width: number, height: number, text: string): void {
  const room = { width: width * 0.88, height: height * 0.86 };
  const { scale, lines } = fitText(text, room.width, room.height);
  const lineHeight = (GLYPH_HEIGHT + 2) * scale;
  const top = Math.max(0, Math.round((height - lines.length * lineHeight) / 2));
  const shadow = Math.max(1, Math.round(scale / 2));
  for (const [offset, colour] of [
    [shadow, SHADOW],
    [0, WHITE],
  ] as const) {
    for (const [number, line] of lines.entries()) {
      const left = Math.round((width - line.length * (GLYPH_WIDTH + 1) * scale) / 2);
      for (const [column, character] of Array.from(line).entries()) {
        for (const dot of dotsOf(character)) {
          const x = left + offset + (column * (GLYPH_WIDTH + 1) + dot.x) * scale;
          const y = top + offset + number * lineHeight + dot.y * scale;
          for (let row = y; row < Math.min(y + scale, height); row++) {
            if (x >= 0) pixels.fill(colour, row * width + x, row * width + Math.min(x + scale, width));
          }
        }
      }
    }
  }
}

export function fitText(text: string, width: number, height: number): { scale: number; lines: readonly string[] } {
  for (let scale = Math.max(1, Math.floor(height / 40)); scale > 1; scale--) {
    const columns = Math.floor(width / ((GLYPH_WIDTH + 1) * scale));
    const lines = wrapWords(text, columns);
    const longestWord = Math.max(...text.split(/\s+/).map((word) => word.length));
    if (longestWord <= columns && lines.length * (GLYPH_HEIGHT + 2) * scale <= height) return { scale, lines };
  }
  const lines = wrapWords(text, Math.max(1, Math.floor(width / (GLYPH_WIDTH + 1))));
  const fitting = Math.max(1, Math.floor(height / (GLYPH_HEIGHT + 2)));
  return {
    scale: 1,
    lines: lines.length <= fitting ? lines : [...lines.slice(0, fitting - 1), "..."],
  };
}

/** Lines of at most `columns` characters, broken between words and, where a word is longer, inside it. */
function wrapWords(text: string, columns: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (let word of text.split(/\s+/).filter((part) => part !== "")) {
    if (line !== "" && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = "";
    }
    for (; word.length > columns; word = word.slice(columns)) lines.push(word.slice(0, columns));
    line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}

/** The digest's bits in the last row, in as many rows as a narrow picture needs. */
function writeBits(pixels: Uint8Array, width: number, height: number, bytes: Buffer): void {
  const from = width * (height - Math.ceil(256 / width));
  for (let bit = 0; bit < 256; bit++) {
    pixels[from + bit] = (((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1) === 1 ? WHITE : BLACK;
  }
}

function hsl(hue: number, saturation: number, lightness: number): Colour {
  const channel = (offset: number): number => {
    const k = (offset + hue / 30) % 12;
    const part = saturation * Math.min(lightness, 1 - lightness) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
    return Math.round(255 * (lightness - part));
  };
  return [channel(0), channel(8), channel(4)];
}
