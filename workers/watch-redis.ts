/**
 * Notices that Redis was replaced or emptied while this worker lives: then the errands that never end are gone with it,
 * the feed among them, which would find out. They are given out again.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { SECOND } from "../src/core/time.ts";

export type WatchDeps = {
  readonly readIdentity: () => Promise<string>;
  readonly giveOut: () => Promise<void>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
};

const LOOK_MS = 5 * SECOND;

export type RedisWatch = { close(): Promise<void> };

/** `first`: which Redis the errands were given out on. */
export function watchRedis(first: string, deps: WatchDeps): RedisWatch {
  const closing = new AbortController();
  const watching = watch(first, deps, closing.signal);
  return {
    async close() {
      closing.abort();
      await watching;
    },
  };
}

async function watch(first: string, { readIdentity, giveOut, warn }: WatchDeps, signal: AbortSignal): Promise<void> {
  let known = first;
  while (!signal.aborted) {
    await sleep(LOOK_MS, undefined, { signal, ref: false }).catch(() => undefined);
    if (signal.aborted) return;
    try {
      const now = await readIdentity();
      if (now === known) continue;
      warn({ before: known, now }, "Redis was restarted, replaced or emptied; what never ends is given out again");
      await giveOut();
      known = now;
    } catch (err) {
      if (!signal.aborted) warn({ err }, "Redis can't be asked who it is; it is asked again");
    }
  }
}
