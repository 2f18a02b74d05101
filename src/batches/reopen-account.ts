/**
 * Opens an account on a Redis that isn't the one it was open on: another process, which may have lost the last writes, or
 * one whose data are gone. Until that is done no item of the account is claimed (`ledger/move.lua`).
 *
 * The bucket says what Redis may not know: batches, parts, windows of rows that were given out, acts and receipts. What may
 * have been bought since Redis's last sure word and has no receipt is unclear over that whole time, and the account's
 * sweep looks for it. Order of effects: the note of the new Redis, batch by batch what it lacks, the rates that people set,
 * that the account is open, and last the end of what was canceled while all that was done. Doing any of it again changes
 * nothing; dying before the account is open means that it is done again from the start. Where something can't be read the
 * account stays closed, and its reason stands where people look.
 */

import { readBatchActs } from "../bucket/acts.ts";
import { listBatchIds } from "../bucket/list-batches.ts";
import { readBatch, readManifest } from "../bucket/records.ts";
import { noteRedis } from "../bucket/redis-notes.ts";
import type { Batch } from "../core/batch.ts";
import type { AccountName } from "../core/naming.ts";
import { DAY } from "../core/time.ts";
import type { AccountOpening, Ledger, LostSpan, RedisIdentity } from "../ledger/ledger.ts";
import { type Acted, judgeActs } from "./judge-acts.ts";
import { rebuildBatch } from "./rebuild-batch.ts";
import { endCanceled, type ReviseDeps, repairLost, reviseBatch } from "./revise-batch.ts";

export type ReopenDeps = ReviseDeps & {
  readonly ledger: Pick<Ledger, "readIdentity" | "opening" | "noteOpened" | "noteUnopened" | "restoreBatch">;
  /** Puts back what people set of the account's rates. */
  readonly restoreLimits: () => Promise<void>;
  /** A Redis that syncs every write, and whose data nobody else touches, comes back from a restart with all of them. */
  readonly restartLosesNothing: boolean;
  /** After each batch that was put right. */
  readonly tell: (batch: ReopenedBatch) => void;
};

export type ReopenedBatch = {
  readonly batch: Batch;
  /** `rebuilt`: Redis didn't know it. */
  readonly how: "rebuilt" | "revised";
  /** Items that may have been bought, and that nobody knows of. */
  readonly unclear: number;
};

type LookedAt = ReopenedBatch & { readonly acted: Acted };

export type Reopened = {
  readonly batches: number;
  readonly rebuilt: number;
  readonly unclear: number;
};

/** A finished batch isn't brought back to Redis after so long, unless something of it was opened again. */
const KEPT_FOR_MS = 7 * DAY;
const LONGEST_REASON = 500;

/** Null: it is open on this Redis, and nothing was to be done. */
export async function reopenAccount(account: AccountName, deps: ReopenDeps): Promise<Reopened | null> {
  const { ledger } = deps;
  const [identity, opening] = await Promise.all([ledger.readIdentity(account), ledger.opening(account)]);
  if (opening.on === identity) return null;
  if (opening.on !== null && deps.restartLosesNothing && dataOf(opening.on) === dataOf(identity)) {
    await ledger.noteOpened(account, identity, null);
    return null;
  }

  try {
    return await open(account, identity, opening, deps);
  } catch (error) {
    // Where Redis is out of reach, that is what whoever called is told.
    await ledger.noteUnopened(account, unopenedBy(account, error)).catch(() => undefined);
    throw error;
  }
}

/** One line, with what to do. */
function unopenedBy(account: AccountName, error: unknown): string {
  const [said = ""] = (error instanceof Error ? error.message : String(error)).split("\n");
  const why = said.slice(0, LONGEST_REASON);
  return `account ${account} can't be opened on this Redis: ${why}; once that is mended it opens by itself`;
}

