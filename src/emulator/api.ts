/**
 * Replicate's HTTP API, the part of it that running predictions takes. Paths, statuses and bodies follow the published
 * OpenAPI document, the docs pages on predictions, and recorded traffic; where those are silent a comment says so.
 */

import { type Account, spend, tokenIn } from "./accounts.ts";
import { type Answer, json, problem, refusal, throttled, whole } from "./answer.ts";
import type { Buying } from "./buying.ts";
import { digestOf } from "./canonical.ts";
import { parseCancelAfter, parsePrefer } from "./headers.ts";
import { asListed, type ListRules, listable } from "./listed.ts";
import { microsOf, page } from "./listing.ts";
import type { Model } from "./model.ts";
import { MODELS } from "./models.ts";
import { readCreateBody, refuse } from "./order.ts";
import { describe, isTerminal, type Links, type Prediction } from "./prediction.ts";
import type { Predictions } from "./predictions.ts";
import type { Call, Exchange } from "./serve.ts";
import type { StrayTokens } from "./stray-tokens.ts";

export type ApiDeps = {
  /** By token. */
  readonly accounts: ReadonlyMap<string, Account>;
  readonly predictions: Predictions;
  readonly buying: Buying;
  readonly strays: StrayTokens;
  readonly links: Links;
  readonly webhookSecret: string;
  readonly retryAfterHeader: boolean;
  readonly seed: string;
  readonly list: ListRules;
};

type Handler = (account: Account, call: Call, deps: ApiDeps) => Answer | Promise<Answer>;

/** `path` comes without its `v1`. */
export function replicateRoute(method: string, path: readonly string[], deps: ApiDeps): Exchange {
  const [kind = "", a = "", b = "", c] = path;
  switch (`${method} ${shapeOf(path)}`) {
    case "POST predictions":
      return creating(deps, null, null);
    case "POST models/*/*/predictions":
      return creating(deps, `${a}/${b}`, null);
    case "POST deployments/*/*/predictions":
      return creating(deps, `${a}/${b}`, `${a}/${b}`);
    case "GET predictions":
      return reading(deps, "list", listPredictions);
    case "GET predictions/*":
      return reading(deps, "get", (account) => withPrediction(account, a, deps, () => undefined));
    case "POST predictions/*/cancel":
      return reading(deps, "cancel", (account) =>
        withPrediction(account, a, deps, (prediction) => deps.predictions.cancel(prediction)),
      );
    case "GET account":
      return reading(deps, "account", (account) =>
        json(200, {
          type: "organization",
          username: account.name,
          name: account.name,
          github_url: null,
          avatar_url: null,
        }),
      );
    case "GET webhooks/default/secret":
      return reading(deps, "webhook secret", () => json(200, { key: deps.webhookSecret }));
    case "GET models/*/*":
      return reading(deps, "model", () => withModel(a, b, (model) => describeModel(model, deps.links)));
    case "GET models/*/*/versions":
      return reading(deps, "versions", () =>
        withModel(a, b, (model) => ({ next: null, previous: null, results: [describeVersion(model)] })),
      );
    case "GET models/*/*/versions/*":
      return reading(deps, "version", () =>
        withModel(a, b, (model) => (path[4] === model.versionId ? describeVersion(model) : null)),
      );
    default:
      return reading(deps, "unknown", () => notFound(`${method} /${[kind, a, b, c].filter(Boolean).join("/")}`));
  }
}

/** The path with ids and names taken out. */
function shapeOf(path: readonly string[]): string {
  const named = path[0] === "predictions" ? [1] : path[0] === "models" || path[0] === "deployments" ? [1, 2, 4] : [];
  return path.map((part, index) => (named.includes(index) && part !== "" ? "*" : part)).join("/");
}

function creating(deps: ApiDeps, modelName: string | null, deployment: string | null): Exchange {
  return {
    surface: "replicate",
    route: "create",
    refuse: (status) => refusal(status, deps.retryAfterHeader),
    answer: (call) =>
      admitted(call, deps, "creates", (account) => createPrediction(account, call, deps, modelName, deployment)),
  };
}

function reading(deps: ApiDeps, route: string, handler: Handler): Exchange {
  return {
    surface: "replicate",
    route,
    refuse: (status) => refusal(status, deps.retryAfterHeader),
    answer: (call) => admitted(call, deps, "reads", (account) => handler(account, call, deps)),
  };
}

/** Who asks, and may they now? */
async function admitted(
  call: Call,
  deps: ApiDeps,
  kind: "creates" | "reads",
  handle: (account: Account) => Answer | Promise<Answer>,
): Promise<Answer> {
  const token = tokenIn(call.header("authorization"));
  if (token === null) {
    const detail = "You did not pass an authentication token"; // captured without title and status
    return whole(401, "application/problem+json", JSON.stringify({ detail }));
  }
  const account = deps.accounts.get(token);
  if (!account) {
    if (deps.strays.isKnown(token)) deps.strays.note("other provider", token);
    return problem({ title: "Unauthenticated", detail: "You did not pass a valid authentication token", status: 401 });
  }
  const verdict = spend(account[kind]);
  const answer = verdict.admitted
    ? await handle(account)
    : throttled(verdict.resetMs, account[kind].limit.perMinute, deps.retryAfterHeader);
  if (verdict.remaining === Infinity) return answer;
  const limits = {
    "ratelimit-remaining": String(verdict.remaining),
    "ratelimit-reset": String(Math.ceil(verdict.resetMs / 1_000)),
  };
  return { ...answer, headers: { ...answer.headers, ...limits } };
}

