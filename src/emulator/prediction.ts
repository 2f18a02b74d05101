/**
 * One prediction: what is kept of it, and how Replicate's API shows it. Field by field this follows the published
 * OpenAPI document and its examples; `test/fixtures` holds samples of the shape, to which the tests hold it.
 */

import type { Account } from "./accounts.ts";
import type { Model } from "./model.ts";

export type Status = "starting" | "processing" | "succeeded" | "failed" | "canceled" | "aborted";
export type WebhookEvent = "start" | "output" | "logs" | "completed";

/** What stays the same from creation on, but for `input`, which goes with the data. */
export type Prediction = {
  readonly id: string;
  readonly account: Account;
  readonly model: Model;
  /** An id where one was asked for, else `hidden`. */
  readonly version: string;
  readonly deployment: string | null;
  /** As it was sent; `{}` once removed. */
  input: Readonly<Record<string, unknown>>;
  /** SHA-256 of model and input. */
  readonly digest: string;
  /** Microseconds since 1970; no two predictions share one, so it orders the list. */
  readonly createdAtUs: number;
  readonly deadlineMs: number | null;
  readonly webhook: string | null;
  readonly webhookEvents: readonly WebhookEvent[] | null;
  /** Bought by somebody else with the same account; the API doesn't tell. */
  readonly foreign: boolean;
  /** In [0, 1); what chance says about this run. */
  readonly luck: number;
  status: Status;
  startedAtMs: number | null;
  completedAtMs: number | null;
  error: string | null;
  dataRemoved: boolean;
};

/** Where things are, in the answers to whoever asks. */
export type Links = {
  /** Base of the API, with its path. */
  readonly apiUrl: string;
  fileUrl(prediction: Prediction, index: number, name: string): string;
};

export function isTerminal(status: Status): boolean {
  return status !== "starting" && status !== "processing";
}

/** Milliseconds of run time, which is what is billed; null where it never ran, as after `aborted`. */
export function predictMs(prediction: Prediction): number | null {
  const { startedAtMs, completedAtMs } = prediction;
  return startedAtMs === null || completedAtMs === null ? null : completedAtMs - startedAtMs;
}

/**
 * `finishing` shows a prediction that has just succeeded as it was a moment before: `processing`, all outputs there,
 * `completed_at` and `metrics` not yet. That is what an `output` webhook carries, and what a held create was recorded
 * to answer with.
 */
export function describe(prediction: Prediction, links: Links, moment: "now" | "finishing" = "now") {
  const { id, model, startedAtMs, completedAtMs } = prediction;
  const ended = moment === "now" && completedAtMs !== null;
  const runMs = predictMs(prediction);
  return {
    id,
    model: model.fullName,
    version: prediction.version,
    input: prediction.input,
    logs: logsOf(prediction, ended),
    output: outputOf(prediction, links),
    data_removed: prediction.dataRemoved,
    error: prediction.error,
    source: "api",
    status: moment === "finishing" ? "processing" : prediction.status,
    created_at: isoMicros(prediction.createdAtUs),
    ...(startedAtMs !== null && { started_at: isoMillis(startedAtMs) }),
    ...(ended && { completed_at: isoMillis(completedAtMs) }),
    ...(prediction.deadlineMs !== null && { deadline: isoMillis(prediction.deadlineMs) }),
    ...(prediction.deployment !== null && { deployment: prediction.deployment }),
    ...(prediction.webhook !== null && { webhook: prediction.webhook }),
    ...(prediction.webhookEvents !== null && { webhook_events_filter: prediction.webhookEvents }),
    urls: {
      cancel: `${links.apiUrl}/predictions/${id}/cancel`,
      get: `${links.apiUrl}/predictions/${id}`,
      web: `${new URL(links.apiUrl).origin}/p/${id}`,
    },
    ...(ended && {
      metrics: {
        ...(runMs !== null && { predict_time: runMs / 1_000 }),
        total_time: (completedAtMs - Math.floor(prediction.createdAtUs / 1_000)) / 1_000,
      },
    }),
  };
}

function outputOf(prediction: Prediction, links: Links): unknown {
  const { model, input, digest, status } = prediction;
  if (!isTerminal(status) || prediction.dataRemoved) return null;
  const urls = model.files(input, digest).map((file, index) => links.fileUrl(prediction, index, file.name));
  return status === "succeeded" ? model.output(input, urls, digest) : model.rest(input, urls);
}

function logsOf(prediction: Prediction, ended: boolean): string {
  if (prediction.dataRemoved || prediction.startedAtMs === null) return "";
  const started = `Running ${prediction.model.fullName}\n`;
  return ended ? `${started}${prediction.status} after ${(predictMs(prediction) ?? 0) / 1_000} s\n` : started;
}

function isoMillis(ms: number): string {
  return new Date(ms).toISOString();
}

export function isoMicros(us: number): string {
  const millis = new Date(Math.floor(us / 1_000)).toISOString().slice(0, -1);
  return `${millis}${String(us % 1_000).padStart(3, "0")}Z`;
}
