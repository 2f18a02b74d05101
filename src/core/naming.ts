/**
 * Every name that is stored somewhere: ids, queue names, Redis keys, object keys. Made here and parsed back here,
 * nowhere else, so that two parts can't spell one thing differently.
 */

declare const brand: unique symbol;

/** 20 characters of Crockford's base 32, lower case: the first 100 bits of a SHA-256. */
export type BatchId = string & { readonly [brand]: "BatchId" };
/** 26 characters: the batch, then the index in six more. */
export type ItemId = string & { readonly [brand]: "ItemId" };
/** A provider, a token and its limits, under a name a person chose. */
export type AccountName = string & { readonly [brand]: "AccountName" };
/** The key of an object in the bucket, relative to the bucket's prefix. */
export type ObjectKey = string & { readonly [brand]: "ObjectKey" };

/** One attempt at one item. */
export type AttemptRef = {
  readonly account: AccountName;
  readonly batch: BatchId;
  readonly index: number;
  readonly attempt: number;
};

/** Whose everything is that comes without a key: from commands, the library, the inputs queue. */
export const DEFAULT_TENANT = "default";

const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";
const BATCH_LENGTH = 20;
const INDEX_LENGTH = 6;
/** Object keys give an index eight digits. */
export const MAX_INDEX = 99_999_999;

// ── ids ───────────────────────────────────────────────────────────────────────

/** From the digest of what identifies the batch; at least 13 bytes. */
export function batchIdFrom(digest: Uint8Array): BatchId {
  if (digest.length < 13) throw new RangeError("a batch id needs a digest of at least 13 bytes");
  let bits = 0n;
  for (const byte of digest.subarray(0, 13)) bits = (bits << 8n) | BigInt(byte);
  bits >>= 4n;
  let id = "";
  for (let place = 0; place < BATCH_LENGTH; place++) {
    id = ALPHABET.charAt(Number(bits & 31n)) + id;
    bits >>= 5n;
  }
  return id as BatchId;
}

export function parseBatchId(text: string): BatchId | null {
  return /^[0-9a-hjkmnp-tv-z]{20}$/.test(text) ? (text as BatchId) : null;
}

/** Those of the texts that are ids of batches, in their order. */
export function batchIdsAmong(texts: readonly string[]): readonly BatchId[] {
  return texts.flatMap((text) => parseBatchId(text) ?? []);
}

export function itemId(batch: BatchId, index: number): ItemId {
  assertIndex(index);
  let digits = "";
  for (let rest = index, place = 0; place < INDEX_LENGTH; place++, rest = Math.floor(rest / 32)) {
    digits = ALPHABET.charAt(rest % 32) + digits;
  }
  return `${batch}${digits}` as ItemId;
}

export function parseItemId(text: string): { readonly batch: BatchId; readonly index: number } | null {
  const batch = parseBatchId(text.slice(0, BATCH_LENGTH));
  if (batch === null || !/^[0-9a-hjkmnp-tv-z]{6}$/.test(text.slice(BATCH_LENGTH))) return null;
  let index = 0;
  for (const digit of text.slice(BATCH_LENGTH)) index = index * 32 + ALPHABET.indexOf(digit);
  return index <= MAX_INDEX ? { batch, index } : null;
}

/** Of an owner of API keys; it becomes part of object keys. */
export function isTenantName(text: string): boolean {
  return /^[a-z0-9][a-z0-9-]{0,30}$/.test(text);
}

export function parseAccountName(text: string): AccountName | null {
  return /^[a-z0-9][a-z0-9-]{0,30}$/.test(text) ? (text as AccountName) : null;
}

// ── queues ────────────────────────────────────────────────────────────────────

export const QUEUE_NAMES = {
  inputs: "outlast-inputs",
  feed: "outlast-feed",
  create: (account: AccountName) => `outlast-create-${account}`,
  follow: (account: AccountName) => `outlast-follow-${account}`,
  copy: "outlast-copy",
  record: "outlast-record",
  finish: "outlast-finish",
  notify: "outlast-notify",
  sweep: "outlast-sweep",
  keep: "outlast-keep",
} as const;

