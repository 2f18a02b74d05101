/**
 * The prediction object as it comes over the wire, from Replicate and from whoever copies its API, read into ours.
 *
 * Read leniently: an id and a status make a prediction; everything else may be missing, null or odd, as recorded
 * answers from 2023 to 2026 are. What isn't even that is a failed parse, which `http.ts` turns into a loud error.
 * Source: Replicate's OpenAPI document of 2026-03 and recorded traffic; CometAPI's pages of 2026.
 */

import { z } from "zod";
import { type Prediction, type PredictionId, predictionId } from "../core/prediction.ts";

/** The end of the logs is the part that says what happened. */
const LONGEST_LOGS = 16_384;
const LONGEST_ERROR = 16_384;

const optionalText = z.string().nullish().catch(null);

const id = z.string().transform((text, context): PredictionId => {
  try {
    return predictionId(text);
  } catch {
    context.issues.push({ code: "custom", message: "not a prediction id", input: text });
    return z.NEVER;
  }
});

export const wirePrediction = z
  .looseObject({
    id,
    status: z.string().min(1).max(100),
    output: z.unknown().optional(),
    error: z.unknown().optional(),
    logs: optionalText,
    model: optionalText,
    version: optionalText,
    created_at: optionalText,
    started_at: optionalText,
    completed_at: optionalText,
    data_removed: z.boolean().catch(false),
    metrics: z.record(z.string(), z.unknown()).catch({}),
  })
  .transform(
    (wire): Prediction => ({
      id: wire.id,
      status: statusOf(wire.status),
      statusWord: wire.status,
      output: wire.output ?? null,
      error: errorText(wire.error),
      logs: wire.logs?.slice(-LONGEST_LOGS).toWellFormed() ?? null,
      model: wire.model ?? null,
      version: wire.version ?? null,
      createdAt: wire.created_at ?? null,
      startedAt: wire.started_at ?? null,
      completedAt: wire.completed_at ?? null,
      dataRemoved: wire.data_removed,
      metrics: wire.metrics,
    }),
  );

/** A prediction beside its input, as the list has it, and a webhook's body. */
export const wireListed = z.looseObject({ input: z.unknown().optional() }).transform((wire, context) => {
  const read = wirePrediction.safeParse(wire);
  if (read.success) return { prediction: read.data, input: wire.input };
  context.issues.push({ code: "custom", message: z.prettifyError(read.error), input: wire });
  return z.NEVER;
});

/** A page of the list. A single entry that can't be read spoils it: a sweep that skips one isn't clean. */
export const wirePage = z.looseObject({
  next: z.string().nullish(),
  results: z.array(wireListed),
});

/** `GET /webhooks/default/secret`. */
export const wireWebhookSecret = z
  .looseObject({ key: z.string().regex(/^whsec_(?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/) })
  .transform(({ key }) => key);

/** `GET /account`: who the token belongs to. */
export const wireAccount = z
  .looseObject({ type: optionalText, username: optionalText, name: optionalText })
  .transform(({ type, username, name }) => username ?? name ?? type ?? "")
  .refine((account) => account !== "", "names no account");

const STATUSES = new Set(["starting", "processing", "succeeded", "failed", "canceled", "aborted"] as const);

function statusOf(word: string): Prediction["status"] {
  return (STATUSES as ReadonlySet<string>).has(word) ? (word as Prediction["status"]) : "unknown";
}

/** A sentence in every sample, but nothing promises it. */
function errorText(error: unknown): string | null {
  if (error === undefined || error === null) return null;
  const text = typeof error === "string" ? error : JSON.stringify(error);
  return text.slice(0, LONGEST_ERROR).toWellFormed();
}
