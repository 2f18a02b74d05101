/**
 * What the pages show of batches, read at most once a second for each batch, however many people look at it, and in
 * commands that don't grow with it. Looks that follow one another give the batch's pace, so whoever comes second is told
 * at once what the first one's looks have shown.
 */

import { LRUCache } from "lru-cache";
import type { Predictions } from "../batches/read-predictions.ts";
import { type BatchReport, reportOf } from "../batches/report-batch.ts";
import { openTrack, type Track, type View } from "../batches/track-batch.ts";
import type { Batch, StateCounts } from "../core/batch.ts";
import { type AccountName, type BatchId, parseBatchId } from "../core/naming.ts";
import type { Receipt } from "../core/receipt.ts";
import { MINUTE, SECOND } from "../core/time.ts";
import type { FailureGroup, Ledger } from "../ledger/ledger.ts";

export type BatchSight = View & {
  readonly batch: Batch;
  readonly counts: StateCounts;
  /** Whether a person paused it, whatever its account does. */
  readonly held: boolean;
  /** When the first of its account's outputs expires that aren't saved yet; null: all are. */
  readonly nextExpiryMs: number | null;
  readonly lookedAtMs: number;
};

/** What became of its items so far. */
export type Outcomes = { readonly failures: readonly FailureGroup[]; readonly latest: readonly Receipt[] };

/** `older`: behind which batch there are more. */
export type BatchList = { readonly sights: readonly BatchSight[]; readonly older: BatchId | null };

export type BatchSights = {
  /** Null: there is no such batch, or it is another tenant's. */
  readonly find: (text: string, tenant: string) => Promise<BatchSight | null>;
  readonly outcomesOf: (sight: BatchSight) => Promise<Outcomes>;
  /** A tenant's batches, newest first; `after`: those that come behind this one. */
  readonly list: (tenant: string, limit: number, after: BatchId | null) => Promise<BatchList>;
  /** What somebody just did is to be seen in the next look. */
  readonly forget: (id: BatchId) => void;
};

export type SightsDeps = {
  readonly ledger: Pick<
    Ledger,
    | "accountOf"
    | "standing"
    | "accountHolds"
    | "oldestUnsaved"
    | "failuresOf"
    | "latestSaved"
    | "readStates"
    | "listTenantBatches"
  >;
  readonly predictions: Pick<Predictions, "receiptOf">;
  readonly accounts: readonly { readonly name: AccountName; readonly createsPerMinute: number }[];
  readonly clock: () => number;
};

/** Batches that are remembered; those with receipts are larger. */
const MAX_KNOWN = 1_000;
const MAX_OUTCOMES = 100;
/** Less than the second between two looks of one watcher. */
const FRESH_MS = 0.9 * SECOND;
/** Slower: nobody can look at a gallery, or click in it, that changes with every second. */
const OUTCOMES_FRESH_MS = 5 * SECOND;
/** Nothing of it changes any more. */
const FINISHED_FRESH_MS = MINUTE;
/** From looks that lie further apart nobody can tell a pace. */
const GAP_MS = 3 * SECOND;

type Followed = { readonly track: Track; readonly report: string; readonly lookedAtMs: number };

export function openBatchSights({ ledger, predictions, accounts, clock }: SightsDeps): BatchSights {
  const followed = new LRUCache<BatchId, Followed>({ max: MAX_KNOWN });
  const sights = new LRUCache<BatchId, BatchSight>({
    max: MAX_KNOWN,
    ttl: FRESH_MS,
    ignoreFetchAbort: true, // who is forgotten while it is read is still answered
    async fetchMethod(id, _stale, { options }) {
      const sight = await look(id);
      if (sight !== undefined && sight.report.finished_at !== null) options.ttl = FINISHED_FRESH_MS;
      return sight;
    },
  });
  const outcomes = new LRUCache<string, Outcomes, Batch>({
    max: MAX_OUTCOMES,
    ttl: OUTCOMES_FRESH_MS,
    ignoreFetchAbort: true,
    fetchMethod: (_key, _stale, { context }) => readOutcomes(context),
  });

  async function look(id: BatchId): Promise<BatchSight | undefined> {
    const account = await ledger.accountOf(id);
    if (account === null) return undefined;
    const [standing, holds, oldest] = await Promise.all([
      ledger.standing(account, id),
      ledger.accountHolds(account),
      ledger.oldestUnsaved(account),
    ]);
    if (standing === null) return undefined;
    const { batch, counts } = standing;
    const own = {
      batch,
      counts,
      held: standing.paused !== null,
      nextExpiryMs: oldest?.expiresAtMs ?? null,
      lookedAtMs: clock(),
    };
    return { ...own, ...follow(batch, reportOf(standing, holds)) };
  }

  function follow(batch: Batch, report: BatchReport): View {
    const nowMs = clock();
    const text = JSON.stringify(report);
    const before = followed.get(batch.id);
    const goesOn = before !== undefined && nowMs - before.lookedAtMs <= GAP_MS;
    const rate = accounts.find(({ name }) => name === batch.account)?.createsPerMinute ?? null;
    const track = goesOn ? before.track : openTrack(batch.kind, rate);
    if (!goesOn || before.report !== text) track.take(report, nowMs);
    followed.set(batch.id, { track, report: text, lookedAtMs: nowMs });
    return track.view(nowMs) ?? { report, perSecond: 0, estimate: { etaMs: null, reason: "" } };
  }

  async function readOutcomes({ id, account }: Batch): Promise<Outcomes> {
    const [failures, indexes] = await Promise.all([ledger.failuresOf(account, id), ledger.latestSaved(account, id)]);
    const receipts = await Promise.all(
      indexes.map(async (index) => {
        const [item] = await ledger.readStates(account, id, index, 1);
        return item?.state === "saved" ? predictions.receiptOf({ account, batch: id, index, ...item }) : null;
      }),
    );
    return { failures, latest: receipts.filter((receipt) => receipt !== null) };
  }

  return {
    async find(text, tenant) {
      const id = parseBatchId(text);
      const sight = id === null ? undefined : await sights.fetch(id);
      return sight === undefined || sight.batch.tenant !== tenant ? null : sight;
    },
    async outcomesOf({ batch, report }) {
      // Of a finished batch they are read once more: what was seen before may lack the last.
      const key = `${batch.id} ${report.finished_at}`;
      return (await outcomes.fetch(key, { context: batch })) ?? { failures: [], latest: [] };
    },
    async list(tenant, limit, after) {
      const ids = await ledger.listTenantBatches(tenant, limit + 1, after === null ? {} : { after });
      const found = await Promise.all(ids.slice(0, limit).map((id) => sights.fetch(id)));
      const older = ids.length > limit ? (ids[limit - 1] ?? null) : null;
      return { sights: found.filter((sight) => sight !== undefined), older };
    },
    forget: (id) => void sights.delete(id),
  };
}
