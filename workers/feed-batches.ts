/**
 * Keeps an account's create queue shallow: about three seconds of its limit. A batch of a million rows costs Redis
 * the rows that are about to be bought, not a million jobs, and a pause or a new batch acts at once.
 *
 * One errand per account that never ends: each run feeds what there is room for and snoozes for a second. Batches
 * take fair turns; singles come first, at most half of the room while files wait too. Feeding slows, and stops, before what
 * was bought can't be saved in time: an output that expires unsaved is paid for in vain.
 *
 * Rows go out by windows, each noted in the bucket before its first row: who finds no note knows that none of its rows
 * was bought. And nothing goes out on a Redis that may have lost what was bought, before that is put right.
 *
 * It also tells the items of a canceled batch, a stretch at a time: what waits ends unbought and without a receipt, what
 * runs is woken, so that its next poll cancels it at the provider.
 *
 * A batch that can't be fed, as one whose input is gone from the bucket, keeps no other waiting.
 *
 * If this process dies:
 *   within a cancel                the same stretch is walked again, which changes nothing, and its running items are woken.
 *   before the errands are added   nothing has happened, but for a note that is written again.
 *   before the cursor moves        the same rows are added again: dropped while their jobs exist, and else a claim
 *                                  that finds the item claimed already.
 */

import type { Batch } from "../src/core/batch.ts";
import {
  createQueueDepth,
  type Hungry,
  judgeSaving,
  roomWhileSaving,
  type SavingFacts,
  shareRoom,
} from "../src/core/feeding.ts";
import type { AccountName, AttemptRef, BatchId } from "../src/core/naming.ts";
import type { StageOutcome } from "../src/core/outcome.ts";
import { SECOND } from "../src/core/time.ts";
import type { BatchStanding, CancelWalk } from "../src/ledger/ledger.ts";
import type { AccountErrand, CreateErrand, RowPlace } from "../src/queues/queues.ts";

export type FeedDeps = {
  readonly createsPerMinute: number;
  /** So many rows are noted in the bucket at once. */
  readonly windowRows: number;
  /** Makes sure that what may have been bought on another Redis isn't bought again on this one. */
  readonly reopen: (account: AccountName) => Promise<unknown>;
  readonly pausedReason: (account: AccountName) => Promise<string | null>;
  readonly createBacklog: (account: AccountName) => Promise<number>;
  readonly savingFacts: (account: AccountName) => Promise<SavingFacts>;
  /** Why less is fed than could be, for people to see; null: no reason. Told at every feed. */
  readonly noteHeld: (account: AccountName, reason: string | null) => Promise<void>;
  readonly unfedBatches: (account: AccountName, limit: number) => Promise<readonly BatchId[]>;
  readonly standing: (account: AccountName, batch: BatchId) => Promise<BatchStanding | null>;
  readonly returnedRows: (
    account: AccountName,
    batch: BatchId,
    limit: number,
  ) => Promise<readonly { readonly index: number; readonly attempt: number }[]>;
  /** Where rows stand from an index on; fewer than `count` at the end of a part. */
  readonly placeRows: (
    account: AccountName,
    batch: BatchId,
    index: number,
    count: number,
  ) => Promise<readonly (RowPlace & { readonly index: number })[]>;
  /** Rows of this window, both in it, may be bought from now on. Answers its last, as the bucket has it. */
  readonly noteWindow: (batch: Batch, window: { readonly first: number; readonly last: number }) => Promise<number>;
  readonly enqueueCreates: (errands: readonly CreateErrand[], kind: "file" | "singles") => Promise<void>;
  readonly advance: (
    account: AccountName,
    batch: BatchId,
    cursor: { readonly before: number; readonly after: number },
    fed: readonly AttemptRef[],
    nowMs: number,
  ) => Promise<boolean>;
  readonly cancelingBatches: (account: AccountName, limit: number) => Promise<readonly BatchId[]>;
  readonly walkCancel: (
    account: AccountName,
    batch: BatchId,
    from: number | null,
    limit: number,
  ) => Promise<CancelWalk>;
  /** False: its poll runs at this moment, or there is none. */
  readonly wakeFollow: (ref: AttemptRef) => Promise<boolean>;
  readonly pause: (ms: number) => Promise<unknown>;
  readonly enqueueFinish: (account: AccountName, batch: BatchId) => Promise<void>;
  /** It couldn't be fed: told at every feed. */
  readonly warnOfBatch: (batch: BatchId, error: unknown) => void;
  readonly clock: () => number;
};

const PAUSE_MS = SECOND;
/** Batches that take turns in one feed; the oldest ones. */
const MAX_TURNS = 100;
/** A script that notes the fed rows stays short. */
const MAX_ROWS = 1_000;
/** A cancel walks so many items in one script, and so many stretches in one feed: a million rows in some seconds. */
const STRETCH = 2_000;
const MAX_STRETCHES = 100;
const WAKES_AT_ONCE = 100;
/** Each reads of the bucket where its row stands. */
const PLACES_AT_ONCE = 32;

export async function feedBatches({ account }: AccountErrand, deps: FeedDeps): Promise<StageOutcome> {
  await deps.reopen(account);
  await walkCancels(account, deps);
  const saving = judgeSaving(await deps.savingFacts(account));
  await deps.noteHeld(account, saving.reason);
  if ((await deps.pausedReason(account)) === null && saving.share > 0) {
    const free = createQueueDepth(deps.createsPerMinute) - (await deps.createBacklog(account));
    let room = roomWhileSaving(free, saving.share, deps.createsPerMinute);
    // A feed that runs dry early (a part's or window's end, a full script) goes round again; each round feeds at least
    // one row.
    for (let fed = 1; room > 0 && fed > 0; room -= fed) fed = await feedRound(account, room, deps);
  }
  return { kind: "snooze", untilMs: deps.clock() + PAUSE_MS };
}

