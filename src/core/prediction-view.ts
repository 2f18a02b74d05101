/**
 * An item as Replicate's API would show it: what clients that speak that API are told of it.
 *
 * `id` is the item's. Statuses are the provider's words for where the item stands: whatever isn't bought is `starting`;
 * what the provider has finished, and isn't kept yet, is `processing`. An unclear item stays `starting` until somebody
 * knows better. Source: Replicate's OpenAPI document of 2026-03.
 */

import type { ItemState } from "./item.ts";
import type { ItemId } from "./naming.ts";
import { mapTexts } from "./outputs.ts";
import type { RunningStatus, Target, TerminalStatus, WebhookEvent } from "./prediction.ts";
import type { Receipt } from "./receipt.ts";

export type PredictionView = {
  readonly id: ItemId;
  readonly model: string;
  readonly version: string;
  readonly input: Readonly<Record<string, unknown>>;
  /** File URLs lead to the kept copies. */
  readonly output: unknown;
  readonly error: string | null;
  readonly status: RunningStatus | TerminalStatus;
  readonly logs: string;
  readonly data_removed: false;
  readonly created_at: string;
  readonly started_at?: string;
  readonly completed_at?: string;
  readonly deadline?: string;
  readonly deployment?: string;
  readonly source: "api";
  readonly metrics: Readonly<Record<string, unknown>>;
  readonly urls: { readonly get: string; readonly cancel: string; readonly web: string };
  readonly webhook?: string;
  readonly webhook_events_filter?: readonly WebhookEvent[];
};

/** What was asked for. */
export type AskedFor = {
  readonly item: ItemId;
  readonly input: Readonly<Record<string, unknown>>;
  readonly target: Target;
  readonly createdAt: string;
  readonly deadline: string | null;
  readonly webhook: { readonly url: string; readonly events: readonly WebhookEvent[] } | null;
};

/** Where it stands. */
export type Standing = {
  readonly state: ItemState;
  /** The provider's word when it was seen last, and when it began to run by that; null: it wasn't seen. */
  readonly seenStatus: string | null;
  readonly startedAt: string | null;
  /** Of the attempt that has ended; null while it is open, or where it ended without one. */
  readonly receipt: Receipt | null;
};

export type PredictionLinks = {
  /** Where the client reaches the server; without a slash at its end. */
  readonly baseUrl: string;
  /** The address of a kept file; `key` is the object's. */
  readonly fileUrl: (item: ItemId, key: string) => string;
};

export function predictionView(asked: AskedFor, standing: Standing, links: PredictionLinks): PredictionView {
  const { item, target, input, deadline, webhook } = asked;
  const { receipt } = standing;
  const { baseUrl } = links;
  const status = shownStatus(standing);
  const startedAt = receipt === null ? standing.startedAt : receipt.started_at;
  const get = `${baseUrl}/v1/predictions/${item}`;
  return {
    id: item,
    model: receipt?.model ?? (target.kind === "model" ? `${target.owner}/${target.name}` : ""),
    version: target.kind === "version" ? target.version : (receipt?.version ?? "hidden"),
    input,
    output: receipt === null ? null : shownOutput(receipt, (key) => links.fileUrl(item, key)),
    error: status === "succeeded" || status === "canceled" ? null : (receipt?.error ?? null),
    status,
    logs: receipt?.logs ?? "",
    data_removed: false,
    created_at: asked.createdAt,
    ...(startedAt !== null && { started_at: startedAt }),
    ...(receipt !== null && { completed_at: receipt.completed_at ?? receipt.recorded_at }),
    ...(deadline !== null && { deadline }),
    ...(target.kind === "deployment" && { deployment: `${target.owner}/${target.name}` }),
    source: "api",
    metrics: receipt?.metrics ?? {},
    urls: { get, cancel: `${get}/cancel`, web: `${baseUrl}/items/${item}` },
    ...(webhook !== null && { webhook: webhook.url, webhook_events_filter: webhook.events }),
  };
}

/** Where a hold on the request has run out: never `processing`, which clients take for finished. */
export function asUnfinished(view: PredictionView): PredictionView {
  return view.status === "processing" ? { ...view, status: "starting" } : view;
}

function shownStatus({ state, seenStatus, receipt }: Standing): PredictionView["status"] {
  switch (state) {
    case "waiting":
    case "claimed":
    case "unclear":
      return "starting";
    case "running":
      return seenStatus === "processing" ? "processing" : "starting";
    case "copying":
    case "recording":
      return "processing";
    case "saved":
      return "succeeded";
    case "failed": {
      const ended = receipt?.prediction_status;
      return ended === "canceled" || ended === "aborted" ? ended : "failed";
    }
    case "canceled":
      return receipt?.prediction_status === "aborted" ? "aborted" : "canceled";
    default:
      return state satisfies never;
  }
}

/**
 * The provider's output, in which each kept file stands as its key. What isn't saved whole shows the files that were kept,
 * if there are any, and null in place of each that couldn't be had: nobody is sent to an address that leads nowhere.
 */
function shownOutput({ status, output, outputs, unsaved = [] }: Receipt, urlOf: (key: string) => string): unknown {
  const keys = new Set(outputs.map(({ key }) => key));
  if (keys.size === 0) return status === "saved" ? output : null;
  const lost = new Set(unsaved.map(({ url }) => url));
  return mapTexts(output, (text) => (keys.has(text) ? urlOf(text) : lost.has(text) ? null : text));
}
