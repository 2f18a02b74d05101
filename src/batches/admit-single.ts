/**
 * Admits single inputs: notes who they are, gives each a place in today's batch of singles, and opens it for feeding.
 *
 * Singles that arrive within 5 ms share a part of the batch's input. The part, written once under its number, is
 * what decides: who writes part n appends its rows behind all earlier ones. Then each input's identity is noted,
 * then the part is published in Redis. Order of effects, and what a crash leaves after each:
 *
 *   1. part n in the bucket     nobody was answered. Whoever next wants number n finds it taken and carries on with
 *                               2 and 3 in the writer's place.
 *   2. identities               the same; an input that comes again is known now, and whoever answers it publishes.
 *   3. published                its rows are fed, whether or not their producers heard of it.
 *
 * The same identity with the same input is the same item; with another input it is refused. Two writers that race
 * with one identity both write a part; the identity names one row, and the other's row is void: canceled, never bought.
 */

import { createHash } from "node:crypto";
import DataLoader from "dataloader";
import stringify from "safe-stable-stringify";
import type { Bucket } from "../bucket/bucket.ts";
import { encodeIndex, parseRow, type StoredRow } from "../bucket/input-parts.ts";
import { type Identity, readBatch, readIdentity, writeBatch, writeIdentity } from "../bucket/records.ts";
import type { Batch } from "../core/batch.ts";
import { type BatchId, batchIdFrom, type ItemId, itemId, OBJECT_KEYS } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Queues } from "../queues/enqueue.ts";
import { requireRemembered } from "./forgotten-batch.ts";
import { InputRefused, type SingleInput } from "./single-input.ts";

const SHARED_PART_MS = 5;
const MAX_PART_ROWS = 1_000;
const MAX_PART_BYTES = 64 * 1024 * 1024;
const MAX_ROUNDS = 1_000;

export type Admission = { readonly admit: (input: SingleInput) => Promise<ItemId> };

type Entry = {
  readonly input: SingleInput;
  readonly key: ReturnType<typeof OBJECT_KEYS.identity>;
  readonly digest: string;
  readonly line: string;
};

