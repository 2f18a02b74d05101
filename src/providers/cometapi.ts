/**
 * CometAPI's copy of Replicate's API: create for models, and get. Nothing else of it is documented there: no list, no
 * cancel, no webhooks, no deadline, no version or deployment form. So `cancelAfterMs` and `webhookUrl` aren't sent.
 *
 * Predictions are asked for by base and id. The `urls` in its answers are Replicate's own, where its key is worth
 * nothing and must not go. Source: apidoc.cometapi.com, create and query predictions, 2026; the wrapped form of the
 * query's answer from a public script, hence tolerated rather than expected. Failures: see `http.ts`.
 */

import { z } from "zod";
import type { Prediction } from "../core/prediction.ts";
import { SECOND } from "../core/time.ts";
import { ProviderHttp, type ProviderRequest } from "./http.ts";
import { type Provider, ProviderError } from "./provider.ts";
import { nameOfTarget, pathOfTarget } from "./target-path.ts";
import { wirePrediction } from "./wire.ts";

export type CometApiSettings = {
  /** `https://api.cometapi.com/replicate/v1` */
  readonly baseUrl: string;
  readonly key: string;
  /** Default 30 s. */
  readonly createDeadlineMs?: number;
  /** Default 90 s: its own page tells of a query that hadn't answered after 45 s. */
  readonly readDeadlineMs?: number;
  /** Kept-alive connections for reads; default 64, since a slow answer holds one. */
  readonly connections?: number;
};

export type CometApi = Pick<Provider, "targets" | "create" | "get"> & AsyncDisposable;

export const COMETAPI_TARGETS: Provider["targets"] = new Set(["model"] as const);

export function createCometApi(settings: CometApiSettings): CometApi {
  const { baseUrl, key, createDeadlineMs = 30 * SECOND, readDeadlineMs = 90 * SECOND, connections = 64 } = settings;
  const http = new ProviderHttp({ baseUrl, token: key, connections });

  return {
    targets: COMETAPI_TARGETS,

    async create({ target, input }, signal) {
      const what = `create a prediction of ${nameOfTarget(target)}`;
      if (target.kind !== "model") {
        const detail = `CometAPI's route has no form for a ${target.kind}`;
        throw new ProviderError(`could not ${what}: ${detail}; nothing was sent`, { kind: "refused", detail });
      }
      const request: ProviderRequest = {
        what,
        method: "POST",
        path: pathOfTarget(target),
        body: { input },
        spends: true,
        deadlineMs: createDeadlineMs,
      };
      return (await http.send(request, cometPrediction, signal)).value;
    },

    async get(id, signal) {
      const request: ProviderRequest = {
        what: `get prediction ${id}`,
        method: "GET",
        path: `/predictions/${id}`,
        spends: false,
        deadlineMs: readDeadlineMs,
      };
      try {
        const { value } = await http.send(request, cometPrediction, signal);
        return { ...value, id }; // what was asked for; a wrapped prediction may bear its upstream id
      } catch (error) {
        throw error instanceof ProviderError && willStay(error) ? asRefusal(error) : error;
      }
    },

    [Symbol.asyncDispose]: () => http[Symbol.asyncDispose](),
  };
}

/** "Don't retry a 500 whose code is invalid_request", says its page on errors. For a create that proves nothing. */
function willStay(error: ProviderError): boolean {
  return error.status === 500 && error.code === "invalid_request";
}

function asRefusal({ message, status, detail, code }: ProviderError): ProviderError {
  return new ProviderError(message, { kind: "refused", status, detail, code });
}

const record = z.record(z.string(), z.unknown());

/** Replicate's object, or that object under `data.data` with the wrapper's own status beside it. */
const cometPrediction = z.unknown().transform((answer, context): Prediction => {
  const read = wirePrediction.safeParse(unwrapped(answer));
  if (read.success) return read.data;
  context.issues.push({ code: "custom", message: z.prettifyError(read.error), input: answer });
  return z.NEVER;
});

const WRAPPER_STATUSES: Readonly<Record<string, Prediction["status"]>> = {
  NOT_START: "starting",
  SUBMITTED: "starting",
  QUEUED: "starting",
  IN_PROGRESS: "processing",
  SUCCESS: "succeeded",
  FAILURE: "failed",
};

function unwrapped(answer: unknown): unknown {
  const outer = record.safeParse(answer).data;
  if (outer === undefined || "id" in outer) return answer;
  const task = record.safeParse(outer["data"]).data;
  if (task === undefined) return answer;
  const prediction = record.safeParse(task["data"]).data ?? {};
  return {
    ...prediction,
    id: prediction["id"] ?? task["task_id"] ?? task["id"],
    status: mergedStatus(prediction, task["status"]),
    error: prediction["error"] ?? (task["fail_reason"] || null),
  };
}

/** The prediction's own word counts, unless only the wrapper knows that it is over. */
function mergedStatus(prediction: Readonly<Record<string, unknown>>, wrapperWord: unknown): unknown {
  const own = prediction["status"];
  const wrapper = typeof wrapperWord === "string" ? (WRAPPER_STATUSES[wrapperWord] ?? wrapperWord) : undefined;
  const stillRuns = own === undefined || own === "starting" || own === "processing";
  const isOver = wrapper === "failed" || (wrapper === "succeeded" && (prediction["output"] ?? null) !== null);
  return stillRuns && (own === undefined || isOver) ? wrapper : own;
}
