/**
 * A prediction as Outlast sees it, whoever runs it. Providers' answers are read
 * into this shape at the edge (`src/providers`); inside there is no other.
 *
 * Statuses keep the provider's spelling. A status nobody knows is kept as
 * `unknown` with its word: it isn't terminal, and is followed within bounds.
 */

declare const brand: unique symbol;

/** The provider's id of a prediction; opaque. */
export type PredictionId = string & { readonly [brand]: "PredictionId" };

export function predictionId(text: string): PredictionId {
  if (!/^[A-Za-z0-9_-]{1,128}$/.test(text)) throw new TypeError(`not a prediction id: ${JSON.stringify(text)}`);
  return text as PredictionId;
}

export type RunningStatus = "starting" | "processing";
export type TerminalStatus = "succeeded" | "failed" | "canceled" | "aborted";

export type Prediction = {
  readonly id: PredictionId;
  readonly status: RunningStatus | TerminalStatus | "unknown";
  /** The provider's own word, which tells more only where `status` is `unknown`. */
  readonly statusWord: string;
  /** Any JSON; null until there is one, and again after the provider removed it. */
  readonly output: unknown;
  /** The provider's words; can be null even on `failed`. */
  readonly error: string | null;
  readonly logs: string | null;
  /** `owner/name` or an alias of it; null where the provider doesn't say. */
  readonly model: string | null;
  readonly version: string | null;
  /** ISO 8601, as the provider wrote it. */
  readonly createdAt: string | null;
  readonly startedAt: string | null;
  readonly completedAt: string | null;
  readonly dataRemoved: boolean;
  /** Free-form; `predict_time` is seconds of billed run time where it is given. */
  readonly metrics: Readonly<Record<string, unknown>>;
};

/** Which code a prediction runs. Exactly one of the three create forms of Replicate's API. */
export type Target =
  | { readonly kind: "version"; readonly version: string }
  | { readonly kind: "model"; readonly owner: string; readonly name: string }
  | { readonly kind: "deployment"; readonly owner: string; readonly name: string };

/** What Replicate's API can tell a client's webhook about (`webhook_events_filter`). */
export const WEBHOOK_EVENTS = ["start", "output", "logs", "completed"] as const;
export type WebhookEvent = (typeof WEBHOOK_EVENTS)[number];