async function walkCancels(account: AccountName, deps: FeedDeps): Promise<void> {
  let stretches = 0;
  const missed: AttemptRef[] = [];
  for (const batch of await deps.cancelingBatches(account, MAX_TURNS)) {
    let from: number | null = null;
    for (let over = false; !over && stretches < MAX_STRETCHES; stretches++) {
      const walked: CancelWalk = await deps.walkCancel(account, batch, from, STRETCH);
      missed.push(...(await wake(walked.running, deps)));
      // Before the walk is over, or nobody would come back for it.
      if (walked.left === 0 && !walked.over) await deps.enqueueFinish(account, batch);
      from = walked.next;
      over = walked.over;
    }
  }
  if (missed.length === 0) return;
  // A poll that ran just then may have looked for the cancel a moment too early.
  await deps.pause(PAUSE_MS);
  await wake(missed, deps);
}

/** Answers those that couldn't be woken. */
async function wake(refs: readonly AttemptRef[], { wakeFollow }: FeedDeps): Promise<readonly AttemptRef[]> {
  const missed: AttemptRef[] = [];
  for (let at = 0; at < refs.length; at += WAKES_AT_ONCE) {
    const some = refs.slice(at, at + WAKES_AT_ONCE);
    const woken = await Promise.all(some.map((ref) => wakeFollow(ref)));
    missed.push(...some.filter((_, n) => woken[n] === false));
  }
  return missed;
}

/** Answers how many rows it fed. */
async function feedRound(account: AccountName, room: number, deps: FeedDeps): Promise<number> {
  const standings: BatchStanding[] = [];
  for (const batch of rotate(await deps.unfedBatches(account, MAX_TURNS), deps.clock())) {
    const standing = await deps.standing(account, batch);
    if (standing !== null) standings.push(standing);
  }
  const hungry: Hungry<BatchStanding>[] = standings.map((standing) => ({
    id: standing,
    kind: standing.batch.kind,
    rows: standing.batch.items - standing.cursor + standing.returned,
  }));

  let fed = 0;
  for (const [standing, share] of shareRoom(room, hungry, Math.floor(deps.clock() / PAUSE_MS))) {
    if (share > 0) fed += await feedOrWarn(standing, Math.min(share, MAX_ROWS), deps);
    else if (standing.batch.items === standing.cursor && standing.returned === 0) await forget(standing, deps);
  }
  return fed;
}

async function feedOrWarn(standing: BatchStanding, share: number, deps: FeedDeps): Promise<number> {
  try {
    return await feedBatch(standing, share, deps);
  } catch (error) {
    deps.warnOfBatch(standing.batch.id, error);
    return 0;
  }
}

async function feedBatch(standing: BatchStanding, share: number, deps: FeedDeps): Promise<number> {
  const { id: batch, account, kind, items } = standing.batch;
  const { cursor: before } = standing;

  const errands: CreateErrand[] = [];
  const returned = await deps.returnedRows(account, batch, share);
  for (let at = 0; at < returned.length; at += PLACES_AT_ONCE) {
    const some = returned.slice(at, at + PLACES_AT_ONCE);
    const places = await Promise.all(some.map(({ index }) => deps.placeRows(account, batch, index, 1)));
    for (const [n, [place]] of places.entries()) {
      if (place !== undefined) errands.push(errandOf(account, batch, some[n]?.attempt ?? 1, place));
    }
  }
  const wanted = Math.min(share - errands.length, items - before);
  const noted = wanted > 0 && before >= standing.noted ? await noteNext(standing, deps) : standing.noted;
  const places = await nextPlaces(account, batch, before, Math.min(wanted, noted - before), deps);
  errands.push(...places.map((place) => errandOf(account, batch, 1, place)));

  await deps.enqueueCreates(errands, kind);
  const after = before + places.length;
  return (await deps.advance(account, batch, { before, after }, errands, deps.clock())) ? errands.length : 0;
}

/** Its last rows went another way than through the feed: it isn't to be fed, and takes no other batch's turn. */
async function forget({ batch: { id, account }, cursor }: BatchStanding, deps: FeedDeps): Promise<void> {
  await deps.advance(account, id, { before: cursor, after: cursor }, [], deps.clock());
}

/** Answers below which row all are noted now. More singles may come: their window is a full one. */
async function noteNext({ batch, cursor: first }: BatchStanding, deps: FeedDeps): Promise<number> {
  const next = first + deps.windowRows;
  const last = (batch.kind === "file" ? Math.min(next, batch.items) : next) - 1;
  return (await deps.noteWindow(batch, { first, last })) + 1;
}

/** Over as many parts as it takes: those of singles are often of one row. */
async function nextPlaces(account: AccountName, batch: BatchId, from: number, count: number, deps: FeedDeps) {
  const places: (RowPlace & { readonly index: number })[] = [];
  while (places.length < count) {
    const more = await deps.placeRows(account, batch, from + places.length, count - places.length);
    if (more.length === 0) break;
    places.push(...more);
  }
  return places;
}

function errandOf(
  account: AccountName,
  batch: BatchId,
  attempt: number,
  { index, part, offset, length }: RowPlace & { readonly index: number },
): CreateErrand {
  return { account, batch, index, attempt, place: { part, offset, length } };
}

/** Another batch begins each time, so that the odd place isn't always the same one's. */
function rotate<T>(list: readonly T[], by: number): readonly T[] {
  const at = list.length === 0 ? 0 : Math.floor(by / PAUSE_MS) % list.length;
  return [...list.slice(at), ...list.slice(0, at)];
}
