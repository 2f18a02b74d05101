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
import { type AskedFor, type PredictionLinks, type PredictionView, predictionView } from "../core/prediction-view.ts";
import type { Receipt } from "../core/receipt.ts";
import type { Ledger, OpenItemFields } from "../ledger/ledger.ts";
import { askedForBy } from "./describe-prediction.ts";
import { findItem } from "./find-item.ts";

/** What never changes of an item. */
type Known = {
  readonly tenant: string;
  readonly account: AccountName;
  readonly row: StoredRow;
  /** Its batch: what a row of a file was created by. */
  readonly openedAtMs: number;
};

export type FoundPrediction = AttemptRef &
  Known & {
    readonly id: ItemId;
    readonly asked: AskedFor;
    readonly state: ItemState;
    readonly fields: Partial<OpenItemFields>;
  };

export type Predictions = {
  /** What was just admitted needn't be read back; it is answered as it stands then: waiting. */
  readonly remember: (id: ItemId, tenant: string, account: AccountName, row: StoredRow) => FoundPrediction;
  /** Null: there is no such item, or it is another tenant's. */
  readonly find: (text: string, tenant: string) => Promise<FoundPrediction | null>;
  /** The receipt of an item that has ended; null where it ended without one. */
  readonly receiptOf: (found: AttemptRef & { readonly state: ItemState }) => Promise<Receipt | null>;
  readonly view: (found: FoundPrediction, links: PredictionLinks) => Promise<PredictionView>;
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
  // What isn't in memory is read once for all who ask for it at the same time.
  const known = new LRUCache<ItemId, Known>({
    maxSize: CACHE_BYTES,
    sizeCalculation: ({ row }) => sizeOf(row),
    fetchMethod: async (id) => {
      const found = await findItem(deps, id);
      if (found === null) return undefined;
      const { of, row, account } = found;
      return { tenant: of.tenant, account, row, openedAtMs: of.openedAtMs };
    },
  });
  const receipts = new LRUCache<string, Receipt, AttemptRef>({
    maxSize: CACHE_BYTES,
    sizeCalculation: sizeOf,
    fetchMethod: async (_key, _stale, { context: ref }) => (await readReceipt(deps.bucket, ref)) ?? undefined,
  });

  async function receiptOf({ state, ...ref }: AttemptRef & { readonly state: ItemState }): Promise<Receipt | null> {
    if (!isEnd(state)) return null;
    const key = `${ref.batch}-${ref.index}-${ref.attempt}`;
    return receipts.get(key) ?? (await receipts.fetch(key, { context: ref })) ?? null;
  }

  return {
    remember(id, tenant, account, row) {
      const place = parseItemId(id);
      if (place === null) throw new TypeError(`not an item's id: ${id}`);
      const fresh = { tenant, account, row, openedAtMs: 0 }; // a single has a time of its own
      known.set(id, fresh);
      return { ...fresh, ...place, id, asked: askedForBy(id, row, fresh), attempt: 1, state: "waiting", fields: {} };
    },

    async find(text, tenant) {
      const place = parseItemId(text);
      if (place === null) return null;
      const id = itemId(place.batch, place.index);
      const kept = known.get(id) ?? (await known.fetch(id));
      if (kept === undefined || kept.tenant !== tenant) return null;
      // Most that are asked for have ended, and then there is nothing else to read.
      const [item] = await deps.ledger.readStates(kept.account, place.batch, place.index, 1);
      const asked = askedForBy(id, kept.row, kept);
      if (item !== undefined && isEnd(item.state)) return { ...kept, ...place, ...item, id, asked, fields: {} };
      return { ...kept, ...place, id, asked, ...(await deps.ledger.readItem({ account: kept.account, ...place })) };
    },

    receiptOf,

    async isVoid(found) {
      const { identity } = found.row;
      if (found.state !== "canceled" || identity === undefined || (await receiptOf(found)) !== null) return false;
      const standing = await readIdentity(deps.bucket, OBJECT_KEYS.identity(found.tenant, identity));
      return standing !== null && itemId(standing.batch, standing.index) !== found.id;
    },

    async view(found, links) {
      const receipt = await receiptOf(found);
      return predictionView(
        found.asked,
        {
          state: found.state,
          seenStatus: found.fields.status ?? null,
          startedAt: found.fields.started_at ?? null,
          receipt,
        },
        links,
      );
    },
  };
}

function sizeOf(value: unknown): number {
  return JSON.stringify(value).length + ENTRY_BYTES;
}
