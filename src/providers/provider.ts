/**
 * What Outlast asks of a provider of hosted predictions, and how a provider says no.
 *
 * An ability that a provider lacks is a method that its object lacks: the compiler
 * sees it, nothing throws "not supported".
 */

import type { Prediction, PredictionId, Target } from "../core/prediction.ts";

export type CreateRequest = {
  readonly target: Target;
  readonly input: Readonly<Record<string, unknown>>;
  /** Sent as `Cancel-After` where the provider takes it: it stops the run, and the paying, by itself. */
  readonly cancelAfterMs?: number;
  /** Where the provider reports the end, if it can. */
  readonly webhookUrl?: string;
};

export type ListPage = {
  readonly predictions: readonly Prediction[];
  /** Each prediction's input as the list shows it, by id; for matching. */
  readonly inputs: ReadonlyMap<PredictionId, unknown>;
  /** To be handed back to `list`; absent on the last page. Never on another host: such a page is a ProviderAnswerError. */
  readonly next?: string;
  /** The provider's clock when it answered (its `Date` header, whole seconds); absent where it says nothing. */
  readonly serverDate?: Date;
};

export interface Provider {
  /** The create forms that `create` takes. Admission refuses rows of another; `create` refuses them too, unsent. */
  readonly targets: ReadonlySet<Target["kind"]>;
  /** Sends ONE request, on a connection that can't replay it, and never repeats it. Throws ProviderError. */
  create(request: CreateRequest, signal: AbortSignal): Promise<Prediction>;
  /** Safe to repeat. Throws ProviderError, or ProviderAnswerError if what came back isn't a prediction. */
  get(id: PredictionId, signal: AbortSignal): Promise<Prediction>;
  /** Newest first, a hundred a page. `after` is inclusive, `before` exclusive, both ISO 8601. */
  list?(
    query: { readonly after?: string; readonly before?: string; readonly next?: string },
    signal: AbortSignal,
  ): Promise<ListPage>;
  cancel?(id: PredictionId, signal: AbortSignal): Promise<Prediction>;
  /** What the provider signs its webhooks with: `whsec_` and base64. One for all of the account. */
  webhookSecret?(signal: AbortSignal): Promise<string>;
  /** A webhook's body, parsed as JSON; null: it tells of no prediction. `input` as the list shows it, for matching. */
  readWebhook?(body: unknown): { readonly prediction: Prediction; readonly input: unknown } | null;
  /** Proves the token without spending anything; answers the provider's clock, for `doctor`. */
  check?(signal: AbortSignal): Promise<{ readonly account: string; readonly serverDate: Date | null }>;
}

/**
 * What is known after a request that didn't give a prediction:
 *
 * - `not-sent`: the failure came before the first byte of the request was written. It can't have arrived.
 * - `refused`: the provider answered 400, 401, 402, 403, 404, 413, 422 or 429, so it surely accepted nothing. Two
 *   more cases, neither of a create that was sent: our own side refused the request unsent, which no repetition can
 *   help (then `status` is null); and a read that the provider answered with an error it says will stay.
 * - `unknown`: everything else - timeout, reset, cut body, 408, 409, 5xx. A create may have been accepted, and that
 *   includes an answer of 2xx that isn't a prediction.
 */
export type ProviderErrorKind = "not-sent" | "refused" | "unknown";

export class ProviderError extends Error {
  override readonly name = "ProviderError";
  readonly kind: ProviderErrorKind;
  /** The HTTP status, where there was an answer. */
  readonly status: number | null;
  /** How long the provider asked to wait (429: header, body field, or its sentence). */
  readonly retryAfterMs: number | null;
  /** The provider's own words, without ours; at most 2,000 characters. */
  readonly detail: string;
  /** The provider's own code of the error, where it has such codes. */
  readonly code: string | null;

  constructor(
    message: string,
    fields: {
      readonly kind: ProviderErrorKind;
      readonly status?: number | null;
      readonly retryAfterMs?: number | null;
      readonly detail?: string;
      readonly code?: string | null;
      readonly cause?: unknown;
    },
  ) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.kind = fields.kind;
    this.status = fields.status ?? null;
    this.retryAfterMs = fields.retryAfterMs ?? null;
    this.detail = fields.detail ?? message;
    this.code = fields.code ?? null;
  }
}

/**
 * A read was answered with success, but not with what it asked for: the provider changed its API, or something that
 * isn't the provider answered. A repetition changes nothing about that, so this is not a ProviderError and nobody
 * retries it as transport trouble. Never thrown by `create`, whose unreadable answers are `unknown`.
 */
export class ProviderAnswerError extends Error {
  override readonly name = "ProviderAnswerError";
  readonly status: number;

  constructor(message: string, fields: { readonly status: number }) {
    super(message);
    this.status = fields.status;
  }
}
