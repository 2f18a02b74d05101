/**
 * Names for copied files: `<id>.<ext>`, or the index in eight digits where the row has no id; `-<n>` behind it where
 * an item has several. Safe on every file system in use: no separators, nothing reserved, and no two that differ only
 * in case. Where two would be the same, the later one carries its index too, so the same batch gives the same names.
 */

const MAX_STEM_BYTES = 150;
/** Devices, on Windows, whatever comes behind the dot. */
const RESERVED = /^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)/i;

export type Named = {
  readonly id: string | null;
  readonly index: number;
  /** The file's place among several of its item. */
  readonly n?: number;
  /** Of the object; gives the extension. */
  readonly key: string;
};

/** Answers each file's name; to be asked in input order. Remembers every name it gave. */
export function openFileNames(): (named: Named) => string {
  const given = new Set<string>();
  return ({ id, index, n, key }) => {
    const digits = String(index).padStart(8, "0");
    const place = n === undefined ? "" : `-${n}`;
    const extension = /\.[a-z0-9]{1,8}$/.exec(key)?.[0] ?? "";
    const wanted = `${id === null ? digits : safeStem(id)}${place}${extension}`;
    let name = wanted;
    for (let mark = "~"; given.has(fold(name)); mark += "~") {
      name = `${safeStem(id ?? "")}${mark}${digits}${place}${extension}`;
    }
    given.add(fold(name));
    return name;
  };
}

function safeStem(id: string): string {
  const kept = id
    .normalize("NFC")
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}/\\<>:"|?*]/gu, "_")
    .replace(/^[.\s-]/, "_") // hidden files, and what a command would take for an option
    .replace(/[.\s]+$/, "_"); // dropped in silence on Windows
  const short = shorten(kept);
  return RESERVED.test(short) || short === "" ? `_${short}` : short;
}

function shorten(text: string): string {
  if (Buffer.byteLength(text) <= MAX_STEM_BYTES) return text;
  let kept = "";
  let size = 0;
  for (const character of text) {
    size += Buffer.byteLength(character);
    if (size > MAX_STEM_BYTES) break;
    kept += character;
  }
  return kept;
}

/** What file systems that ignore case see. */
function fold(name: string): string {
  return name.toLowerCase().normalize("NFC");
}
