/**
 * Requests that are held until their item has ended: `Prefer: wait`. One timer looks after all of them ten times a second:
 * a read of one byte for each, sent together.
 */

import { isEnd } from "../core/item.ts";
import type { AttemptRef } from "../core/naming.ts";
import type { Ledger } from "../ledger/ledger.ts";

const LOOK_MS = 100;
/** More than these are answered at once, as if their time had run out. */
const MAX_HELD = 10_000;

export type Holds = {
  /** Resolves with true when the item has ended, with false when the time has run out or the server closes. */
  readonly untilEnded: (ref: Omit<AttemptRef, "attempt">, forMs: number, signal: AbortSignal) => Promise<boolean>;
  /** Lets everybody go. */
  readonly close: () => void;
};

type Held = {
  readonly ref: Omit<AttemptRef, "attempt">;
  readonly untilMs: number;
  readonly release: (ended: boolean) => void;
};

export function openHolds(ledger: Pick<Ledger, "readStates">): Holds {
  const held = new Set<Held>();
  let closed = false;
  let looking = false;
  let timer: NodeJS.Timeout | null = null;

  const release = (one: Held, ended: boolean) => {
    if (held.delete(one)) one.release(ended);
  };

  async function look(): Promise<void> {
    if (looking) return;
    looking = true;
    const nowMs = performance.now();
    await Promise.all(
      Array.from(held, async (one) => {
        const { account, batch, index } = one.ref;
        // Redis out of reach: the next look sees, or the time runs out.
        const [item] = await ledger.readStates(account, batch, index, 1).catch(() => []);
        if (item !== undefined && isEnd(item.state)) release(one, true);
        else if (nowMs >= one.untilMs) release(one, false);
      }),
    );
    looking = false;
    if (held.size === 0 && timer !== null) {
      clearInterval(timer);
      timer = null;
    }
  }

  return {
    async untilEnded(ref, forMs, signal) {
      if (closed || signal.aborted || held.size >= MAX_HELD) return false;
      const { promise, resolve } = Promise.withResolvers<boolean>();
      const one: Held = { ref, untilMs: performance.now() + forMs, release: resolve };
      const leave = () => release(one, false);
      signal.addEventListener("abort", leave);
      held.add(one);
      timer ??= setInterval(() => void look(), LOOK_MS);
      return promise.finally(() => signal.removeEventListener("abort", leave));
    },
    close() {
      closed = true;
      for (const one of held) release(one, false);
      if (timer !== null) clearInterval(timer);
    },
  };
}
