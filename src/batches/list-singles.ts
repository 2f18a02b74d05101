/**
 * A tenant's single predictions, newest first, a page at a time: those of the API and of the inputs queue. (Rows of a file
 * are listed by their batch.) They stand in batches of a day and an account, in the order of their admission; a day's
 * batches are merged by the times of their items. Where a batch reaches a moment is found by halving: some twenty rows
 * are read for a million.
 *
 * A page ends with how much of each of its day's batches is left, not with a moment: the clocks of two servers differ by
 * a little, so the times within a batch may go back by as much, and a page that began at a moment would lose items.
 */

import type { Bucket } from "../bucket/bucket.ts";
import type { Batch } from "../core/batch.ts";
import { type BatchId, type ItemId, itemId } from "../core/naming.ts";
import { DAY } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { readItemRow } from "./place-items.ts";

export type SinglesPage = {
  readonly items: readonly ItemId[];
  /** Where the next page begins. Null on the last page. */
  readonly next: SinglesCursor | null;
};

/** `day`: since 1970. `left`: how many items of its batches haven't been listed; of those that aren't named, none. */
export type SinglesCursor = { readonly day: number; readonly left: ReadonlyMap<BatchId, number> };

export type SinglesQuery = {
  readonly tenant: string;
  readonly limit: number;
  /** Inclusive. */
  readonly createdAfterMs: number | null;
  /** Exclusive. */
  readonly createdBeforeMs: number | null;
  readonly cursor: SinglesCursor | null;
};

export type SinglesDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "listTenantBatches" | "accountOf" | "standing" | "partOf">;
};

/** A batch, read from its newest item on. `times`: of the next items, as far as they have been read. */
type Reader = { readonly batch: Batch; left: number; times: number[] };

const BATCHES_AT_ONCE = 50;
const TIMES_AT_ONCE = 10;

export async function listSingles(query: SinglesQuery, deps: SinglesDeps): Promise<SinglesPage> {
  const items: ItemId[] = [];
  for await (const { item, from } of newestFirst(query, deps)) {
    if (items.length === query.limit) return { items, next: from() };
    items.push(item);
  }
  return { items, next: null };
}

/** `from`: where a page begins that this item is the first of; to be asked before the next item is taken. */
async function* newestFirst(
  query: SinglesQuery,
  deps: SinglesDeps,
): AsyncGenerator<{ readonly item: ItemId; readonly from: () => SinglesCursor }> {
  for await (const batches of days(query, deps)) {
    const readers = await Promise.all(
      batches.map(async (batch): Promise<Reader> => ({ batch, left: await unread(batch, query, deps), times: [] })),
    );
    for (;;) {
      await Promise.all(readers.map((reader) => readTimes(reader, query, deps)));
      const [newest] = readers.filter(({ left }) => left > 0).toSorted(byNewest);
      if (newest === undefined) break;
      yield {
        item: itemId(newest.batch.id, newest.left - 1),
        from: () => ({
          day: dayOf(newest.batch),
          left: new Map(readers.filter(({ left }) => left > 0).map(({ batch, left }) => [batch.id, left])),
        }),
      };
      newest.left--;
      newest.times.shift();
    }
  }
}

/** The batches of each day that the query may want something of, newest day first. */
async function* days(
  { tenant, createdAfterMs, createdBeforeMs, cursor }: SinglesQuery,
  deps: SinglesDeps,
): AsyncGenerator<readonly Batch[]> {
  let batches: Batch[] = [];
  for await (const batch of singlesBatches(tenant, deps)) {
    const day = dayOf(batch);
    if (cursor !== null && day > cursor.day) continue;
    if (createdBeforeMs !== null && day * DAY >= createdBeforeMs) continue;
    // What was asked for at the last moment of a day may have been admitted on the next.
    if (createdAfterMs !== null && (day + 2) * DAY <= createdAfterMs) break;
    if (batches[0] !== undefined && dayOf(batches[0]) !== day) {
      yield batches;
      batches = [];
    }
    batches.push(batch);
  }
  yield batches;
}

async function* singlesBatches(tenant: string, { ledger }: SinglesDeps): AsyncGenerator<Batch> {
  let after = {};
  for (;;) {
    const ids = await ledger.listTenantBatches(tenant, BATCHES_AT_ONCE, { only: "singles", ...after });
    for (const id of ids) {
      const account = await ledger.accountOf(id);
      const standing = account === null ? null : await ledger.standing(account, id);
      if (standing !== null) yield standing.batch;
    }
    const last = ids.at(-1);
    if (last === undefined || ids.length < BATCHES_AT_ONCE) return;
    after = { after: last };
  }
}

function dayOf({ openedAtMs }: Batch): number {
  return Math.floor(openedAtMs / DAY);
}

/** Newest first; of one moment, by id. */
function byNewest(a: Reader, b: Reader): number {
  return (b.times[0] ?? 0) - (a.times[0] ?? 0) || (a.batch.id < b.batch.id ? 1 : -1);
}

/** How many of a batch's items, from its oldest on, the query may still want. */
async function unread(batch: Batch, { cursor, createdBeforeMs }: SinglesQuery, deps: SinglesDeps): Promise<number> {
  if (cursor?.day === dayOf(batch)) return Math.min(cursor.left.get(batch.id) ?? 0, batch.items);
  return createdBeforeMs === null ? batch.items : countBefore(batch, createdBeforeMs, deps);
}

async function readTimes(reader: Reader, { createdAfterMs }: SinglesQuery, deps: SinglesDeps): Promise<void> {
  const { batch, left, times } = reader;
  if (times.length === 0 && left > 0) {
    const count = Math.min(TIMES_AT_ONCE, left);
    const indexes = Array.from({ length: count }, (_, at) => left - 1 - at);
    reader.times = await Promise.all(indexes.map((index) => createdAtMs(batch, index, deps)));
  }
  if (createdAfterMs !== null && (reader.times[0] ?? 0) < createdAfterMs) reader.left = 0;
}

/** How many of a batch's items were created before a moment. */
async function countBefore(batch: Batch, beforeMs: number, deps: SinglesDeps): Promise<number> {
  let low = 0;
  let high = batch.items;
  if (high === 0 || (await createdAtMs(batch, high - 1, deps)) < beforeMs) return high;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if ((await createdAtMs(batch, middle, deps)) < beforeMs) low = middle + 1;
    else high = middle;
  }
  return low;
}

async function createdAtMs(batch: Batch, index: number, deps: SinglesDeps): Promise<number> {
  const { created_at: createdAt } = await readItemRow(deps, { account: batch.account, batch: batch.id, index });
  return createdAt === undefined ? batch.openedAtMs : Date.parse(createdAt);
}