/** Outlast's own queues; a producer's `reply_to` must not be one. */
export function isOwnQueue(name: string): boolean {
  return name.startsWith("outlast-");
}

/** The id of every job about an attempt, the same in each stage's queue. No `:` and never an integer, as BullMQ demands. */
export function errandId({ batch, index, attempt }: Omit<AttemptRef, "account">): string {
  return `${batch}-${index}-${attempt}`;
}

export function parseErrandId(text: string): Omit<AttemptRef, "account"> | null {
  const [batchText = "", indexText = "", attemptText = "", ...more] = text.split("-");
  const batch = parseBatchId(batchText);
  if (
    batch === null ||
    more.length > 0 ||
    !/^(0|[1-9]\d{0,7})$/.test(indexText) ||
    !/^([1-9]|1[0-5])$/.test(attemptText)
  ) {
    return null;
  }
  return { batch, index: Number(indexText), attempt: Number(attemptText) };
}

/** What a client is told by its webhook: that its prediction begins, or that it has ended. */
export type NotifyEvent = "start" | "end";

export function notifyJobId(ref: Omit<AttemptRef, "account">, event: NotifyEvent): string {
  return `${errandId(ref)}-${event}`;
}

export function parseNotifyJobId(text: string): (Omit<AttemptRef, "account"> & { readonly event: NotifyEvent }) | null {
  const [, errand = "", event] = /^(.+)-(start|end)$/.exec(text) ?? [];
  const ref = parseErrandId(errand);
  return ref === null ? null : { ...ref, event: event as NotifyEvent };
}

/**
 * The id of the job that answers a producer, in the producer's own queue: the item's, and from the second attempt on the
 * attempt's as well. A queue keeps its jobs unless told otherwise, and one that is there would swallow the next answer.
 */
export function replyJobId({ batch, index, attempt }: Omit<AttemptRef, "account">): string {
  return attempt === 1 ? itemId(batch, index) : `${itemId(batch, index)}-${attempt}`;
}

/** What a receiver knows a call by: the same however often it is made. */
export function webhookCallId({ batch, index, attempt }: Omit<AttemptRef, "account">, event: NotifyEvent): string {
  return `msg_${itemId(batch, index)}_${attempt}_${event}`;
}

/** Where a provider reports the end of an attempt's prediction, below the server's own URL. */
export function webhookPath(ref: AttemptRef, nonce: string): string {
  return `/v1/webhooks/${ref.account}/${errandId(ref)}/${nonce}`;
}

// ── Redis keys ────────────────────────────────────────────────────────────────
// All keys of an account share one hash tag, so that one script may touch batch, account and items together.

const ofAccount = (account: AccountName) => `outlast:{${account}}`;

