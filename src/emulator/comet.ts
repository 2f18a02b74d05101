/**
 * CometAPI's Replicate route, as its documentation describes it: create by model, get by id, and nothing else. What
 * differs from Replicate: the `urls` of a prediction point at Replicate's own hosts, where the caller's key is no use;
 * errors come in an envelope like OpenAI's; a bad input is a 500 with the code `invalid_request`; a path it doesn't
 * know gives a redirect or a page. Its docs name neither headers nor body fields beyond `input`, so those are ignored.
 */

import { hash } from "node:crypto";
import { type Account, spend, tokenIn } from "./accounts.ts";
import { type Answer, html, json, whole } from "./answer.ts";
import type { ApiDeps } from "./api.ts";
import { digestOf } from "./canonical.ts";
import { MODELS } from "./models.ts";
import { parseObject } from "./order.ts";
import { describe, type Prediction } from "./prediction.ts";
import type { Call, Exchange } from "./serve.ts";

type Deps = Pick<ApiDeps, "accounts" | "predictions" | "buying" | "strays" | "links">;

/** `path` comes without its `replicate/v1`. */
export function cometRoute(method: string, path: readonly string[], deps: Deps): Exchange {
  const [kind, a = "", b = "", last] = path;
  if (method === "POST" && kind === "models" && last === "predictions" && path.length === 4) {
    return {
      surface: "comet",
      route: "create",
      refuse,
      answer: (call) =>
        admitted(call, deps, "creates", (account) => createPrediction(account, call, `${a}/${b}`, deps)),
    };
  }
  if (method === "GET" && kind === "predictions" && a !== "" && path.length === 2) {
    return {
      surface: "comet",
      route: "get",
      refuse,
      answer: (call) => admitted(call, deps, "reads", (account) => getPrediction(account, a, deps)),
    };
  }
  return {
    surface: "comet",
    route: "unknown",
    refuse,
    answer: () => (method === "GET" ? html(301, "Moved Permanently", { location: "/" }) : html(404, "Not Found")),
  };
}

function admitted(
  call: Call,
  deps: Deps,
  kind: "creates" | "reads",
  handle: (account: Account) => Answer | Promise<Answer>,
): Answer | Promise<Answer> {
  const key = tokenIn(call.header("authorization"));
  const account = key === null ? undefined : deps.accounts.get(key);
  if (account) return spend(account[kind]).admitted ? handle(account) : refuse(429);
  if (key !== null && deps.strays.isKnown(key)) deps.strays.note("other provider", key);
  return refuse(401);
}

async function createPrediction(account: Account, call: Call, modelName: string, deps: Deps): Promise<Answer> {
  const text = await call.text();
  deps.strays.search("body", text);
  const model = MODELS.get(modelName);
  if (!model) return failure(503, "model_not_found", `No channel serves the model ${modelName}`);
  const body = parseObject(text);
  const input = body?.["input"];
  if (typeof input !== "object" || input === null || Array.isArray(input)) {
    return failure(500, "invalid_request", "input must be an object");
  }
  const [mistake] = model.check(input);
  if (mistake) return failure(500, "invalid_request", `${mistake.field}: ${mistake.description}`);

  const prediction = deps.buying.buy({
    account,
    model,
    version: "hidden",
    deployment: null,
    input: { ...input },
    digest: digestOf({ model: model.fullName, input }),
    webhook: null,
    webhookEvents: null,
    cancelAfterMs: null,
  });
  return json(200, describeForComet(prediction, deps));
}

function getPrediction(account: Account, id: string, deps: Deps): Answer {
  const prediction = deps.predictions.get(account, id);
  // How an unknown id is answered isn't documented.
  return prediction
    ? json(200, describeForComet(prediction, deps))
    : failure(404, "task_not_exist", "No such prediction");
}

function describeForComet(prediction: Prediction, deps: Deps) {
  const { id } = prediction;
  const shown = describe(prediction, deps.links);
  // Documented as an array of strings, or null.
  const output = typeof shown.output === "string" ? [shown.output] : shown.output;
  const own = `https://api.replicate.com/v1/predictions/${id}`;
  return {
    ...shown,
    output,
    urls: {
      cancel: `${own}/cancel`,
      get: own,
      stream: `https://stream.replicate.com/v1/files/${hash("sha256", id, "hex").slice(0, 32)}`,
      web: `https://replicate.com/p/${id}`,
    },
    ...(shown.metrics && {
      metrics: { image_count: Array.isArray(output) ? output.length : 0, predict_time: shown.metrics.predict_time },
    }),
  };
}

function refuse(status: number): Answer {
  switch (status) {
    case 401:
      return failure(401, "invalid_api_key", "Invalid token");
    case 402:
    case 403:
      return failure(status, "insufficient_user_quota", "The balance doesn't cover this request");
    case 429:
      return failure(429, "rate_limit_exceeded", "Too many requests, slow down");
    case 524:
      return html(524, "A timeout occurred");
    default:
      return failure(status, status < 500 ? "invalid_request" : "upstream_error", "The request failed");
  }
}

/** `error.message` ends with the id of the request. */
function failure(status: number, code: string, text: string): Answer {
  const requestId = hash("sha256", `${status} ${code} ${performance.now()}`, "hex").slice(0, 20);
  const error = { message: `${text} (request id: ${requestId})`, type: "comet_api_error", param: "", code };
  return whole(status, "application/json; charset=utf-8", JSON.stringify({ error }));
}