async function open(
  account: AccountName,
  identity: RedisIdentity,
  opening: AccountOpening,
  deps: ReopenDeps,
): Promise<Reopened> {
  const { bucket, ledger } = deps;
  const { notedAtMs, isFirst } = await noteRedis(bucket, account, identity, deps.clock());
  const done = { batches: 0, rebuilt: 0, unclear: 0 };
  /** What was known to be canceled of the batches that have something to buy. */
  const canceled = new Map<Batch, Acted["canceled"]>();
  for await (const id of listBatchIds(bucket)) {
    const batch = await readBatch(bucket, id);
    if (batch === null || batch.account !== account) continue;
    const reopened = await reopenBatch(batch, { fromMs: opening.lastClaimMs, byMs: notedAtMs }, deps);
    if (reopened === null) continue;
    done.batches += 1;
    done.rebuilt += reopened.how === "rebuilt" ? 1 : 0;
    done.unclear += reopened.unclear;
    const { acted, ...told } = reopened;
    if (await mayBuy(batch, deps)) canceled.set(batch, acted.canceled);
    deps.tell(told);
  }
  await deps.restoreLimits();
  // What is claimed was noted before: on the first Redis of all nothing was, and none before it has lost anything.
  const hadNothing = opening.on === null && (isFirst || done.batches === 0);
  const lost: LostSpan = { fromMs: opening.lastClaimMs ?? notedAtMs, toMs: notedAtMs };
  await ledger.noteOpened(account, identity, hadNothing ? null : lost);
  for (const [batch, known] of canceled) await endCanceledSince(batch, known, deps);
  return done;
}

/** The mark of its data, without the process's. */
function dataOf(identity: RedisIdentity): string {
  return identity.slice(identity.indexOf("/") + 1);
}

/** Null: there was nothing to do. */
async function reopenBatch(
  batch: Batch,
  lost: { readonly fromMs: number | null; readonly byMs: number },
  deps: ReopenDeps,
): Promise<LookedAt | null> {
  const standing = await deps.ledger.standing(batch.account, batch.id);
  if (standing === null) {
    if (await isOver(batch, deps)) return null;
    const { unclear, acted } = await rebuildBatch(batch, lost.byMs, deps);
    await repairLost(batch, acted, deps);
    for (const index of acted.canceled) await endCanceled(batch, index, deps);
    return { batch, how: "rebuilt", unclear, acted };
  }
  const fromMs = Math.max(lost.fromMs ?? batch.openedAtMs, batch.openedAtMs);
  const span = { fromMs: Math.min(fromMs, lost.byMs), toMs: lost.byMs };
  return { batch, how: "revised", ...(await reviseBatch(standing, span, deps)) };
}

async function mayBuy({ account, id }: Batch, { ledger }: ReopenDeps): Promise<boolean> {
  return ((await ledger.standing(account, id))?.counts.waiting ?? 0) > 0;
}

/**
 * A cancel that came before the account was open has left its act alone (`cancel-item.ts`); of a batch that had been looked
 * at by then nobody would find it.
 */
async function endCanceledSince(batch: Batch, known: Acted["canceled"], deps: ReopenDeps): Promise<void> {
  const { canceled } = judgeActs(await readBatchActs(deps.bucket, batch.id));
  for (const index of canceled) if (!known.has(index)) await endCanceled(batch, index, deps);
}

/** Whether it finished long ago, and nobody has redriven or repaired anything of it since. */
async function isOver({ id }: Batch, { bucket, clock }: ReopenDeps): Promise<boolean> {
  const manifest = await readManifest(bucket, id);
  const finishedAtMs = manifest === null ? Number.POSITIVE_INFINITY : Date.parse(manifest.finished_at);
  if (finishedAtMs >= clock() - KEPT_FOR_MS) return false;
  const { redrivenAtMs } = judgeActs(await readBatchActs(bucket, id));
  return redrivenAtMs === null || redrivenAtMs < finishedAtMs;
}
