/** How many rows are fed, and whose. Pure; `workers/feed-batches.ts` obeys. */

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