async function createPrediction(
  account: Account,
  call: Call,
  deps: ApiDeps,
  modelName: string | null,
  deployment: string | null,
): Promise<Answer> {
  const text = await call.text();
  deps.strays.search("body", text);
  const model = modelName === null ? null : MODELS.get(modelName);
  if (model === undefined) return notFound(modelName ?? "");
  const reading = readCreateBody(text, model);
  if (reading.kind === "refused") return reading.answer;

  const cancelAfter = parseCancelAfter(call.header("cancel-after"));
  if (cancelAfter !== null && "mistake" in cancelAfter) {
    return refuse([{ type: "invalid_header", field: "", description: cancelAfter.mistake }]).answer;
  }

  const { body } = reading;
  const prediction = deps.buying.buy({
    account,
    ...body,
    version: deployment === null ? body.version : body.model.versionId,
    deployment,
    digest: digestOf({ model: body.model.fullName, input: body.input }),
    cancelAfterMs: cancelAfter?.ms ?? null,
  });
  return answerCreate(prediction, call, deps);
}

/**
 * Without `Prefer: wait`, at once. With it, when the prediction ends or the hold expires. A held create that got its
 * files was recorded with status `processing` and all outputs there; one whose hold expired shows where it stands.
 */
async function answerCreate(prediction: Prediction, call: Call, deps: ApiDeps): Promise<Answer> {
  const location = { location: `${deps.links.apiUrl}/predictions/${prediction.id}` };
  const prefer = parsePrefer(call.header("prefer"));
  if (prefer === null) return json(201, describe(prediction, deps.links), location);

  await deps.predictions.waitForEnd(prediction, prefer.holdMs, call.gone);
  const headers = { ...location, "preference-applied": prefer.applied };
  if (!isTerminal(prediction.status)) return json(202, describe(prediction, deps.links), headers);
  const madeFiles =
    prediction.status === "succeeded" && prediction.model.files(prediction.input, prediction.digest).length > 0;
  return json(201, describe(prediction, deps.links, madeFiles ? "finishing" : "now"), headers);
}

function withPrediction(account: Account, id: string, deps: ApiDeps, act: (prediction: Prediction) => void): Answer {
  const prediction = deps.predictions.get(account, id);
  if (!prediction) return notFound("prediction");
  act(prediction);
  return json(200, describe(prediction, deps.links));
}

function listPredictions(account: Account, call: Call, deps: ApiDeps): Answer {
  const query = call.url.searchParams;
  const afterUs = microsOf(query.get("created_after") ?? "1970-01-01");
  const beforeUs = microsOf(query.get("created_before") ?? "9999-01-01");
  const source = query.get("source");
  // How these are refused isn't documented.
  if (afterUs === null) return problem({ detail: "created_after isn't an ISO 8601 date-time", status: 422 });
  if (beforeUs === null) return problem({ detail: "created_before isn't an ISO 8601 date-time", status: 422 });
  if (source !== null && source !== "web") return problem({ detail: "source can only be web", status: 422 });

  const { list, seed } = deps;
  // All of ours come by the API.
  const created = source === "web" ? [] : listable(account.predictions, list, seed, Date.now());
  const found = page(created, { afterUs, beforeUs }, query.get("cursor"));
  if (found === null) return problem({ detail: "Invalid cursor", status: 404 });
  const link = (cursor: string | null): string | null => {
    if (cursor === null) return null;
    const linked = new URLSearchParams(query);
    linked.set("cursor", cursor);
    return `${deps.links.apiUrl}/predictions?${linked.toString()}`;
  };
  return json(200, {
    previous: link(found.previous),
    next: link(found.next),
    results: asListed(
      found.predictions.map((prediction) => describe(prediction, deps.links)),
      list,
      seed,
    ),
  });
}

function withModel(owner: string, name: string, show: (model: Model) => unknown): Answer {
  const model = MODELS.get(`${owner}/${name}`);
  const shown = model ? show(model) : null;
  return shown === null ? notFound("model") : json(200, shown);
}

function describeModel(model: Model, links: Links) {
  return {
    url: `${new URL(links.apiUrl).origin}/${model.fullName}`,
    owner: model.owner,
    name: model.name,
    description: model.description,
    visibility: "public",
    github_url: null,
    paper_url: null,
    license_url: null,
    run_count: 0,
    cover_image_url: null,
    default_example: null,
    latest_version: describeVersion(model),
  };
}

function describeVersion(model: Model) {
  return {
    id: model.versionId,
    created_at: "2026-01-01T00:00:00.000000Z",
    cog_version: "0.22.0",
    openapi_schema: model.openapiSchema,
  };
}

function notFound(what: string): Answer {
  return problem({ detail: `The requested resource could not be found: ${what}`, status: 404 });
}