export function openAdmission(deps: {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "openBatch" | "standing" | "publishPart">;
  readonly queues: Pick<Queues, "wakeFeed">;
  readonly clock: () => number;
}): Admission {
  const { bucket, ledger } = deps;
  /** One per batch of singles; yesterday's are dropped when a new one is made. */
  const loaders = new Map<BatchId, DataLoader<Entry, ItemId>>();

  async function loaderOf(input: SingleInput): Promise<DataLoader<Entry, ItemId>> {
    const batch = singlesBatch(input, deps.clock());
    const known = loaders.get(batch.id);
    if (known !== undefined) return known;
    await requireRemembered(deps, batch, OBJECT_KEYS.input(batch.id, 0));
    await writeBatch(bucket, batch);
    await ledger.openBatch(batch);
    const raced = loaders.get(batch.id);
    if (raced !== undefined) return raced;
    if (loaders.size >= 1_000) loaders.clear();
    let previous: Promise<unknown> = Promise.resolve();
    const loader = new DataLoader<Entry, ItemId>(
      (entries) => {
        // One part at a time, so that this process doesn't race itself for a number.
        const run = previous.then(() => admitGroup(batch, entries));
        previous = run.catch(() => undefined);
        return run;
      },
      { cache: false, maxBatchSize: MAX_PART_ROWS, batchScheduleFn: (flush) => setTimeout(flush, SHARED_PART_MS) },
    );
    loaders.set(batch.id, loader);
    return loader;
  }

  /** An answer for each entry: its item, or why it is refused. */
  async function admitGroup(batch: Batch, entries: readonly Entry[]): Promise<(ItemId | Error)[]> {
    const answers = new Map<Entry, ItemId | Error>();
    /** The highest index that the answers name, by batch. */
    const promised = new Map<BatchId, number>();
    for (let round = 0; round < MAX_ROUNDS; round++) {
      await Promise.all(
        entries
          .filter((entry) => !answers.has(entry))
          .map(async (entry) => {
            const standing = await readIdentity(bucket, entry.key);
            if (standing === null) return;
            answers.set(entry, judge(entry, standing));
            promised.set(standing.batch, Math.max(promised.get(standing.batch) ?? 0, standing.index));
          }),
      );
      const open = entries.filter((entry) => !answers.has(entry));
      if (open.length === 0) {
        for (const [id, index] of promised) await publishUpTo(id, index);
        await deps.queues.wakeFeed(batch.account);
        return entries.map((entry) => answers.get(entry) ?? new Error("an admission was lost"));
      }
      await appendPart(batch, open);
    }
    throw new Error(`batch ${batch.id}: ${MAX_ROUNDS} parts were written by others while this one waited for a number`);
  }

  /** Whoever noted an identity may have died before its part was published: what is answered here will be fed. */
  async function publishUpTo(id: BatchId, index: number): Promise<void> {
    const batch = await readBatch(bucket, id);
    for (let round = 0; batch !== null && round < MAX_ROUNDS; round++) {
      const tail = await ledger.standing(batch.account, id);
      if (tail === null || index < tail.batch.items) return; // a batch that has left Redis was finished
      const body = await bucket.get(OBJECT_KEYS.input(id, tail.parts), { maxBytes: 2 * MAX_PART_BYTES });
      if (body === null) throw new Error(`item ${index} of batch ${id} was promised, but stands in no part of it`);
      await completePart(batch, { part: tail.parts, first: tail.batch.items }, body.toString("utf8"));
    }
  }

  /** Appends a part with these entries - or completes the part that somebody else wrote under its number. */
  async function appendPart(batch: Batch, entries: readonly Entry[]): Promise<void> {
    const tail = await ledger.standing(batch.account, batch.id);
    if (tail === null) throw new Error(`batch ${batch.id} isn't open in Redis`);
    const place = { part: tail.parts, first: tail.batch.items };
    const key = OBJECT_KEYS.input(batch.id, place.part);
    const body = [...new Map(withinLimit(entries).map((entry) => [entry.key, entry.line])).values()].join("");
    const wrote = await bucket.putOnce(key, body, { contentType: "application/x-ndjson" });
    if (wrote) return completePart(batch, place, body);

    const theirs = await bucket.get(key, { maxBytes: 2 * MAX_PART_BYTES });
    const now = await ledger.standing(batch.account, batch.id);
    // Published meanwhile, it needs nobody; and then `place.first` might not be where it begins.
    if (theirs !== null && now?.parts === place.part) await completePart(batch, place, theirs.toString("utf8"));
  }

  async function completePart(
    batch: Batch,
    { part, first }: { part: number; first: number },
    body: string,
  ): Promise<void> {
    const lines = body.split("\n").slice(0, -1);
    let end = 0;
    const ends = lines.map((line) => (end += Buffer.byteLength(line) + 1));
    await bucket.put(OBJECT_KEYS.inputIndex(batch.id, part), encodeIndex(first, ends), {
      contentType: "application/octet-stream",
    });

    const voidIndexes: number[] = [];
    await Promise.all(
      lines.map(async (line, at) => {
        const index = first + at;
        const row = parseRow(line);
        if (row.identity === undefined || row.input_sha256 === undefined)
          throw new Error(`row ${index} of ${batch.id} names no identity`);
        const mine: Identity = { batch: batch.id, index, inputSha256: row.input_sha256 };
        const standing = await writeIdentity(bucket, OBJECT_KEYS.identity(batch.tenant, row.identity), mine);
        if (standing.batch !== mine.batch || standing.index !== index) voidIndexes.push(index);
      }),
    );
    await ledger.publishPart(batch, { part, first, rows: lines.length, voidIndexes });
  }

  return {
    async admit(input) {
      return (await loaderOf(input)).load(entryOf(input));
    },
  };
}

/** The batch of singles that an input of this moment belongs to. */
function singlesBatch({ tenant, account }: SingleInput, nowMs: number): Batch {
  const day = new Date(nowMs).toISOString().slice(0, 10);
  return {
    id: batchIdFrom(sha256(JSON.stringify(["singles", tenant, account, day]))),
    kind: "singles",
    name: `singles ${day}`,
    tenant,
    account,
    items: 0,
    openedAtMs: nowMs,
  };
}

function entryOf(input: SingleInput): Entry {
  const identity = sha256(input.identity).toString("hex");
  const digest = sha256(stringify([input.row.target, input.row.input])).toString("hex");
  const row: StoredRow = {
    input: input.row.input,
    target: input.row.target,
    identity,
    input_sha256: digest,
    ...(input.row.id !== undefined && { id: input.row.id }),
    ...(input.replyTo !== null && { reply_to: input.replyTo }),
  };
  return { input, key: OBJECT_KEYS.identity(input.tenant, identity), digest, line: `${JSON.stringify(row)}\n` };
}

function judge(entry: Entry, standing: Identity): ItemId | Error {
  if (standing.inputSha256 === entry.digest) return itemId(standing.batch, standing.index);
  return new InputRefused(
    `${entry.input.identity.replace(/^(\w+):/, "$1 ")} is item ${itemId(standing.batch, standing.index)} already, with another input`,
  );
}

/** The first entries whose lines fit into one part; the rest go into the next round's. */
function withinLimit(entries: readonly Entry[]): readonly Entry[] {
  let bytes = 0;
  const most = entries.findIndex((entry) => (bytes += Buffer.byteLength(entry.line)) > MAX_PART_BYTES);
  return most === -1 ? entries : entries.slice(0, Math.max(most, 1));
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
