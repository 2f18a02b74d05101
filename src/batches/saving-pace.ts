/**
 * How fast this process copies, added up here and written once a second for all to see: the feed goes by the fleet's
 * pace.
 */

import { MINUTE, SECOND } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";

export type SavingPace = {
  /** A copy held a slot for so long, and saved its output or didn't. */
  note(saved: boolean, busyMs: number): void;
  close(): Promise<void>;
};

export function openSavingPace(
  slots: number,
  { ledger, clock }: { readonly ledger: Pick<Ledger, "addSaves">; readonly clock: () => number },
): SavingPace {
  let saved = 0;
  let busyMs = 0;
  /** The last minute in which this process's slots were counted. */
  let countedMinute = 0;
  let timer: NodeJS.Timeout | undefined;

  async function flush(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    if (busyMs === 0) return;
    const minute = Math.floor(clock() / MINUTE);
    const own = { saved, busyMs, slots: minute === countedMinute ? 0 : slots };
    [saved, busyMs, countedMinute] = [0, 0, minute];
    await ledger.addSaves(minute, own);
  }
  return {
    note(isSaved, ms) {
      saved += isSaved ? 1 : 0;
      busyMs += Math.max(ms, 1);
      // Where Redis is out of reach this second isn't counted; the work itself tells of that.
      timer ??= setTimeout(() => void flush().catch(() => undefined), SECOND).unref();
    },
    close: () => flush().catch(() => undefined),
  };
}
