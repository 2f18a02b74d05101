/**
 * A provider in memory, for races: it answers its creates as it is told, and keeps the books that say what was bought,
 * by which request, and what became of it. Nothing happens in it by itself: a prediction runs until it was polled so
 * often as it was told, until somebody cancels it, or until `end`.
 */

import type { Prediction, PredictionId, TerminalStatus } from "../../src/core/prediction.ts";
import { type CreateRequest, type Provider, ProviderError } from "../../src/providers/provider.ts";
import { predictionOf } from "../support/stages.ts";

/** What becomes of a create. */
export const CREATE_MODES = ["answered", "answer-lost", "never-arrived", "refused", "not-sent"] as const;
export type CreateMode = (typeof CREATE_MODES)[number];

/** How a prediction ends, if nobody cancels it. */
export const FATES = ["file", "text", "bad-input", "interrupted"] as const;
export type Fate = (typeof FATES)[number];

export type Booked = {
  readonly id: PredictionId;
  readonly request: CreateRequest;
  readonly createdAtMs: number;
  readonly fate: Fate;
  /** Polls that still see it run. */
  pollsLeft: number;
  ended: TerminalStatus | null;
};

export type RaceProvider = Required<Pick<Provider, "create" | "get" | "list" | "cancel">> & {
  /** Every prediction that was ever made, in order. */
  readonly books: readonly Booked[];
  /** Every request that came, those that made none among them. */
  readonly requests: readonly CreateRequest[];
  /** Ends a prediction that still runs; answers it. */
  readonly end: (id: PredictionId) => Prediction;
  /** What its list doesn't show yet. */
  readonly unlisted: Set<PredictionId>;
  /** Happens once, when a prediction has been made and its answer is on the way. */
  meanwhile: ((booked: Booked) => Promise<unknown>) | null;
};

export const OUTPUT_TEXT = "a fox, as bytes";

export function openProvider(
  told: {
    /** For each request in turn; those behind the last one are answered. */
    readonly modes: readonly CreateMode[];
    /** For each prediction in turn; those behind the last one succeed. */
    readonly fates: readonly Fate[];
    readonly polls: readonly number[];
  },
  clock: () => number,
  isEndless: (request: CreateRequest) => boolean,
  onBooked: (booked: Booked) => void,
): RaceProvider {
  const books: Booked[] = [];
  const requests: CreateRequest[] = [];

  function find(id: PredictionId): Booked {
    const booked = books.find((one) => one.id === id);
    if (booked === undefined) throw new ProviderError("no such prediction", { kind: "refused", status: 404 });
    return booked;
  }

  function end(booked: Booked, as: TerminalStatus | null = null): Prediction {
    const own = booked.fate === "file" || booked.fate === "text" ? "succeeded" : "failed";
    booked.ended ??= as ?? own;
    return shown(booked);
  }

  const provider: RaceProvider = {
    books,
    requests,
    unlisted: new Set(),
    meanwhile: null,
    end: (id) => end(find(id)),
    async create(request) {
      const mode = told.modes[requests.length] ?? "answered";
      requests.push(request);
      if (mode === "refused") throw new ProviderError("slow down", { kind: "refused", status: 429, retryAfterMs: 100 });
      if (mode === "not-sent") throw new ProviderError("connect ECONNREFUSED", { kind: "not-sent" });
      if (mode === "never-arrived") throw new ProviderError("the connection broke", { kind: "unknown" });
      const n = books.length;
      const booked: Booked = {
        id: predictionOf(`p${n}`).id,
        request,
        createdAtMs: clock(),
        fate: told.fates[n] ?? "text",
        pollsLeft: isEndless(request) ? Number.POSITIVE_INFINITY : (told.polls[n] ?? 0),
        ended: null,
      };
      books.push(booked);
      onBooked(booked);
      const { meanwhile } = provider;
      provider.meanwhile = null;
      await meanwhile?.(booked);
      if (mode === "answer-lost") throw new ProviderError("the connection broke", { kind: "unknown" });
      return shown(booked);
    },
    async get(id) {
      const booked = find(id);
      if (booked.pollsLeft-- <= 0) end(booked);
      return shown(booked);
    },
    async cancel(id) {
      return end(find(id), "canceled");
    },
    async list({ after = "", before = "" }) {
      const seen = books
        .filter(
          ({ id, createdAtMs: at }) => !provider.unlisted.has(id) && at >= Date.parse(after) && at < Date.parse(before),
        )
        .toReversed();
      return {
        predictions: seen.map(shown),
        inputs: new Map(seen.map(({ id, request }) => [id, request.input])),
        serverDate: new Date(clock()),
      };
    },
  };
  return provider;
}

function shown({ id, createdAtMs, fate, ended }: Booked): Prediction {
  const createdAt = new Date(createdAtMs).toISOString();
  if (ended === null) return predictionOf(id, { status: "processing", createdAt });
  const file = `data:text/plain;base64,${Buffer.from(`${OUTPUT_TEXT} ${id}`).toString("base64")}`;
  return predictionOf(id, {
    status: ended,
    createdAt,
    metrics: { predict_time: 1.5 },
    ...(ended === "succeeded" && { output: fate === "file" ? [file] : `words of ${id}` }),
    ...(ended === "failed" && { error: fate === "interrupted" ? "interrupted (code: PA)" : "the input is bad" }),
  });
}
