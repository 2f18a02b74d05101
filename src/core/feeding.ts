/** How many rows are fed, and whose. Pure; `workers/feed-batches.ts` obeys. */

import { counted, duration, number } from "./figures.ts";
import { MINUTE, SECOND } from "./time.ts";

/** The create queue is kept about so deep: enough for a worker's hiccup, little enough that a pause acts at once. */
const DEPTH_MS = 3 * SECOND;
const SHALLOWEST = 10;

const WINDOW_MS = 5 * MINUTE;
const UNLISTED_WINDOW_MS = 30 * SECOND;
const SMALLEST_WINDOW = 20;
const LARGEST_WINDOW = 2_000;

/**
 * Rows are fed by windows of so many, each noted in the bucket before its first row is fed: whoever finds no note knows
 * that none of its rows was bought. Where Redis loses what was bought, all rows of a window are unclear from its note on,
 * and what the provider's list can prove of them ends with the hour: so a window is five minutes of the limit. Where the
 * provider has no list, a person must look them up: there it is half a minute.
 */
export function windowRows(createsPerMinute: number, hasList: boolean): number {
  const [ms, smallest] = hasList ? [WINDOW_MS, SMALLEST_WINDOW] : [UNLISTED_WINDOW_MS, 1];
  return Math.min(Math.max(Math.floor((createsPerMinute * ms) / MINUTE), smallest), LARGEST_WINDOW);
}

export function createQueueDepth(createsPerMinute: number): number {
  return Math.max(Math.ceil((createsPerMinute * DEPTH_MS) / MINUTE), SHALLOWEST);
}

/**
 * BullMQ's window for a rate: up to 20 a second one create per interval, above that a tenth of a second's worth
 * per 100 ms (a window of a minute would let twice the limit through at its edge). An account that tolerates no
 * burst gets the interval plus a tenth, since two requests leave a window's edge closer together than the window.
 */
export function rateWindow(
  perMinute: number,
  toleratesBurst: boolean,
): { readonly max: number; readonly durationMs: number } {
  const slack = toleratesBurst ? 1 : 1.1;
  const perSecond = perMinute / 60;
  if (perSecond <= 20) return { max: 1, durationMs: Math.ceil((SECOND / perSecond) * slack) };
  return { max: Math.max(Math.floor(perSecond / 10), 1), durationMs: Math.ceil(100 * slack) };
}

/** What the fleet saved in one minute: outputs, the time their copies held a slot, and how many slots there were. */
export type SavingMinute = { readonly saved: number; readonly busyMs: number; readonly slots: number };

/**
 * How many outputs a minute the fleet can save, by what it did in the last minutes: all slots, over the time that one
 * output holds one. That is what was saved where saving never rested, and more than that where little was there to save.
 * Null: nothing was copied lately, so nobody knows. What failed counts by the time it took.
 */
export function savesPerMinute(minutes: readonly SavingMinute[]): number | null {
  const worked = minutes.filter(({ slots }) => slots > 0);
  const busyMs = sum(worked.map((minute) => minute.busyMs));
  if (busyMs <= 0) return null;
  const slots = sum(worked.map((minute) => minute.slots)) / worked.length;
  return (slots * MINUTE * sum(worked.map((minute) => minute.saved))) / busyMs;
}

/** Before anything was copied: slow enough for one worker with files of some MB. */
const COLD_SAVES_PER_MINUTE = 60;
/**
 * What waits to be saved may take this share of the time that files are kept. The rest is for what runs at the provider
 * still, whose time runs as well, and for a rate that turns out lower.
 */
const BACKLOG_SHARE = 1 / 4;
/** So few never hold the feed: else a fleet that saves nothing at the moment could never show that it does again. */
const LEAST_BACKLOG = 100;
/** From this share of the bound on, feeding slows. */
const SLOW_FROM = 1 / 2;

/** How many outputs may wait to be saved. */
export function savingBound(perMinute: number | null, filesKeptMs: number): number {
  const rate = perMinute ?? COLD_SAVES_PER_MINUTE;
  return Math.max(Math.floor((rate * filesKeptMs * BACKLOG_SHARE) / MINUTE), LEAST_BACKLOG);
}

