/**
 * Streams every output file of a prediction into the bucket, and proves that what arrived is what was sent.
 *
 * The queue is ordered by expiry, nearest first, since the provider deletes the files an hour after it made them.
 * Trouble on the way is tried again until the expiry, an answer that the file is gone or a body that isn't right as
 * well: it is paid for. What can't be had by then, or may not be fetched at all, fails the item: what can't be kept
 * whole is never called saved.
 *
 * If this process dies:
 *   before or between copies   they are made again, under the same keys: same bytes, atomic puts.
 *   after the step             the next run sees it, and adds the record errand.
 *   after the record errand    the next run finds nothing to do.
 */

import { DownloadError } from "../src/bucket/download.ts";
import type { ItemByte } from "../src/core/item.ts";
import type { AttemptRef } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { filesOf, type OutputFile } from "../src/core/outputs.ts";
import type { CopiedFile, Ending } from "../src/core/receipt.ts";
import { MINUTE } from "../src/core/time.ts";
import type { MoveAnswer, MoveOptions, OpenItemFields } from "../src/ledger/ledger.ts";
import type { CopyErrand } from "../src/queues/queues.ts";

export type CopyDeps = {
  readonly readItem: (ref: AttemptRef) => Promise<ItemByte & { readonly fields: Partial<OpenItemFields> }>;
  readonly readEnding: (ref: AttemptRef, kept: string) => Promise<Ending>;
  /** Throws DownloadError, or BucketError where the bucket is the trouble. */
  readonly copyFile: (ref: AttemptRef, file: OutputFile, signal: AbortSignal) => Promise<CopiedFile>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  readonly move: (ref: AttemptRef, step: "finishCopy", options: MoveOptions) => Promise<MoveAnswer>;
  readonly enqueueRecord: (ref: AttemptRef) => Promise<void>;
  readonly clock: () => number;
};

/** The hour isn't exact; so long after it a host that still stumbles is believed to be done. */
const GRACE_MS = 10 * MINUTE;

export async function copyOutputs(errand: CopyErrand, deps: CopyDeps, signal: AbortSignal): Promise<StageOutcome> {
  const item = await deps.readItem(errand);
  if (item.attempt !== errand.attempt) return DONE;
  if (item.state === "recording") {
    await deps.enqueueRecord(errand);
    return DONE;
  }
  if (item.state !== "copying") return DONE;
  if (item.fields.ending === undefined) throw new Error("the item is to be copied, but Redis holds no answer for it");

  const ending = await copyAll(errand, await deps.readEnding(errand, item.fields.ending), deps, signal);
  const moved = await deps.move(errand, "finishCopy", {
    nowMs: deps.clock(),
    set: { ending: await deps.keepEnding(errand, ending) },
  });
  if (moved.answer !== "lost") await deps.enqueueRecord(errand);
  return DONE;
}

async function copyAll(errand: CopyErrand, ending: Ending, deps: CopyDeps, signal: AbortSignal): Promise<Ending> {
  const copied: CopiedFile[] = [];
  for (const file of filesOf(ending.answer?.output)) {
    try {
      copied.push(await deps.copyFile(errand, file, signal));
    } catch (error) {
      if (!(error instanceof DownloadError) || !isHopeless(error, errand, deps.clock())) throw error;
      return {
        ...ending,
        end: "failed",
        error: `succeeded, but its output couldn't be saved: ${error.message}`,
        copied,
      };
    }
  }
  return { ...ending, copied };
}

function isHopeless({ kind }: DownloadError, { expiresAtMs }: CopyErrand, nowMs: number): boolean {
  switch (kind) {
    case "refused-host":
    case "too-large":
      return true;
    case "gone":
    case "bad-body":
      return nowMs > expiresAtMs;
    case "transient":
      return nowMs > expiresAtMs + GRACE_MS;
    default:
      return kind satisfies never;
  }
}
