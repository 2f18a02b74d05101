/**
 * How S3 is to store our objects, as a person writes it in OUTLAST_S3_STORAGE_CLASS, _ENCRYPTION, _TAGS and _METADATA.
 * A store has the last word: what it doesn't know it refuses, and `outlast doctor` and every worker's start put an
 * object to see.
 */

export type ObjectSettings = {
  /** Of output files alone: inputs, records and results are read again. */
  readonly storageClass?: string;
  readonly encryption?: Encryption;
  readonly tags?: Pairs;
  readonly metadata?: Pairs;
};

export type Encryption = {
  readonly algorithm: "AES256" | "aws:kms";
  /** Where unset, the account's own key for S3. */
  readonly keyId?: string;
};

export type Pairs = Readonly<Record<string, string>>;

/** Reads `AES256`, `aws:kms` or `aws:kms:KEY`, where KEY is an id, an alias or an ARN. Throws a TypeError that says how. */
export function parseEncryption(text: string): Encryption {
  if (text === "AES256") return { algorithm: "AES256" };
  const read = /^aws:kms(?::([\w:/.-]{1,2048}))?$/.exec(text);
  if (read === null) throw new TypeError("is AES256, aws:kms or aws:kms:KEY");
  const [, keyId] = read;
  return { algorithm: "aws:kms", ...(keyId !== undefined && { keyId }) };
}

/** Reads the name of a storage class: STANDARD_IA, INTELLIGENT_TIERING, or one of the store's own. Throws a TypeError. */
export function parseStorageClass(text: string): string {
  if (!/^[A-Z][A-Z0-9_-]{0,63}$/.test(text)) throw new TypeError("isn't the name of a storage class: STANDARD_IA");
  if (NEEDS_RESTORING.has(text)) {
    throw new TypeError(`is ${text}, from which nothing can be read at once; let a lifecycle rule move files there`);
  }
  return text;
}

const NEEDS_RESTORING: ReadonlySet<string> = new Set(["GLACIER", "DEEP_ARCHIVE"]);

/** S3's own limits: ten tags of 128 and 256 characters, of these. */
export function parseTags(text: string): Pairs {
  const pairs = parsePairs(text, /^[\p{L}\p{N} _.:/+@-]{1,128}$/u, /^[\p{L}\p{N} _.:/+@-]{0,256}$/u);
  if (Object.keys(pairs).length > 10) throw new TypeError("has more than the ten tags that S3 allows an object");
  return pairs;
}

/** Names as an HTTP header takes them, values of printable ASCII; S3 allows 2 kB of it, and we keep some for ourselves. */
export function parseMetadata(text: string): Pairs {
  const pairs = parsePairs(text, /^[a-z0-9][a-z0-9-]{0,63}$/, /^[\x20-\x7e]{1,512}$/);
  const own = Object.keys(pairs).find((name) => name.startsWith("outlast-"));
  if (own !== undefined) throw new TypeError(`has ${own}: names that begin with outlast- are our own`);
  if (text.length > 1_500) throw new TypeError("is longer than 1500 characters");
  return pairs;
}

/** `name=value,name=value` */
function parsePairs(text: string, names: RegExp, values: RegExp): Pairs {
  const pairs = new Map<string, string>();
  for (const pair of text.split(",")) {
    const [, name = "", value = ""] = /^\s*([^=]*?)\s*=\s*(.*?)\s*$/.exec(pair) ?? [];
    if (!names.test(name) || !values.test(value)) {
      throw new TypeError(`is name=value,name=value; ${JSON.stringify(pair.slice(0, 80))} isn't one that S3 takes`);
    }
    if (pairs.has(name)) throw new TypeError(`has ${name} twice`);
    pairs.set(name, value);
  }
  return Object.fromEntries(pairs);
}
