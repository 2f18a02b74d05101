/** What people's acts on a batch come to, taken together. */

import type { DatedAct } from "../bucket/acts.ts";

type Redriven = { readonly ended: number; readonly atMs: number };

export type Acted = {
  /** The highest number that one has. */
  readonly acts: number;
  /** Why it is paused, or null. */
  readonly paused: string | null;
  readonly canceledAtMs: number | null;
  /** When it had been canceled as a whole before something was redriven: what waited then has ended. */
  readonly walkedAtMs: number | null;
  /** Items that were canceled one by one. */
  readonly canceled: ReadonlySet<number>;
  /** By index: the last attempt that was followed by another, and when that was decided. */
  readonly redriven: ReadonlyMap<number, Redriven>;
  /** The same, of attempts that carry on with the prediction of the one before. */
  readonly repaired: ReadonlyMap<number, Redriven & { readonly prediction: string }>;
  /** When something was redriven last; null: never. */
  readonly redrivenAtMs: number | null;
};

/** `acts`: in their order. Of two that would open the same attempt only the first one did. */
export function judgeActs(acts: readonly DatedAct[]): Acted {
  let paused: string | null = null;
  let canceledAtMs: number | null = null;
  let walkedAtMs: number | null = null;
  let redrivenAtMs: number | null = null;
  const canceled = new Set<number>();
  const redriven = new Map<number, Redriven>();
  const repaired = new Map<number, Redriven & { readonly prediction: string }>();
  const isLater = (ended: number, index: number) =>
    ended > Math.max(redriven.get(index)?.ended ?? 0, repaired.get(index)?.ended ?? 0);
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
          if (!isLater(ended, index)) continue;
          redriven.set(index, { ended, atMs: act.atMs });
          canceled.delete(index);
        }
        break;
      case "repair":
        redrivenAtMs = act.atMs;
        for (const [index, ended, prediction] of act.items) {
          if (isLater(ended, index)) repaired.set(index, { ended, prediction, atMs: act.atMs });
        }
        break;
      case "resolve":
        break; // what came of it, receipts and evidence tell
      case "limit":
        break; // of an account
      default:
        act satisfies never;
    }
  }
  const highest = acts.reduce((most, { n }) => Math.max(most, n), 0);
  return { acts: highest, paused, canceledAtMs, walkedAtMs, canceled, redriven, repaired, redrivenAtMs };
}

/** Why a batch is paused, in a person's words. */
export function pausedBy(atMs: number): string {
  return `paused by a person at ${new Date(atMs).toISOString()}`;
}
