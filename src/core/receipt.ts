/**
 * What is recorded of an attempt's end: the shapes that leave the process. snake_case, ISO 8601 times, bigints
 * never: everything here is JSON.
 */

import type { ItemEnd } from "./item.ts";
import { type AttemptRef, itemId } from "./naming.ts";
import { withKeys } from "./outputs.ts";
import type { Prediction, TerminalStatus, WebhookEvent } from "./prediction.ts";
import { isProvidersOwnFailure } from "./retrying.ts";

/** A file in the bucket. */
export type KeptOutput = {
  readonly key: string;
  readonly url: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly content_type: string;
};

export type AttemptLine = {
  readonly attempt: number;
  readonly status: ItemEnd;
  readonly prediction_id: string | null;
  readonly error: string | null;
  readonly metrics: Readonly<Record<string, unknown>>;
  /** Where it succeeded, and so is paid for, and its output isn't in the bucket, or not all of it. */
  readonly not_saved?: true;
};

/** One line of `results.jsonl` and of `results --json`. */
export type ResultLine = {
  readonly index: number;
  readonly item: string;
  readonly id: string | null;
  readonly status: ItemEnd | "unclear" | "waiting" | "in_flight";
  readonly prediction_id: string | null;
  readonly output: unknown;
  readonly outputs: readonly KeptOutput[];
  readonly error: string | null;
  readonly metrics: Readonly<Record<string, unknown>>;
  readonly attempts: readonly AttemptLine[];
};

/** The object that records an attempt's end: its results line, and when what happened. */
export type Receipt = ResultLine & {
  readonly status: ItemEnd;
  readonly batch: string;
  readonly account: string;
  readonly model: string | null;
  readonly version: string | null;
  readonly logs: string | null;
  readonly claimed_at: string | null;
  readonly created_at: string | null;
  readonly started_at: string | null;
  readonly completed_at: string | null;
  readonly recorded_at: string;
  /** The prediction's end in the provider's spelling; null where there was none, or nobody knows it. */
  readonly prediction_status: TerminalStatus | null;
  /** The producer's queue that gets this result, where one asked for it. */
  readonly reply_to: string | null;
  /** What the client's webhook is told, where it has one. */
  readonly webhook_events: readonly WebhookEvent[];
  /** Files of the output that couldn't be had, and still stand in it as the provider's URLs. */
  readonly unsaved?: readonly UnsavedFile[];
};

/** A prediction's end as it is kept between the stages: what the receipt needs, in the provider's words. */
export type Answer = Pick<
  Prediction,
  "status" | "output" | "error" | "logs" | "model" | "version" | "createdAt" | "startedAt" | "completedAt" | "metrics"
>;

export function answerOf(prediction: Prediction): Answer {
  const { status, output, error, logs, model, version, createdAt, startedAt, completedAt, metrics } = prediction;
  return { status, output, error, logs, model, version, createdAt, startedAt, completedAt, metrics };
}

/** A file as copy saved it, beside the URL that the provider gave it. */
export type CopiedFile = KeptOutput & { readonly from: string };

/** A file that couldn't be had. */
export type UnsavedFile = { readonly url: string; readonly why: string };

/** How an attempt ends, as far as the stages before `record` know: what the receipt is made from. */
export type Ending = {
  readonly end: ItemEnd;
  /** Ours, where there is one; else the provider's holds. */
  readonly error: string | null;
  /** Null where the provider refused the input, so that there was no prediction. */
  readonly answer: Answer | null;
  readonly copied: readonly CopiedFile[];
  readonly unsaved?: readonly UnsavedFile[];
  /** Where it ended before it was bought: as what, in the provider's spelling. */
  readonly unboughtAs?: Extract<TerminalStatus, "canceled" | "aborted">;
};

