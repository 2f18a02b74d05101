/**
 * Writes a PNG with a palette of up to sixteen colours (RFC 2083): four bits a pixel, no filter, fast compression.
 * A library that writes true colour takes ten times as long, and the emulator shares its core with a thousand creates
 * a second. The tests read the files with such a library.
 */

import { crc32, deflateSync } from "node:zlib";

export type Colour = readonly [red: number, green: number, blue: number];

export type Canvas = {
  readonly width: number;
  readonly height: number;
  readonly palette: readonly Colour[];
  /** One byte a pixel, row by row: a number of the palette. */
  readonly pixels: Uint8Array;
};

const SIGNATURE = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

export function encodePng(canvas: Canvas): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(canvas.width, 0);
  header.writeUInt32BE(canvas.height, 4);
  header.set([4, 3, 0, 0, 0], 8); // bits a pixel, indexed colour, deflate, no filter, not interlaced
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(canvas.palette.flat())),
    chunk("IDAT", deflateSync(packRows(canvas), { level: 1 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/** Each row begins with the number of its filter, 0, and holds two pixels a byte. */
function packRows({ width, height, pixels }: Canvas): Buffer {
  const rowBytes = 1 + Math.ceil(width / 2);
  const rows = Buffer.alloc(rowBytes * height);
  for (let y = 0; y < height; y++) {
    let at = y * rowBytes + 1;
    const from = y * width;
    for (let x = 0; x < width; x += 2) {
      const right = x + 1 < width ? (pixels[from + x + 1] ?? 0) : 0;
      rows[at++] = ((pixels[from + x] ?? 0) << 4) | right;
    }
  }
  return rows;
}

function chunk(type: string, data: Buffer): Buffer {
  const framed = Buffer.alloc(data.length + 12);
  framed.writeUInt32BE(data.length, 0);
  framed.write(type, 4, "latin1");
  data.copy(framed, 8);
  framed.writeUInt32BE(crc32(framed.subarray(4, 8 + data.length)), 8 + data.length);
  return framed;
}
