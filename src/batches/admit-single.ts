/**
 * Admits single inputs: notes who they are, gives each a place in today's batch of singles, and opens it for feeding.
 *
 * Singles that arrive within a millisecond, or while a part is being written, share a part of the batch's input. The part,
 * written once under its number, is what decides: who writes part n appends its rows behind all earlier ones. Then each
 * input's identity is noted, then the part is published in Redis. Order of effects, and what a crash leaves after each:
 *
 *   1. part n in the bucket     nobody was answered. Whoever next wants number n finds it taken and carries on with
 *                               2 and 3 in the writer's place.
 *   2. identities               the same; an input that comes again is known now, and whoever answers it publishes.
 *   3. published                its rows are fed, whether or not their producers heard of it.
 *
 * The same identity with the same input is the same item; with another input it is refused. An input without one can't
 * come again, and is answered once its part is published. Two writers that race
 * with one identity both write a part; the identity names one row, and the other's row is void: canceled, never bought.
 */

import { createHash, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import DataLoader from "dataloader";
import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import { type Identity, readBatch, readIdentity, writeBatch } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import { type BatchId, batchIdFrom, type ItemId, itemId, OBJECT_KEYS } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";
import type { BatchStanding, Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import {
  completePart,
  completeParts,
  type Line,
  linesOf,
  MAX_PART_BYTES,
  MAX_READ_BYTES,
  type Place,
} from "./complete-part.ts";
import { inputDigest } from "./input-digest.ts";
import { openKnownBatch } from "./rebuild-batch.ts";
import { AdmissionBusy, IdentityTaken, type SingleInput } from "./single-input.ts";

const SHARED_PART_MS = 1;
const MAX_PART_ROWS = 1_000;
const MAX_ROUNDS = 1_000;
const MAX_LOADERS = 1_000;
const WAKE_EVERY_MS = 100;
/** Whose turn hasn't come by then is better told so: where a part takes as long, something is wrong. */
const LONGEST_QUEUE_MS = 5 * SECOND;
const BUSY = "too many inputs wait to be admitted; this one was not";

/** `row`: as it was stored now; null where the identity was known before, and the item with it. */
export type Admitted = { readonly item: ItemId; readonly row: StoredRow | null };

export type Admission = { readonly admit: (input: SingleInput) => Promise<Admitted> };

type Entry = {
  readonly input: SingleInput;
  /** Null where the input can't come again. */
  readonly key: ReturnType<typeof OBJECT_KEYS.identity> | null;
  readonly digest: string;
  /** When it came. */
  readonly sinceMs: number;
};

/** By identities that were noted earlier: of each batch the highest index that was named, and to whom. */
type Promised = Map<BatchId, { readonly index: number; readonly to: readonly Entry[] }>;

export function openAdmission(deps: {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "openBatch" | "standing" | "publishPart" | "restoreBatch">;
  readonly queues: Pick<Queues, "wakeFeed">;
  readonly clock: () => number;
}): Admission {
  const { bucket, ledger } = deps;
  /** One per batch of singles, by what makes it that batch. */
  const loaders = new Map<string, DataLoader<Entry, Admitted>>();
  /** Where the next part goes, as far as this process knows; who finds the number taken asks Redis. */
  const tails = new Map<BatchId, Place>();
  let wokenAtMs = Number.NEGATIVE_INFINITY;

  async function loaderOf(input: SingleInput): Promise<DataLoader<Entry, Admitted>> {
    const nowMs = deps.clock();
    const key = singlesKey(input, nowMs);
    const known = loaders.get(key);
    if (known !== undefined) return known;
    const batch = singlesBatch(input, nowMs);
    await ((await writeBatch(bucket, batch)) ? ledger.openBatch(batch) : openStanding(batch));
    const raced = loaders.get(key);
    if (raced !== undefined) return raced;
    if (loaders.size >= MAX_LOADERS) {
      loaders.clear();
      tails.clear();
    }
    let previous: Promise<unknown> = Promise.resolve();
    const loader = new DataLoader<Entry, Admitted>(
      (entries) => {
        // One part at a time, so that this process doesn't race itself for a number.
        const run = previous.then(() => admitGroup(batch, entries));
        previous = run.catch(() => undefined);
        return run;
      },
      {
        cache: false,
        maxBatchSize: MAX_PART_ROWS,
        // What comes while a part is being written shares the next one.
        batchScheduleFn: (flush) => void Promise.all([previous, sleep(SHARED_PART_MS)]).then(flush),
      },
    );
    loaders.set(key, loader);
    return loader;
  }

  /** An answer for each entry: its item, or why it is refused. */
  async function admitGroup(batch: Batch, entries: readonly Entry[]): Promise<(Admitted | Error)[]> {
    const answers = new Map<Entry, Admitted | Error>();
    for (const entry of entries) {
      if (deps.clock() - entry.sinceMs > LONGEST_QUEUE_MS) answers.set(entry, new AdmissionBusy(BUSY));
    }
    if (answers.size === entries.length) return entries.map(() => new AdmissionBusy(BUSY));
    const promised: Promised = new Map();
    try {
      await answerAll(batch, entries, answers, promised);
    } catch (error) {
      // What stands in a part by now will be bought: who is told otherwise would send it again.
      for (const entry of entries) if (!answers.has(entry)) answers.set(entry, asError(error));
    }
    for (const [id, { index, to }] of promised) {
      await publishUpTo(id, index).catch((error: unknown) => {
        for (const entry of to) answers.set(entry, asError(error));
      });
    }
    await wakeFeed(batch);
    return entries.map((entry) => answers.get(entry) ?? new Error("an admission was lost"));
  }

  async function answerAll(
    batch: Batch,
    entries: readonly Entry[],
    answers: Map<Entry, Admitted | Error>,
    promised: Promised,
  ): Promise<void> {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const read = await Promise.allSettled(
        entries
          .filter((entry) => !answers.has(entry))
          .map(async (entry) => {
            const standing = entry.key === null ? null : await readIdentity(bucket, entry.key);
            if (standing === null) return;
            answers.set(entry, judge(entry, standing, null));
            const { index, to } = promised.get(standing.batch) ?? { index: 0, to: [] };
            promised.set(standing.batch, { index: Math.max(index, standing.index), to: [...to, entry] });
          }),
      );
      const failed = read.find(({ status }) => status === "rejected");
      if (failed?.status === "rejected") throw failed.reason;
      const open = entries.filter((entry) => !answers.has(entry));
      if (open.length > 0) for (const [entry, answer] of await appendPart(batch, open)) answers.set(entry, answer);
      if (answers.size === entries.length) return;
    }
    throw new Error(`batch ${batch.id}: ${MAX_ROUNDS} parts were written by others while this one waited for a number`);
  }

  /** The feed looks every second by itself; a busy server needn't wake it at every part, nor fail where it can't. */
  async function wakeFeed({ account }: Batch): Promise<void> {
    const nowMs = deps.clock();
    if (Math.abs(nowMs - wokenAtMs) < WAKE_EVERY_MS) return;
    wokenAtMs = nowMs;
    await deps.queues.wakeFeed(account).catch(() => {
      wokenAtMs = Number.NEGATIVE_INFINITY;
    });
  }

  /** Whoever noted an identity may have died before its part was published: what is answered here will be fed. */
  async function publishUpTo(id: BatchId, index: number): Promise<void> {
    const batch = await readBatch(bucket, id);
    for (let round = 0; batch !== null && round < MAX_ROUNDS; round++) {
      const tail = await ledger.standing(batch.account, id);
      if (tail === null || index < tail.batch.items) return; // a batch that has left Redis was finished
      const body = await bucket.get(OBJECT_KEYS.input(id, tail.parts), { maxBytes: MAX_READ_BYTES });
      if (body === null) throw new Error(`item ${index} of batch ${id} was promised, but stands in no part of it`);
      await complete(batch, { part: tail.parts, first: tail.batch.items }, linesOf(body));
    }
  }

  /**
   * Appends a part with these entries, as many as fit, and answers them - or completes the part that somebody else
   * wrote under its number, which answers none.
   */
  async function appendPart(batch: Batch, entries: readonly Entry[]): Promise<ReadonlyMap<Entry, Admitted | Error>> {
    const place = tails.get(batch.id) ?? (await readTail(batch));
    tails.delete(batch.id);
    // Stamped now, when all earlier parts are known: so the rows of a batch stand in the order of their creation.
    const mine = withinLimit(entries, deps.clock());
    const key = OBJECT_KEYS.input(batch.id, place.part);
    const body = Buffer.from(mine.map(({ line }) => line).join(""));

    const theirs = (await bucket.putOnce(key, body, { contentType: "application/x-ndjson" }))
      ? body
      : await bucket.get(key, { maxBytes: MAX_READ_BYTES });
    if (theirs === null) throw new Error(`${bucket.urlOf(key)} was there, and isn't any more`);
    // A client of S3 that sends a put again may be told that the key is taken: by itself.
    if (theirs.equals(body)) {
      const standing = await complete(batch, place, mine);
      tails.set(batch.id, { part: place.part + 1, first: place.first + mine.length });
      return new Map(
        mine.map(({ entry, row }, at) => {
          const index = place.first + at;
          const own = { batch: batch.id, index, inputSha256: entry.digest };
          const found = standing[at] ?? own;
          return [entry, judge(entry, found, found.batch === own.batch && found.index === index ? row : null)];
        }),
      );
    }
    const now = await ledger.standing(batch.account, batch.id);
    // Published meanwhile, it needs nobody; and then `place.first` might not be where it begins.
    if (now?.parts === place.part) await complete(batch, place, linesOf(theirs));
    return new Map();
  }

  async function readTail(batch: Batch): Promise<Place> {
    const { id, account } = batch;
    const tail = (await ledger.standing(account, id)) ?? (await recover(batch));
    return { part: tail.parts, first: tail.batch.items };
  }

  async function complete(batch: Batch, place: Place, lines: readonly Line[]): Promise<readonly (Identity | null)[]> {
    const standing = await completePart(deps, batch, place, lines);
    if (standing !== null) return standing;
    await recover(batch);
    const again = await completePart(deps, batch, place, lines);
    if (again === null) throw new Error(`Redis doesn't know the parts of batch ${batch.id} before part ${place.part}`);
    return again;
  }

  /** Redis was emptied, or has lost its last moments, while this process lives: what the bucket has is published again. */
  async function recover(batch: Batch): Promise<BatchStanding> {
    tails.delete(batch.id);
    await openStanding(batch);
    const tail = await ledger.standing(batch.account, batch.id);
    if (tail === null) throw new Error(`batch ${batch.id} was put back, and isn't there`);
    await completeParts(deps, batch, { part: tail.parts, first: tail.batch.items });
    return (await ledger.standing(batch.account, batch.id)) ?? tail;
  }

  /** As its first admission opened it. */
  async function openStanding({ id }: Batch): Promise<void> {
    const batch = await readBatch(bucket, id);
    if (batch === null) throw new Error(`${bucket.urlOf(OBJECT_KEYS.batch(id))} was there, and isn't any more`);
    await openKnownBatch(batch, deps);
  }

  return {
    async admit(input) {
      return (await loaderOf(input)).load(entryOf(input, deps.clock()));
    },
  };
}

/** The batch of singles that an input of this moment belongs to. */
function singlesBatch(input: SingleInput, nowMs: number): Batch {
  return {
    id: batchIdFrom(sha256(singlesKey(input, nowMs))),
    kind: "singles",
    name: `singles ${dayOf(nowMs)}`,
    tenant: input.tenant,
    account: input.account,
    items: 0,
    openedAtMs: nowMs,
    retryFailed: 0,
  };
}

function singlesKey({ tenant, account }: SingleInput, nowMs: number): string {
  return JSON.stringify(["singles", tenant, account, dayOf(nowMs)]);
}

function dayOf(nowMs: number): string {
  return new Date(nowMs).toISOString().slice(0, 10);
}

function entryOf(input: SingleInput, sinceMs: number): Entry {
  const digest = inputDigest(input.row);
  return {
    input,
    digest,
    sinceMs,
    key: input.identity === null ? null : OBJECT_KEYS.identity(input.tenant, digestOf(input.identity)),
  };
}

function lineOf({ input, digest }: Entry, nowMs: number): Line {
  const { identity, replyTo, webhook, cancelAfterMs } = input;
  const { id, input: values, target } = input.row;
  const row: StoredRow = {
    input: values,
    target,
    // A row that nothing else tells from its twin: see `appendPart`.
    ...(identity === null ? { nonce: randomUUID() } : { identity: digestOf(identity), input_sha256: digest }),
    ...(id !== undefined && { id }),
    ...(replyTo !== null && { reply_to: replyTo }),
    created_at: new Date(nowMs).toISOString(),
    ...(cancelAfterMs !== null && { deadline: new Date(nowMs + cancelAfterMs).toISOString() }),
    ...(webhook !== null && { webhook }),
  };
  return { row, line: `${JSON.stringify(row)}\n` };
}

function judge(entry: Entry, standing: Identity, row: StoredRow | null): Admitted | Error {
  const item = itemId(standing.batch, standing.index);
  if (standing.inputSha256 === entry.digest) return { item, row };
  return new IdentityTaken(
    `${(entry.input.identity ?? "").replace(/^(\w+):/, "$1 ")} is item ${item} already, with another input`,
  );
}

/** The first entries whose lines fit into one part, one of each identity; the rest go into the next round's. */
function withinLimit(entries: readonly Entry[], nowMs: number): readonly (Line & { readonly entry: Entry })[] {
  const lines: (Line & { readonly entry: Entry })[] = [];
  let bytes = 0;
  for (const entry of new Map(entries.map((one) => [one.key ?? one, one])).values()) {
    const { row, line } = lineOf(entry, nowMs);
    bytes += Buffer.byteLength(line);
    if (bytes > MAX_PART_BYTES && lines.length > 0) break;
    lines.push({ entry, row, line });
  }
  return lines;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

function digestOf(identity: string): string {
  return sha256(identity).toString("hex");
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
