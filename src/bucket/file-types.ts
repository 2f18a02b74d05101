/**
 * What a file is, by its first bytes, and whether that is what was to come.
 *
 * The bytes are believed before the server, and the server before the name: what was declared a PNG and is a JPEG is right,
 * and is kept as the JPEG it is. Only another kind of thing is wrong: text or an archive where a picture, a sound or a film
 * was declared, a web page or JSON where the name alone promised one. What its first bytes don't tell - text, JSON, tables,
 * formats that nobody knows here - passes as it was declared.
 */

import { fileTypeFromBuffer } from "file-type";
import mime from "mime";

/** So many bytes are looked at: what `file-type` needs for all that it knows, but for archives. */
export const LOOKED_AT_BYTES = 4_100;

export type ToldType = {
  /** `type/subtype`, as the server or the data URL has it; null where it says nothing. */
  readonly declared: string | null;
  /** The extension in the file's name, in lower case. */
  readonly extension: string | null;
};

export type FileType = { readonly contentType: string | null; readonly extension: string };

/** `fault`: what came, and what was to come. */
export type TypeVerdict = ({ readonly kind: "right" } & FileType) | { readonly kind: "wrong"; readonly fault: string };

/** `head`: the first bytes of a file, or all of a short one. */
export async function judgeType(head: Buffer, told: ToldType): Promise<TypeVerdict> {
  const declared = told.declared === null || OF_ANYTHING.test(told.declared) ? null : told.declared;
  const byName = told.extension === null ? null : mime.getType(told.extension);
  const toldType = declared ?? byName;
  const asTold = right(toldType ?? told.declared, told.extension);

  const text = textIn(head);
  if (text !== null) {
    const page = pageIn(text);
    const isSvg = page === "XML" && /<svg[\s>]/i.test(text);
    if (isSvg && (toldType === null || isMedia(toldType))) return right("image/svg+xml", told.extension, "svg");
    const inText = [declared, byName].find((type) => type !== null && MEDIA_IN_TEXT.test(type)) ?? null;
    if (inText !== null) return page === null || page === "XML" ? asTold : wrong(page, inText);
    const promised = declared !== null && isBinary(declared) ? declared : page === null ? null : byName;
    if (promised === null || !isBinary(promised) || isPdf(promised, text)) return asTold;
    return wrong(page ?? "text", promised);
  }

  const found = await fileTypeFromBuffer(head);
  if (found === undefined) return asTold;
  const type = found.mime.toLowerCase().split(";")[0] ?? found.mime;
  // One container holds films, and sound alone: `audio/webm` is no mistake.
  if (toldType !== null && subtypeOf(toldType) === subtypeOf(type)) return right(toldType, told.extension, found.ext);
  if (isMedia(type) || toldType === null || toldType.startsWith("text/")) return right(type, told.extension, found.ext);
  // Many a document is an archive at heart: what was told says more, unless it can't be that.
  return isMedia(toldType) ? wrong(type, toldType) : asTold;
}

function right(contentType: string | null, named: string | null, found: string | null = null): TypeVerdict {
  return { kind: "right", contentType, extension: extensionFor(contentType, named, found) };
}

function wrong(what: string, promised: string): TypeVerdict {
  return { kind: "wrong", fault: `it holds ${what}, where ${promised} was to come` };
}

// ── types ─────────────────────────────────────────────────────────────────────

/** What servers say that don't know. */
const OF_ANYTHING = /^(?:application|binary)\/(?:octet-stream|x-octet-stream|x-binary|unknown)$/;
/** Pictures and lists of media that are written as text. */
const MEDIA_IN_TEXT = /\/(?:svg\+xml|(?:x-|vnd\.apple\.)?mpegurl|x-scpls|x-portable-.+|x-xbitmap|x-xpixmap)$/;
/** Some are called applications. */
const MEDIA = /^(?:(?:image|audio|video)\/.|application\/(?:ogg|mxf|vnd\.ms-asf|vnd\.rn-realmedia|dicom)$)/;
const BINARY = /^(?:font\/.|application\/(?:pdf|zip|gzip)$|model\/gltf-binary$)/;

function isMedia(type: string): boolean {
  return MEDIA.test(type);
}

function isBinary(type: string): boolean {
  return (isMedia(type) || BINARY.test(type)) && !MEDIA_IN_TEXT.test(type);
}

function subtypeOf(type: string): string {
  return type.replace(/^[^/]*\/(?:x-)?/, "");
}

/** A PDF may be written without a byte that isn't text. */
function isPdf(type: string, text: string): boolean {
  return type === "application/pdf" && text.includes("%PDF-");
}

// ── extensions ────────────────────────────────────────────────────────────────

/** As people have them, where the registry's are others. */
const USUAL: ReadonlyMap<string, string> = new Map([
  ["audio/aac", "aac"],
  ["audio/flac", "flac"],
  ["audio/mpeg", "mp3"],
  ["audio/ogg", "ogg"],
  ["audio/webm", "webm"],
  ["image/jpg", "jpg"],
  ["video/quicktime", "mov"],
]);

/** The type's own, in the spelling that the name has; where the type says little, the name's. `found`: by the bytes. */
function extensionFor(contentType: string | null, named: string | null, found: string | null): string {
  const saysLittle = contentType === null || contentType === "text/plain" || OF_ANYTHING.test(contentType);
  const own = found ?? (contentType === null ? null : (USUAL.get(contentType) ?? mime.getExtension(contentType)));
  const extension = saysLittle ? (named ?? own) : (nameFor(contentType, named) ?? own ?? named);
  return extension !== null && /^[a-z0-9]{1,8}$/.test(extension) ? extension : "bin";
}

/** The name's extension, if files of this type may have it. */
function nameFor(type: string, named: string | null): string | null {
  return named !== null && mime.getAllExtensions(type)?.has(named) === true ? named : null;
}

// ── text ──────────────────────────────────────────────────────────────────────

/** Backspace, tab, line and page breaks, escape. */
const CONTROLS_IN_TEXT: ReadonlySet<number> = new Set([0x08, 0x09, 0x0a, 0x0c, 0x0d, 0x1b]);

/** The characters of a beginning that is text; null where it holds what no text does. */
function textIn(head: Buffer): string | null {
  if (head.some((byte) => (byte < 0x20 && !CONTROLS_IN_TEXT.has(byte)) || byte === 0x7f)) return null;
  try {
    // As a stream, since the last character may be cut in two.
    return new TextDecoder("utf-8", { fatal: true }).decode(head, { stream: true });
  } catch {
    return null;
  }
}

/** What a text is that a server may give in place of a file. */
function pageIn(text: string): string | null {
  const start = text.trimStart().slice(0, 200).toLowerCase();
  if (/^(?:<!--[^]*?-->\s*)?<(?:!doctype html|html|head|body|title|h1|p>|center)/.test(start)) return "an HTML page";
  if (start.startsWith("<")) return "XML";
  return /^[{[]/.test(start) ? "JSON" : null;
}
