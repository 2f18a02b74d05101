/**
 * A tenant's single predictions, newest first, a page at a time: those of the API and of the inputs queue. (Rows of a file
 * are listed by their batch.) They stand in batches of a day and an account, in the order of their admission; a page is
 * merged from the few batches of its time. Where a batch reaches a moment is found by halving: some twenty rows are
 * read for a million.
 */

import type { Bucket } from "../bucket/bucket.ts";
import { readRow } from "../bucket/input-parts.ts";
import type { Batch } from "../core/batch.ts";
import { type ItemId, itemId, parseItemId } from "../core/naming.ts";
import { DAY } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import { placeItems } from "./place-items.ts";

export type SinglesPage = {
  readonly items: readonly ItemId[];
  /** Where the next page begins: behind this item. Null on the last page. */
  readonly next: SinglesCursor | null;
};

export type SinglesCursor = { readonly createdAtMs: number; readonly item: ItemId };

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

/** A batch, read from its newest item on. */
type Reader = { readonly batch: Batch; next: number; head: SinglesCursor | null };

const BATCHES_AT_ONCE = 50;

export async function listSingles(query: SinglesQuery, deps: SinglesDeps): Promise<SinglesPage> {
  const { limit, createdAfterMs, cursor } = query;
  const beforeMs = Math.min(
    query.createdBeforeMs ?? Number.POSITIVE_INFINITY,
    cursor === null ? Number.POSITIVE_INFINITY : cursor.createdAtMs + 1,
  );
  const taken: SinglesCursor[] = [];
  const open: Reader[] = [];

  for await (const batch of singlesBatches(query.tenant, deps)) {
    const dayMs = Math.floor(batch.openedAtMs / DAY) * DAY;
    if (dayMs >= beforeMs) continue;
    if (createdAfterMs !== null && dayMs + DAY <= createdAfterMs) break;
    // An earlier day than the open ones': they go first. What is left of them is newer than anything in it.
    if (open.length > 0 && dayOf(open) > dayMs) await drain(open, limit, query, taken, deps);
    if (taken.length > limit) break;
    open.push({ batch, next: await firstUnread(batch, beforeMs, cursor, deps), head: null });
  }
  await drain(open, limit, query, taken, deps);

  const page = taken.slice(0, limit);
  return { items: page.map(({ item }) => item), next: taken.length > limit ? (page.at(-1) ?? null) : null };
}

/** Merges what the open batches have, newest first, until one more than the page holds; then they are empty. */
async function drain(
  open: Reader[],
  limit: number,
  { createdAfterMs, cursor }: SinglesQuery,
  taken: SinglesCursor[],
  deps: SinglesDeps,
): Promise<void> {
  while (taken.length <= limit) {
    for (const reader of open) reader.head ??= await readHead(reader, deps);
    const newest = open
      .filter(({ head }) => head !== null)
      .toSorted((a, b) => order(a.head, b.head))
      .at(0);
    if (newest?.head == null) break;
    const { head } = newest;
    newest.head = null;
    newest.next--;
    if (createdAfterMs !== null && head.createdAtMs < createdAfterMs) {
      newest.next = 0;
      continue;
    }
    if (cursor === null || isOf(newest.batch, cursor) || order(cursor, head) < 0) taken.push(head);
  }
  open.length = 0;
}

/** Newest first; of one moment, by id. */
function order(a: SinglesCursor | null, b: SinglesCursor | null): number {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1;
  return b.createdAtMs - a.createdAtMs || (a.item < b.item ? 1 : a.item > b.item ? -1 : 0);
}

function dayOf(open: readonly Reader[]): number {
  return Math.floor((open[0]?.batch.openedAtMs ?? 0) / DAY) * DAY;
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

async function readHead({ batch, next }: Reader, deps: SinglesDeps): Promise<SinglesCursor | null> {
  if (next === 0) return null;
  return { createdAtMs: await createdAtMs(batch, next - 1, deps), item: itemId(batch.id, next - 1) };
}

/** How many of a batch's items, from its oldest on, the query may still want. */
async function firstUnread(
  batch: Batch,
  beforeMs: number,
  cursor: SinglesCursor | null,
  deps: SinglesDeps,
): Promise<number> {
  const before = await countBefore(batch, beforeMs, deps);
  return cursor !== null && isOf(batch, cursor) ? Math.min(before, parseItemId(cursor.item)?.index ?? 0) : before;
}

function isOf(batch: Batch, { item }: SinglesCursor): boolean {
  return item.startsWith(batch.id);
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

async function createdAtMs(batch: Batch, index: number, { bucket, ledger }: SinglesDeps): Promise<number> {
  const [place] = await placeItems({ bucket, ledger }, batch.account, batch.id, index, 1);
  if (place === undefined) throw new Error(`item ${index} of batch ${batch.id} stands in no part of its input`);
  const { created_at: createdAt } = await readRow(bucket, batch.id, place);
  return createdAt === undefined ? batch.openedAtMs : Date.parse(createdAt);
}