export function buildReceipt(facts: {
  readonly ref: AttemptRef;
  readonly rowId: string | null;
  readonly replyTo: string | null;
  readonly webhookEvents: readonly WebhookEvent[];
  readonly predictionId: string | null;
  readonly claimedAtMs: number | null;
  readonly recordedAtMs: number;
  readonly ending: Ending;
  /** Oldest first. */
  readonly earlier: readonly AttemptLine[];
}): Receipt {
  const { ref, ending } = facts;
  const { answer, copied, end } = ending;
  const keys = new Map(copied.map((file) => [file.from, file.key]));
  const error = ending.error ?? answer?.error ?? (end === "saved" ? null : withoutReason(answer?.status ?? "nothing"));
  const metrics = answer?.metrics ?? {};
  const notSaved = end === "failed" && answer?.status === "succeeded";
  const { unsaved = [] } = ending;
  return {
    index: ref.index,
    item: itemId(ref.batch, ref.index),
    id: facts.rowId,
    status: end,
    prediction_id: facts.predictionId,
    output: withKeys(answer?.output ?? null, (url) => keys.get(url)),
    outputs: copied.map(({ key, url, bytes, sha256, content_type }) => ({ key, url, bytes, sha256, content_type })),
    error,
    metrics,
    attempts: [
      ...facts.earlier,
      {
        attempt: ref.attempt,
        status: end,
        prediction_id: facts.predictionId,
        error,
        metrics,
        ...(notSaved && { not_saved: true as const }),
      },
    ],
    batch: ref.batch,
    account: ref.account,
    model: answer?.model ?? null,
    version: answer?.version ?? null,
    logs: answer?.logs ?? null,
    claimed_at: iso(facts.claimedAtMs),
    created_at: answer?.createdAt ?? null,
    started_at: answer?.startedAt ?? null,
    completed_at: answer?.completedAt ?? null,
    recorded_at: new Date(facts.recordedAtMs).toISOString(),
    prediction_status: ending.unboughtAs ?? terminalStatusOf(answer),
    reply_to: facts.replyTo,
    webhook_events: facts.webhookEvents,
    ...(unsaved.length > 0 && { unsaved: unsaved.map(({ url, why }) => ({ url: shortened(url), why })) }),
  };
}

const LONGEST_DATA_URL = 100;

/** A data URL may be megabytes long; the output has it whole. */
function shortened(url: string): string {
  return /^data:/i.test(url) && url.length > LONGEST_DATA_URL ? `${url.slice(0, LONGEST_DATA_URL)}…` : url;
}

function withoutReason(status: string): string {
  return `the provider says ${status}, without a reason`;
}

/** Whether the prediction failed by the provider's own doing, so that buying it again may well help. */
export function failedByProvider({ prediction_status: status, error }: Receipt): boolean {
  return status === "failed" && (error === withoutReason(status) || isProvidersOwnFailure(error));
}

/**
 * What the attempt's prediction was billed for, in whole milliseconds: nothing where an earlier attempt had the same one,
 * whose output was kept later.
 */
export function billedTimeMs({ attempts, prediction_id: prediction, metrics }: Receipt): bigint {
  const before = attempts.slice(0, -1).some(({ prediction_id: id }) => id !== null && id === prediction);
  return before ? 0n : predictTimeMs(metrics);
}

/**
 * What the attempt adds to the predictions that are paid for and not saved: nothing where an earlier attempt had the same
 * one, and one less where its output was kept after all.
 */
export function notSavedBy({ attempts, prediction_id: prediction }: Receipt): bigint {
  const before = attempts.slice(0, -1).findLast(({ prediction_id: id }) => id !== null && id === prediction);
  return (attempts.at(-1)?.not_saved === true ? 1n : 0n) - (before?.not_saved === true ? 1n : 0n);
}

function terminalStatusOf(answer: Answer | null): TerminalStatus | null {
  const status = answer?.status;
  return status === undefined || status === "starting" || status === "processing" || status === "unknown"
    ? null
    : status;
}

export function resultLineOf(receipt: Receipt): ResultLine {
  const { index, item, id, status, prediction_id, output, outputs, error, metrics, attempts } = receipt;
  return { index, item, id, status, prediction_id, output, outputs, error, metrics, attempts };
}

/** Whole milliseconds of billed run time, rounded once; 0 where the provider doesn't say. */
export function predictTimeMs(metrics: Readonly<Record<string, unknown>>): bigint {
  const seconds = metrics["predict_time"];
  return typeof seconds === "number" && seconds > 0 && seconds < 1e9 ? BigInt(Math.round(seconds * 1_000)) : 0n;
}

function iso(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
