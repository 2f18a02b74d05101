/**
 * Batches that somebody watches: each is looked at once a second, however many watch it, and whoever watches hears of
 * it when it has changed.
 */

import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { BatchReport } from "../batches/report-batch.ts";
import type { BatchId } from "../core/naming.ts";
import { SECOND } from "../core/time.ts";

const LOOK_MS = SECOND;

export type Look = { readonly version: string; readonly report: BatchReport };

export type BatchWatch = {
  /**
   * The batch as it stands, and again after each change, until the signal aborts, the server closes or the batch is
   * gone. Who reads slowly skips what is old by then. `seen`: a version that needn't be told again.
   */
  readonly follow: (id: BatchId, signal: AbortSignal, seen?: string) => AsyncGenerator<Look, void, undefined>;
  /** Lets everybody go. */
  readonly close: () => void;
};

type Watched = { latest: Look | null; gone: boolean; watchers: number; changed: PromiseWithResolvers<void> };

/** `read` answers null where there is no such batch any more. */
export function openBatchWatch(read: (id: BatchId) => Promise<BatchReport | null>): BatchWatch {
  const watched = new Map<BatchId, Watched>();
  const closing = new AbortController();

  async function look(id: BatchId, one: Watched): Promise<void> {
    while (one.watchers > 0 && !one.gone && !closing.signal.aborted) {
      // Redis out of reach: what was seen last stands until it is back.
      const report = await read(id).catch(() => one.latest?.report);
      const latest = report == null ? null : { version: versionOf(report), report };
      one.gone = report === null;
      if (one.gone || latest?.version !== one.latest?.version) {
        one.latest = latest;
        one.changed.resolve();
        one.changed = Promise.withResolvers();
      }
      await sleep(LOOK_MS, undefined, { signal: closing.signal }).catch(() => undefined);
    }
    watched.delete(id);
  }

  function join(id: BatchId): Watched {
    let one = watched.get(id);
    if (one === undefined) {
      one = { latest: null, gone: false, watchers: 0, changed: Promise.withResolvers() };
      watched.set(id, one);
      queueMicrotask(() => void look(id, one as Watched));
    }
    one.watchers++;
    return one;
  }

  return {
    async *follow(id, signal, seen = "") {
      const { promise: left, resolve: leave } = Promise.withResolvers<void>();
      const ended = AbortSignal.any([signal, closing.signal]);
      ended.addEventListener("abort", () => leave(), { once: true });
      const one = join(id);
      try {
        let told = seen;
        while (!ended.aborted && !one.gone) {
          const { changed, latest } = one;
          if (latest === null || latest.version === told) {
            await Promise.race([changed.promise, left]);
          } else {
            told = latest.version;
            yield latest;
          }
        }
      } finally {
        one.watchers--;
      }
    },
    close: () => closing.abort(),
  };
}

/** Differs where the report does. */
export function versionOf(report: BatchReport): string {
  return createHash("sha256").update(JSON.stringify(report)).digest("base64url").slice(0, 16);
}