export const REDIS_KEYS = {
  /** hash: batch id → account. The way in for whoever knows only a batch's id. */
  batchAccounts: "outlast:batch-accounts",
  /** sorted set of batch ids by opening time (ms). */
  batches: "outlast:batches",
  /** sorted set of a tenant's batch ids by opening time (ms). */
  tenantBatches: (tenant: string) => `outlast:tenant-batches:${tenant}`,
  /** The same, of its batches of singles alone. */
  tenantSingles: (tenant: string) => `outlast:tenant-singles:${tenant}`,
  /** hash: what servers sign with; of its own for each use and tenant. */
  secrets: "outlast:secrets",
  /** hash: whether the bucket, which all accounts share, seems to be down. */
  bucket: "outlast:bucket",
  /** hash: what the fleet saved in a minute (counted from 1970), and in how many slots. */
  saves: (minute: number) => `outlast:saves:${minute}`,
  /**
   * hash: `paused` (why), the rates last taken from the configuration, `last_claim` (ms), which Redis the account is open
   * on or why it can't be opened, between which moments the one before it may have lost claims, and when it was swept last.
   */
  account: (account: AccountName) => `${ofAccount(account)}:account`,
  /** string: a random mark of this Redis's data. */
  epoch: (account: AccountName) => `${ofAccount(account)}:epoch`,
  /** sorted set of batch ids by opening time: those with rows that haven't been fed, paused ones aside. */
  unfed: (account: AccountName) => `${ofAccount(account)}:unfed`,
  /** sorted set of batch ids by opening time: those without a manifest. */
  unfinished: (account: AccountName) => `${ofAccount(account)}:unfinished`,
  /** sorted set of batch ids by the time of the cancel: those whose items haven't all been told. */
  canceling: (account: AccountName) => `${ofAccount(account)}:canceling`,
  /** sorted set of errand ids by last touch (ms): what somebody must be working on. */
  open: (account: AccountName) => `${ofAccount(account)}:open`,
  /** sorted set of errand ids by the time of the intent (ms): nobody knows whether they were bought. */
  unclear: (account: AccountName) => `${ofAccount(account)}:unclear`,
  /** sorted set of errand ids by the time of the intent (ms): a request is on its way, or was when its worker died. */
  claimed: (account: AccountName) => `${ofAccount(account)}:claimed`,
  /** string: why less is fed than could be; it goes by itself where no feed tells any more. */
  held: (account: AccountName) => `${ofAccount(account)}:held`,
  /** sorted set of errand ids by the expiry of their files (ms): outputs that aren't saved yet. */
  unsaved: (account: AccountName) => `${ofAccount(account)}:unsaved`,
  /** hash: the pace of creates and of reads, and whether the provider seems to be down; each one state. */
  budget: (account: AccountName) => `${ofAccount(account)}:budget`,
  /** string: how many of the reads beside polls are taken at this moment. */
  reads: (account: AccountName) => `${ofAccount(account)}:reads`,
  /** hash: what requests to the provider came to, by `<request> <outcome>`. */
  requests: (account: AccountName) => `${ofAccount(account)}:requests`,
  /** hash: how often a provider's webhook came to what. */
  webhooks: (account: AccountName) => `${ofAccount(account)}:webhooks`,
  /** hash: `<bucket> <model>` → how many runs that ended on a UTC day (counted from 1970) took so long. */
  runs: (account: AccountName, day: number) => `${ofAccount(account)}:runs:${day}`,
  /** hash: what the last sweep of the list came to, and when a webhook was last asked for (ms). */
  following: (account: AccountName) => `${ofAccount(account)}:following`,
  /** hash: prediction id → errand id, of the predictions that were bound in an hour (counted from 1970). */
  bound: (account: AccountName, hour: number) => `${ofAccount(account)}:bound:${hour}`,
  /** set of prediction ids that were bought for an attempt which holds another. */
  duplicates: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:duplicates:${batch}`,
  /** hash: what the batch is, its cursor, a counter per state, its sums. */
  batch: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:batch:${batch}`,
  /** string: one byte an item. */
  bytes: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:bytes:${batch}`,
  /** set of indexes whose claim was turned away and that the feed gives out again. */
  returned: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:returned:${batch}`,
  /** hash: what went wrong, in groups: `count:<group>`, and `example:<group>`, the first index of it. */
  failures: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:failures:${batch}`,
  /** list of the indexes that were saved last and have files, newest first. */
  latest: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:latest:${batch}`,
  /** sorted set of part numbers by their first index. */
  parts: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:parts:${batch}`,
  /** hash: what an open item needs; deleted when its attempt ends. */
  item: (account: AccountName, batch: BatchId, index: number) => `${ofAccount(account)}:item:${batch}:${index}`,
  /** What the keys of a batch's open items begin with; the index follows. */
  itemsOf: (account: AccountName, batch: BatchId) => `${ofAccount(account)}:item:${batch}:`,
} as const;

// ── object keys ───────────────────────────────────────────────────────────────

const key = (text: string) => text as ObjectKey;

export const OBJECT_KEYS = {
  batches: key("batches/"),
  batch: (batch: BatchId) => key(`batches/${batch}/batch.json`),
  input: (batch: BatchId, part: number) => key(`batches/${batch}/input-${part}.jsonl`),
  inputIndex: (batch: BatchId, part: number) => key(`batches/${batch}/input-${part}.idx`),
  windows: (batch: BatchId) => key(`batches/${batch}/windows/`),
  /** Written before a row of the window is fed; named by its first row. */
  window: (batch: BatchId, first: number) => key(`batches/${batch}/windows/${first}.json`),
  receipt: (batch: BatchId, index: number, attempt: number) =>
    key(`${itemFolder(batch, index)}/receipt${attempt > 1 ? `.${attempt}` : ""}.json`),
  /** The provider's answer, where it is too large for the item's hash. */
  answer: (batch: BatchId, index: number, attempt: number) => key(`${itemFolder(batch, index)}/answer.${attempt}.json`),
  /** The same with what became of its files: an object of its own, so that a late poll can't undo what was copied. */
  copied: (batch: BatchId, index: number, attempt: number) => key(`${itemFolder(batch, index)}/copied.${attempt}.json`),
  output: (batch: BatchId, index: number, attempt: number, n: number, extension: string) => {
    if (!/^[a-z0-9]{1,8}$/.test(extension)) throw new TypeError(`not a file extension: ${JSON.stringify(extension)}`);
    return key(`${itemFolder(batch, index)}/${attempt > 1 ? `a${attempt}-` : ""}output-${n}.${extension}`);
  },
  /** A prediction that was bought for an attempt which held another. */
  duplicate: (batch: BatchId, index: number, prediction: string) =>
    key(`${itemFolder(batch, index)}/duplicate-${prediction}.json`),
  /** What the keys of all of a batch's items begin with. */
  items: (batch: BatchId) => key(`batches/${batch}/items/`),
  results: (batch: BatchId) => key(`batches/${batch}/results.jsonl`),
  manifest: (batch: BatchId) => key(`batches/${batch}/manifest.json`),
  batchActs: (batch: BatchId) => key(`batches/${batch}/acts/`),
  batchAct: (batch: BatchId, n: number) => key(`batches/${batch}/acts/${n}.json`),
  accountActs: (account: AccountName) => key(`accounts/${account}/acts/`),
  accountAct: (account: AccountName, n: number) => key(`accounts/${account}/acts/${n}.json`),
  /** Which Redis the account was on, and since when. */
  redisNote: (account: AccountName, n: number) => key(`accounts/${account}/redis/${n}.json`),
  /** Names the item of an input's identity. `digest`: SHA-256 of the identity, 64 hex digits. */
  identity: (tenant: string, digest: string) => key(`keys/${tenant}/${digest}.json`),
} as const;

export type ItemObject = { readonly index: number } & (
  | { readonly kind: "receipt"; readonly attempt: number }
  | { readonly kind: "duplicate"; readonly prediction: string }
  | { readonly kind: "file" }
);

/** What an object of a batch's items is; every one that isn't a record of ours by its name is a file. */
export function parseItemKey(text: string): ItemObject | null {
  const [, digits, name = ""] = /^batches\/[^/]+\/items\/(\d{8})\/([^/]+)$/.exec(text) ?? [];
  if (digits === undefined) return null;
  const index = Number(digits);
  const [isReceipt, attempt] = /^receipt(?:\.([2-9]|1[0-5]))?\.json$/.exec(name) ?? [];
  if (isReceipt !== undefined) return { index, kind: "receipt", attempt: Number(attempt ?? 1) };
  const [, prediction] = /^duplicate-(.+)\.json$/.exec(name) ?? [];
  return prediction === undefined ? { index, kind: "file" } : { index, kind: "duplicate", prediction };
}

function itemFolder(batch: BatchId, index: number): string {
  assertIndex(index);
  return `batches/${batch}/items/${String(index).padStart(8, "0")}`;
}

function assertIndex(index: number): void {
  if (!Number.isInteger(index) || index < 0 || index > MAX_INDEX) {
    throw new RangeError(`an index is a whole number from 0 to ${MAX_INDEX}, not ${index}`);
  }
}
