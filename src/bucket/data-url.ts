/** Reads a `data:` URL (RFC 2397), which some models give as output. Strict: what can't be decoded exactly is an error. */

import { DownloadError } from "./download-error.ts";

export type DataUrl = { readonly bytes: Buffer; readonly contentType: string };

export function isDataUrl(url: string): boolean {
  return /^data:/i.test(url);
}

export function decodeDataUrl(url: string, maxBytes: number): DataUrl {
  const comma = url.indexOf(",");
  const head = comma === -1 ? "" : url.slice("data:".length, comma);
  const shown = `the output ${JSON.stringify(url.slice(0, Math.min(comma === -1 ? 40 : comma, 80)))}…`;
  if (!isDataUrl(url) || comma === -1) throw new DownloadError("bad-body", `${shown} is no data URL: it has no comma`);

  const parameters = head.split(";").map((part) => part.trim());
  const isBase64 = parameters.length > 1 && parameters.at(-1)?.toLowerCase() === "base64";
  const type = parameters[0]?.toLowerCase() ?? "";
  const contentType = /^[\w.+-]+\/[\w.+-]+$/.test(type) ? type : "text/plain"; // the RFC's default

  const text = url.slice(comma + 1);
  // Looked at before anything is copied. No spelling takes more than nine characters for a byte: %XX of three of base64's.
  if (text.length > maxBytes * 9 + 9) throw tooLarge(shown, maxBytes);
  const bytes = isBase64 ? fromBase64(text, shown) : fromPercent(text, shown);
  if (bytes.length > maxBytes) throw tooLarge(shown, maxBytes);
  if (bytes.length === 0) throw new DownloadError("bad-body", `${shown} is empty`);
  return { bytes, contentType };
}

function tooLarge(shown: string, maxBytes: number): DownloadError {
  return new DownloadError("too-large", `${shown} is larger than the ${maxBytes} bytes allowed`);
}

function fromBase64(text: string, shown: string): Buffer {
  const plain = (text.includes("%") ? fromPercent(text, shown).toString("latin1") : text).replace(/[\t\n\f\r ]+/g, "");
  // Buffer.from skips what isn't base64 and would give fewer bytes without a word.
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(plain)) throw notDecodable(shown, "holds characters that aren't base64");
  const digits = plain.replace(/=+$/, "");
  const padded = plain.length !== digits.length;
  if (digits.length % 4 === 1 || (padded && plain.length % 4 !== 0))
    throw notDecodable(shown, "ends in the middle of a byte");
  return Buffer.from(digits, "base64");
}

function fromPercent(text: string, shown: string): Buffer {
  const source = Buffer.from(text);
  const bytes = Buffer.allocUnsafe(source.length);
  let length = 0;
  for (let i = 0; i < source.length; i++) {
    let byte = source[i] ?? 0;
    if (byte === PERCENT) {
      const digits = source.toString("latin1", i + 1, i + 3);
      if (!/^[0-9A-Fa-f]{2}$/.test(digits)) throw notDecodable(shown, "has a % without two hexadecimal digits");
      byte = Number.parseInt(digits, 16);
      i += 2;
    }
    bytes[length++] = byte;
  }
  return bytes.subarray(0, length);
}

const PERCENT = 0x25;

function notDecodable(shown: string, why: string): DownloadError {
  return new DownloadError("bad-body", `${shown} can't be decoded: it ${why}`);
}
