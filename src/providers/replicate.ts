/**
 * Replicate's HTTP API: create in its three forms, get, list, cancel, webhooks, and a check of the token.
 *
 * Always asynchronous: no `Prefer` header, because an expired hold answers with states that can't be told from a
 * finished run. Source: Replicate's OpenAPI document of 2026-03 and its pages (`api.replicate.com/openapi.json`,
 * replicate.com/docs/topics/predictions). Failures: see `http.ts`.
 */

import { DAY, SECOND } from "../core/time.ts";
import { ProviderHttp, type ProviderRequest } from "./http.ts";
import { type CreateRequest, type ListPage, type Provider, ProviderAnswerError, ProviderError } from "./provider.ts";
import { nameOfTarget, pathOfTarget } from "./target-path.ts";
import { wireAccount, wireListed, wirePage, wirePrediction, wireWebhookSecret } from "./wire.ts";

export type ReplicateSettings = {
  /** `https://api.replicate.com/v1` */
  readonly baseUrl: string;
  readonly token: string;
  /** Default 30 s. */
  readonly createDeadlineMs?: number;
  /** Default 15 s; lists get twice that. */
  readonly readDeadlineMs?: number;
  /** Kept-alive connections for reads; default 16. */
  readonly connections?: number;
};

export type Replicate = Required<Provider> & AsyncDisposable;

/** `Cancel-After` takes 5 s to 24 h. */
const SHORTEST_RUN_MS = 5 * SECOND;
const LONGEST_RUN_MS = DAY;

/** A page holds a hundred inputs, each with data URLs of up to 256 kB. */
const LONGEST_PAGE_BYTES = 64 * 1024 * 1024;

export const REPLICATE_TARGETS: Provider["targets"] = new Set(["version", "model", "deployment"] as const);

export function createReplicate(settings: ReplicateSettings): Replicate {
  const { createDeadlineMs = 30 * SECOND, readDeadlineMs = 15 * SECOND } = settings;
  const http = new ProviderHttp(settings);
  const read = { method: "GET", spends: false, deadlineMs: readDeadlineMs } as const;

  return {
    targets: REPLICATE_TARGETS,

    async create(request, signal) {
      return (await http.send(createOf(request, createDeadlineMs), wirePrediction, signal)).value;
    },

    async get(id, signal) {
      const request: ProviderRequest = { ...read, what: `get prediction ${id}`, path: `/predictions/${id}` };
      return (await http.send(request, wirePrediction, signal)).value;
    },

    async list(query, signal) {
      const path = pathOfList(http, query);
      const request: ProviderRequest = {
        ...read,
        what: "list predictions",
        path,
        deadlineMs: 2 * readDeadlineMs,
        longestAnswerBytes: LONGEST_PAGE_BYTES,
      };
      const { value, serverDate } = await http.send(request, wirePage, signal);
      return {
        predictions: value.results.map(({ prediction }) => prediction),
        inputs: new Map(value.results.map(({ prediction, input }) => [prediction.id, input])),
        ...nextOf(http, value.next ?? ""),
        ...(serverDate === null ? {} : { serverDate }),
      };
    },

    async cancel(id, signal) {
      const path = `/predictions/${id}/cancel`;
      const request: ProviderRequest = { ...read, what: `cancel prediction ${id}`, method: "POST", path };
      return (await http.send(request, wirePrediction, signal)).value;
    },

    async webhookSecret(signal) {
      const path = "/webhooks/default/secret";
      const request: ProviderRequest = { ...read, what: "read the secret that webhooks are signed with", path };
      return (await http.send(request, wireWebhookSecret, signal)).value;
    },

    readWebhook: (body) => wireListed.safeParse(body).data ?? null,

    async check(signal) {
      const request: ProviderRequest = { ...read, what: "read the account of the token", path: "/account" };
      const { value, serverDate } = await http.send(request, wireAccount, signal);
      return { account: value, serverDate };
    },

    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  };
}

function createOf({ target, input, cancelAfterMs, webhookUrl }: CreateRequest, deadlineMs: number): ProviderRequest {
  const webhook = webhookUrl === undefined ? {} : { webhook: webhookUrl, webhook_events_filter: ["completed"] };
  return {
    what: `create a prediction of ${nameOfTarget(target)}`,
    method: "POST",
    path: pathOfTarget(target),
    headers: cancelAfterMs === undefined ? {} : { "cancel-after": cancelAfter(cancelAfterMs) },
    ...(webhookUrl !== undefined && { secret: webhookUrl }),
    body: target.kind === "version" ? { version: target.version, input, ...webhook } : { input, ...webhook },
    spends: true,
    deadlineMs,
  };
}

function cancelAfter(ms: number): string {
  return String(Math.ceil(Math.min(Math.max(ms, SHORTEST_RUN_MS), LONGEST_RUN_MS) / SECOND));
}

function pathOfList(http: ProviderHttp, query: Parameters<Replicate["list"]>[0]): string {
  if (query.next !== undefined) {
    const path = http.pathOfLink(query.next);
    if (path !== null) return path;
    const detail = "the link to the next page leads away from the provider";
    throw new ProviderError(`could not list predictions: ${detail}; nothing was sent`, { kind: "not-sent", detail });
  }
  const search = new URLSearchParams();
  if (query.after !== undefined) search.set("created_after", query.after);
  if (query.before !== undefined) search.set("created_before", query.before);
  return search.size === 0 ? "/predictions" : `/predictions?${search.toString()}`;
}

/** A link elsewhere is no last page: a list that ends early would prove absences that aren't. */
function nextOf(http: ProviderHttp, next: string): Pick<ListPage, "next"> {
  if (next === "") return {};
  if (http.pathOfLink(next) !== null) return { next };
  throw new ProviderAnswerError("could not list predictions: the next page is on another host", { status: 200 });
}
