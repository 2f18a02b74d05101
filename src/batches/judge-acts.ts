/** What people's acts on a batch come to, taken together. */

import type { DatedAct } from "../bucket/acts.ts";

export type Acted = {
  /** How many there are. */
  readonly acts: number;
  /** Why it is paused, or null. */
  readonly paused: string | null;
  readonly canceledAtMs: number | null;
  /** When it had been canceled as a whole before something was redriven: what waited then has ended. */
  readonly walkedAtMs: number | null;
  /** Items that were canceled one by one. */
  readonly canceled: ReadonlySet<number>;
  /** By index: the last attempt that was followed by another, and when. */
  readonly redriven: ReadonlyMap<number, { readonly ended: number; readonly atMs: number }>;
  /** When something was redriven last; null: never. */
  readonly redrivenAtMs: number | null;
};

/** `acts`: in their order. */
export function judgeActs(acts: readonly DatedAct[]): Acted {
  let paused: string | null = null;
  let canceledAtMs: number | null = null;
  let walkedAtMs: number | null = null;
  let redrivenAtMs: number | null = null;
  const canceled = new Set<number>();
  const redriven = new Map<number, { ended: number; atMs: number }>();
  for (const act of acts) {
    switch (act.act) {
      case "pause":
        paused = pausedBy(act.atMs);
        break;
      case "resume":
        paused = null;
        break;
      case "cancel":
        if (act.items === undefined) [canceledAtMs, paused] = [act.atMs, null];
        else for (const index of act.items) canceled.add(index);
        break;
      case "redrive":
        [walkedAtMs, canceledAtMs, redrivenAtMs] = [canceledAtMs ?? walkedAtMs, null, act.atMs];
        for (const [index, ended] of act.items) {
          redriven.set(index, { ended, atMs: act.atMs });
          canceled.delete(index);
        }
        break;
      case "repair":
        redrivenAtMs = act.atMs;
        for (const [index, ended] of act.items) redriven.set(index, { ended, atMs: act.atMs });
        break;
      case "resolve":
        break; // what came of it, receipts and evidence tell
      default:
        act satisfies never;
    }
  }
  return { acts: acts.length, paused, canceledAtMs, walkedAtMs, canceled, redriven, redrivenAtMs };
}

/** Why a batch is paused, in a person's words. */
export function pausedBy(atMs: number): string {
  return `paused by a person at ${new Date(atMs).toISOString()}`;
}
