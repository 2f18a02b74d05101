/**
 * Predictions by their id, at one question to Redis each: what was asked for and what was recorded never change, so both
 * are kept in memory, within bounds, and only where the item stands is asked every time.
 */

import { LRUCache } from "lru-cache";
import type { Bucket } from "../bucket/bucket.ts";
import type { StoredRow } from "../bucket/input-parts.ts";
import { readIdentity, readReceipt } from "../bucket/records.ts";
import { type ItemState, isEnd } from "../core/item.ts";
import { type AccountName, type AttemptRef, type ItemId, itemId, OBJECT_KEYS, parseItemId } from "../core/naming.ts";
import type { AskedFor, PredictionLinks, PredictionView } from "../core/prediction-view.ts";
import type { Receipt } from "../core/receipt.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import { askedForBy, viewOf } from "./describe-prediction.ts";
import { findRow } from "./find-item.ts";

/** What never changes of an item. */
type Known = {
  readonly tenant: string;
  readonly account: AccountName;
  readonly row: StoredRow;
  readonly asked: AskedFor;
};

export type FoundPrediction = AttemptRef &
  Known & {
    readonly id: ItemId;
    readonly state: ItemState;
    readonly fields: Partial<OpenItemFields>;
  };

/** Addresses that are the same for all who are given this text: for a day (UTC), and one secret that signs them. */
export type StandingLinks = PredictionLinks & { readonly sameWhile: string };

export type Predictions = {
  /** What was just admitted needn't be read back; it is answered as it stands then: waiting. */
  readonly remember: (id: ItemId, tenant: string, account: AccountName, row: StoredRow) => FoundPrediction;
  /** Null: there is no such item, or it is another tenant's. */
  readonly find: (text: string, tenant: string) => Promise<FoundPrediction | null>;
  /** The receipt of an item that has ended; null where it ended without one. */
  readonly receiptOf: (found: AttemptRef & { readonly state: ItemState }) => Promise<Receipt | null>;
  readonly view: (found: FoundPrediction, links: PredictionLinks) => Promise<PredictionView>;
  /** The view as JSON. Once an item has ended nothing in it changes but addresses, so it is kept for those. */
  readonly json: (found: FoundPrediction, links: StandingLinks) => Promise<string>;
  /** Whether another row has the same identity, and is the one that its producers were told of. */
  readonly isVoid: (found: FoundPrediction) => Promise<boolean>;
};

const CACHE_BYTES = 32 * 1024 * 1024;
/** What an entry costs beside its text, about. */
const ENTRY_BYTES = 1_000;

export function openPredictions(deps: {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "accountOf" | "standing" | "readItem" | "readStates" | "partOf">;
}): Predictions {
  const known = new LRUCache<ItemId, Known>({ maxSize: CACHE_BYTES, sizeCalculation: ({ row }) => sizeOf(row) });
  const receipts = new LRUCache<string, Receipt>({ maxSize: CACHE_BYTES, sizeCalculation: sizeOf });
  const texts = new LRUCache<string, string>({
    maxSize: CACHE_BYTES,
    sizeCalculation: (text) => text.length + ENTRY_BYTES,
  });
  const readingKnown = readOnce<Known>();
  const readingReceipts = readOnce<Receipt>();

  async function knownOf(id: ItemId): Promise<Known | null> {
    return (
      known.get(id) ??
      readingKnown(id, async () => {
        const found = await findRow(deps, id);
        if (found === null) return null;
        const { of, row, account } = found;
        const fresh = { tenant: of.tenant, account, row, asked: askedForBy(id, row, of) };
        known.set(id, fresh);
        return fresh;
      })
    );
  }

  async function receiptOf({ state, ...ref }: AttemptRef & { readonly state: ItemState }): Promise<Receipt | null> {
    if (!isEnd(state)) return null;
    const key = `${ref.batch}-${ref.index}-${ref.attempt}`;
    return (
      receipts.get(key) ??
      readingReceipts(key, async () => {
        const receipt = await readReceipt(deps.bucket, ref);
        if (receipt !== null) receipts.set(key, receipt);
        return receipt;
      })
    );
  }

  return {
    remember(id, tenant, account, row) {
      const place = parseItemId(id);
      if (place === null) throw new TypeError(`not an item's id: ${id}`);
      const asked = askedForBy(id, row, { openedAtMs: 0 }); // a single has a time of its own
      const fresh = { tenant, account, row, asked };
      known.set(id, fresh);
      return { ...fresh, ...place, id, attempt: 1, state: "waiting", fields: {} };
    },

    async find(text, tenant) {
      const place = parseItemId(text);
      if (place === null) return null;
      const id = itemId(place.batch, place.index);
      const kept = await knownOf(id);
      if (kept === null || kept.tenant !== tenant) return null;
      // Most that are asked for have ended, and then there is nothing else to read.
      const [item] = await deps.ledger.readStates(kept.account, place.batch, place.index, 1);
      if (item !== undefined && isEnd(item.state)) return { ...kept, ...place, ...item, id, fields: {} };
      // An item of a batch that Redis has lost, or let go, looks like one that nobody has touched.
      const [open, account] = await Promise.all([
        deps.ledger.readItem({ account: kept.account, ...place }),
        item?.state === "waiting" ? deps.ledger.accountOf(place.batch) : kept.account,
      ]);
      return account === null ? null : { ...kept, ...place, id, ...open };
    },

    receiptOf,

    async isVoid(found) {
      const { identity } = found.row;
      if (found.state !== "canceled" || identity === undefined || (await receiptOf(found)) !== null) return false;
      const standing = await readIdentity(deps.bucket, OBJECT_KEYS.identity(found.tenant, identity));
      return standing !== null && itemId(standing.batch, standing.index) !== found.id;
    },

    async view(found, links) {
      return viewOf(found, await receiptOf(found), links);
    },

    async json(found, links) {
      const key = `${found.id} ${found.attempt} ${links.sameWhile}`;
      const kept = isEnd(found.state) ? texts.get(key) : undefined;
      if (kept !== undefined) return kept;
      const receipt = await receiptOf(found);
      const text = JSON.stringify(viewOf(found, receipt, links));
      if (receipt !== null) texts.set(key, text);
      return text;
    },
  };
}

/**
 * One read of a thing at a time, whose answer all get who ask for it meanwhile. (The cache has the like, but fails whoever
 * waits where an entry is set or evicted by then.)
 */
function readOnce<T>(): (key: string, read: () => Promise<T | null>) => Promise<T | null> {
  const running = new Map<string, Promise<T | null>>();
  return (key, read) => {
    let reading = running.get(key);
    if (reading === undefined) {
      reading = read().finally(() => running.delete(key));
      running.set(key, reading);
    }
    return reading;
  };
}

function sizeOf(value: unknown): number {
  return JSON.stringify(value).length + ENTRY_BYTES;
}
