/**
 * Streams every output file of a prediction into the bucket, and proves that what arrived is what was sent.
 *
 * The queue is ordered by expiry, nearest first, since the provider deletes the files an hour after it made them.
 * Trouble on the way is tried again until the expiry, a body that isn't right as well: it is paid for. Where a file is
 * refused (401, 403, 404, 410), the prediction is read again: the file is gone if the provider says that it has removed the
 * data, if the expiry has passed, or if that comes three times over two minutes. The queue's expiry is counted from the
 * prediction's creation, to be on the safe side; to give a file up, it is counted from when the prediction ended.
 *
 * What can't be had fails the item, with all its other files kept: what isn't whole is never called saved. The files of a
 * prediction that failed or was canceled are kept as well, where it left any; there, one that can't be had changes nothing.
 * The receipt names each.
 *
 * If this process dies:
 *   before or between copies   they are made again, under the same keys: same bytes, atomic puts.
 *   after the progress         what is copied isn't asked for again; what was refused is remembered.
 *   after the step             the next run sees it, and adds the record errand.
 *   after the record errand    the next run finds nothing to do.
 */

import { DownloadError } from "../src/bucket/download.ts";
import {
  type CopyProgress,
  isBelieved,
  noteRefusals,
  REFUSED_PAUSE_MS,
  readProgress,
  writeProgress,
} from "../src/core/copying.ts";
import type { ItemByte } from "../src/core/item.ts";
import type { AttemptRef } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { filesOf, type OutputFile } from "../src/core/outputs.ts";
import { type PredictionId, predictionId } from "../src/core/prediction.ts";
import type { CopiedFile, Ending, UnsavedFile } from "../src/core/receipt.ts";
import { MINUTE } from "../src/core/time.ts";
import type { MoveAnswer, MoveOptions, OpenItemFields } from "../src/ledger/ledger.ts";
import type { CopyErrand } from "../src/queues/queues.ts";

export type CopyDeps = {
  readonly readItem: (ref: AttemptRef) => Promise<ItemByte & { readonly fields: Partial<OpenItemFields> }>;
  readonly readEnding: (ref: AttemptRef, kept: string) => Promise<Ending>;
  /** Throws DownloadError, or BucketError where the bucket is the trouble. */
  readonly copyFile: (ref: AttemptRef, file: OutputFile, signal: AbortSignal) => Promise<CopiedFile>;
  /** Whether the provider says that it has removed the prediction's data; null: it can't be asked now. */
  readonly isDataRemoved: (ref: AttemptRef, prediction: PredictionId, signal: AbortSignal) => Promise<boolean | null>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  /** For the attempt's next run. */
  readonly noteProgress: (ref: AttemptRef, progress: string) => Promise<void>;
  readonly move: (ref: AttemptRef, step: "finishCopy", options: MoveOptions) => Promise<MoveAnswer>;
  readonly enqueueRecord: (ref: AttemptRef, prediction: PredictionId | undefined) => Promise<void>;
  readonly clock: () => number;
};

/** The hour isn't exact; so long after it a host that still stumbles is believed to be done. */
const GRACE_MS = 10 * MINUTE;

export async function copyOutputs(errand: CopyErrand, deps: CopyDeps, signal: AbortSignal): Promise<StageOutcome> {
  const item = await deps.readItem(errand);
  if (item.attempt !== errand.attempt) return DONE;
  const { prediction_id: id } = item.fields;
  const prediction = id === undefined ? undefined : predictionId(id);
  if (item.state === "recording") {
    await deps.enqueueRecord(errand, prediction);
    return DONE;
  }
  if (item.state !== "copying") return DONE;
  if (item.fields.ending === undefined) throw new Error("the item is to be copied, but Redis holds no answer for it");

  const ending = await deps.readEnding(errand, item.fields.ending);
  const before = readProgress(item.fields.progress);
  const lasting: CopyErrand = { ...errand, expiresAtMs: errand.expiresAtMs + ranForMs(ending) };
  const run = await copyFiles(lasting, ending, before, deps, signal);
  if (run.stoppedBy !== null) {
    const known = new Map([...before.copied, ...run.copied].map((file) => [file.from, file]));
    if (known.size > before.copied.length) {
      await deps.noteProgress(errand, writeProgress({ ...before, copied: [...known.values()] }));
    }
    throw run.stoppedBy.error;
  }
  const judged = await judgeRefused(lasting, prediction, run, before, deps, signal);
  if (judged.kind === "again") return tryAgain(lasting, before, judged, deps);

  const moved = await deps.move(errand, "finishCopy", {
    nowMs: deps.clock(),
    set: { ending: await deps.keepEnding(errand, ended(ending, run.copied, judged.unsaved)) },
  });
  if (moved.answer !== "lost") await deps.enqueueRecord(errand, prediction);
  return DONE;
}

/** From its creation to its end, in the provider's words: no file of it was there before. 0: it doesn't say. */
function ranForMs({ answer }: Ending): number {
  const ms = Date.parse(answer?.completedAt ?? "") - Date.parse(answer?.createdAt ?? "");
  return ms > 0 ? ms : 0;
}