/** Receipts have no expiry; so many may wait to be written. */
const MOST_RECORDS = 1_000;

export type SavingFacts = {
  /** Outputs that wait to be copied, running copies among them, and attempts that wait to be recorded; of all accounts. */
  readonly copies: number;
  readonly records: number;
  /** Null: nobody knows. */
  readonly perMinute: number | null;
  readonly filesKeptMs: number;
  /** Why the bucket takes nothing at the moment; null: it does, or nobody tries. */
  readonly bucketDown: string | null;
};

/** `share`: of what could be fed, 0 to 1. `reason`: why it isn't all, in a person's words. */
export type SavingVerdict = { readonly share: number; readonly reason: string | null };

/** How much may be bought, by what waits to be saved: what can't be saved in time isn't bought. */
export function judgeSaving({ copies, records, perMinute, filesKeptMs, bucketDown }: SavingFacts): SavingVerdict {
  if (bucketDown !== null) return { share: 0, reason: `the bucket takes no files: ${bucketDown}` };
  if (records >= MOST_RECORDS) {
    return { share: 0, reason: `saving is behind: ${number(records)} receipts wait to be written` };
  }
  const bound = savingBound(perMinute, filesKeptMs);
  const share = Math.min(Math.max((bound - copies) / (bound * (1 - SLOW_FROM)), 0), 1);
  if (share === 1) return { share, reason: null };
  const rate = Math.round(perMinute ?? COLD_SAVES_PER_MINUTE);
  const waiting = `${counted(copies, "output")} ${copies === 1 ? "waits" : "wait"} to be saved, at ${number(rate)} a minute`;
  const kept = `files are kept for ${duration(filesKeptMs)}`;
  return { share, reason: `saving is behind: ${waiting}, ${kept}, and at most ${number(bound)} may wait` };
}

/** So many rows may be fed at once where saving is behind; `room` is what the create queue has room for. */
export function roomWhileSaving(room: number, share: number, createsPerMinute: number): number {
  return share >= 1 ? room : Math.min(room, Math.ceil((share * createsPerMinute) / 60));
}

/** A batch that has rows to feed. */
export type Hungry<Id> = { readonly id: Id; readonly kind: "file" | "singles"; readonly rows: number };

/**
 * Shares `room` places among batches: singles first, but at most half the room while files wait too; the rest in
 * equal turns, so that a small batch isn't stuck behind a large one. The first of the list gets the odd ones:
 * rotate it from feed to feed. `feed` counts the feeds: in every other one the odd half is the singles', or with room
 * for one row at a time, as slow limits have it, files would never have a turn.
 */
export function shareRoom<Id>(room: number, hungry: readonly Hungry<Id>[], feed: number): ReadonlyMap<Id, number> {
  const singles = hungry.filter((batch) => batch.kind === "singles");
  const files = hungry.filter((batch) => batch.kind === "file");
  const filesWant = sum(files.map((batch) => batch.rows));
  const half = feed % 2 === 0 ? Math.ceil(room / 2) : Math.floor(room / 2);
  const singlesRoom = Math.max(half, room - filesWant);
  const shares = new Map(evenly(Math.min(singlesRoom, room), singles));
  for (const [id, share] of evenly(room - sum([...shares.values()]), files)) shares.set(id, share);
  return shares;
}

function evenly<Id>(room: number, hungry: readonly Hungry<Id>[]): readonly (readonly [Id, number])[] {
  const shares = hungry.map(() => 0);
  let left = Math.min(room, sum(hungry.map((batch) => batch.rows)));
  while (left > 0) {
    const unsated = hungry.filter((batch, at) => (shares[at] ?? 0) < batch.rows).length;
    const turn = Math.max(Math.floor(left / unsated), 1);
    for (const [at, batch] of hungry.entries()) {
      const more = Math.min(turn, batch.rows - (shares[at] ?? 0), left);
      shares[at] = (shares[at] ?? 0) + more;
      left -= more;
    }
  }
  return hungry.map((batch, at) => [batch.id, shares[at] ?? 0] as const);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