type Failed = { readonly file: OutputFile; readonly error: DownloadError };

/** What one run over the files came to. */
type Run = {
  readonly copied: readonly CopiedFile[];
  /** Can't be had, whatever is done. */
  readonly hopeless: readonly Failed[];
  /** Their host said no; whether for good isn't known. */
  readonly refused: readonly Failed[];
  /** To be tried again. */
  readonly troubled: readonly Failed[];
  /** What no file is to blame for, as a bucket that is down: the run ended there. */
  readonly stoppedBy: { readonly error: unknown } | null;
};

type Hope = "hopeless" | "refused" | "troubled";

/** Those that aren't copied yet. */
async function copyFiles(
  errand: CopyErrand,
  { answer }: Ending,
  before: CopyProgress,
  deps: CopyDeps,
  signal: AbortSignal,
): Promise<Run> {
  const done = new Map(before.copied.map((file) => [file.from, file]));
  const copied: CopiedFile[] = [];
  const failed: Record<Hope, Failed[]> = { hopeless: [], refused: [], troubled: [] };
  for (const file of filesOf(answer?.output)) {
    try {
      copied.push(done.get(file.url) ?? (await deps.copyFile(errand, file, signal)));
    } catch (error) {
      if (!(error instanceof DownloadError)) return { copied, ...failed, stoppedBy: { error } };
      failed[hopeOf({ file, error }, errand, deps.clock())].push({ file, error });
    }
  }
  return { copied, ...failed, stoppedBy: null };
}

function hopeOf({ file, error: { kind } }: Failed, { expiresAtMs }: CopyErrand, nowMs: number): Hope {
  // Its bytes stand in the output itself: they won't get better.
  if (/^data:/i.test(file.url)) return "hopeless";
  switch (kind) {
    case "refused-host":
    case "too-large":
      return "hopeless";
    case "gone":
      return nowMs > expiresAtMs ? "hopeless" : "refused";
    case "bad-body":
      return nowMs > expiresAtMs ? "hopeless" : "troubled";
    case "transient":
      return nowMs > expiresAtMs + GRACE_MS ? "hopeless" : "troubled";
    default:
      return kind satisfies never;
  }
}

type Judged =
  | { readonly kind: "over"; readonly unsaved: readonly UnsavedFile[] }
  | { readonly kind: "again"; readonly progress: CopyProgress; readonly trouble: DownloadError | null };

/** Whether what was refused is gone. */
async function judgeRefused(
  errand: CopyErrand,
  prediction: PredictionId | undefined,
  { copied, hopeless, refused, troubled }: Run,
  before: CopyProgress,
  deps: CopyDeps,
  signal: AbortSignal,
): Promise<Judged> {
  if (
    refused.length > 0 &&
    prediction !== undefined &&
    (await deps.isDataRemoved(errand, prediction, signal)) === true
  ) {
    const gone = [...refused, ...troubled].map((one) => unsaved(one, "the provider has removed the prediction's data"));
    return { kind: "over", unsaved: [...hopeless.map((one) => unsaved(one)), ...gone] };
  }
  const nowMs = deps.clock();
  const refusals = noteRefusals(
    before.refusals,
    refused.map(({ file }) => file.n),
    nowMs,
  );
  if (troubled.length === 0 && refusals.every((refusal) => isBelieved(refusal, nowMs))) {
    const gone = refused.map((one) => unsaved(one, "it was refused again and again"));
    return { kind: "over", unsaved: [...hopeless.map((one) => unsaved(one)), ...gone] };
  }
  return { kind: "again", progress: { copied, refusals }, trouble: troubled[0]?.error ?? null };
}

function unsaved({ file, error }: Failed, why?: string): UnsavedFile {
  return { url: file.url, why: why === undefined ? error.message : `${error.message}; ${why}` };
}

/** Trouble uses up a try, and the queue's backoff says when the next one is; a refusal is waited out. */
async function tryAgain(
  errand: CopyErrand,
  before: CopyProgress,
  { progress, trouble }: Extract<Judged, { kind: "again" }>,
  deps: CopyDeps,
): Promise<StageOutcome> {
  const isNews = progress.copied.length > before.copied.length || progress.refusals.length + before.refusals.length > 0;
  if (isNews) await deps.noteProgress(errand, writeProgress(progress));
  if (trouble !== null) throw trouble;
  return { kind: "snooze", untilMs: Math.min(deps.clock() + REFUSED_PAUSE_MS, errand.expiresAtMs + 1) };
}

/** `unsaved`: of a success each fails it; where it failed or was canceled, the provider's word stands. */
function ended(ending: Ending, copied: readonly CopiedFile[], unsaved: readonly UnsavedFile[]): Ending {
  const [first, ...more] = unsaved;
  if (first === undefined) return { ...ending, copied };
  if (ending.end !== "saved") return { ...ending, copied, unsaved };
  const others = more.length === 0 ? "" : ` (and ${more.length} more of its files)`;
  const error = `succeeded, but its output couldn't be saved: ${first.why}${others}`;
  return { ...ending, end: "failed", error, copied, unsaved };
}
