/**
 * A provider whose answers teach its account's gate: every process of the fleet knows of a refusal, and of a provider that
 * is down, whoever met it. Cancels and lists take from the reads that are left beside polls, and aren't sent where there
 * are none. What is asked and what comes back stays as it is.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { pauseAfter429 } from "../core/retrying.ts";
import { SECOND } from "../core/time.ts";
import type { Limited } from "../ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";
import type { AccountGate } from "./account-gate.ts";

/** A request that wasn't sent, and may be soon. */
export class NoReadLeft extends ProviderError {
  readonly waitMs: number;

  constructor(request: Request, waitMs: number) {
    const detail = "the account may not read for the moment";
    super(`could not ${request}: ${detail}; nothing was sent`, { kind: "not-sent", detail, retryAfterMs: waitMs });
    this.waitMs = waitMs;
  }
}

type Request = "create" | "get" | "list" | "cancel";

export function gatedProvider<P extends Provider>(provider: P, gate: AccountGate): P {
  const { list, cancel } = provider;
  async function askBesidePolls<T>(request: Request, send: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const waitMs = await gate.takeRead();
    if (waitMs > 0) throw new NoReadLeft(request, waitMs);
    return ask(request, send, gate, signal);
  }
  return {
    ...provider,
    create: (request, signal) => ask("create", () => provider.create(request, signal), gate, signal),
    get: (id, signal) => ask("get", () => provider.get(id, signal), gate, signal),
    ...(list !== undefined && {
      list: ((query, signal) => askBesidePolls("list", () => list(query, signal), signal)) satisfies Provider["list"],
    }),
    ...(cancel !== undefined && {
      cancel: ((id, signal) => askBesidePolls("cancel", () => cancel(id, signal), signal)) satisfies Provider["cancel"],
    }),
  };
}

type BesidePolls = Pick<Provider, "list" | "cancel">;

/** The list and the cancel of a provider behind a gate, for who can wait until a read is left: for so long at most. */
export function patiently({ list, cancel }: BesidePolls, forMs = Number.POSITIVE_INFINITY): BesidePolls {
  return {
    ...(list !== undefined && {
      list: ((query, signal) => inTurn(() => list(query, signal), forMs, signal)) satisfies Provider["list"],
    }),
    ...(cancel !== undefined && {
      cancel: ((id, signal) => inTurn(() => cancel(id, signal), forMs, signal)) satisfies Provider["cancel"],
    }),
  };
}

/** Its list for a stage, which asks nothing while polls may not: since the provider asked to wait, or seems to be down. */
export function whilePollsMay(
  { list }: Pick<Provider, "list">,
  gate: Pick<AccountGate, "enter">,
): Pick<Provider, "list"> {
  if (list === undefined) return {};
  return {
    async list(query, signal) {
      const pass = await gate.enter("reads");
      if (pass.waitMs > 0) throw new NoReadLeft("list", pass.waitMs);
      try {
        return await list(query, signal);
      } finally {
        await pass.leave();
      }
    },
  };
}

async function inTurn<T>(send: () => Promise<T>, forMs: number, signal: AbortSignal): Promise<T> {
  for (let leftMs = forMs; ; ) {
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof NoReadLeft) || error.waitMs > leftMs) throw error;
      const pauseMs = Math.min(error.waitMs, SECOND);
      await sleep(pauseMs);
      if (signal.aborted) throw error;
      leftMs -= pauseMs;
    }
  }
}

async function ask<T>(request: Request, send: () => Promise<T>, gate: AccountGate, signal: AbortSignal): Promise<T> {
  const of = request === "create" ? "creates" : "reads";
  // What it teaches must neither delay nor lose what was answered: that may be paid for.
  const unheard = () => undefined;
  try {
    const answer = await send();
    learn(request, of, null, gate, signal).catch(unheard);
    return answer;
  } catch (error) {
    if (error instanceof ProviderError || error instanceof ProviderAnswerError) {
      await learn(request, of, error, gate, signal).catch(unheard);
    }
    throw error;
  }
}

async function learn(
  request: Request,
  of: Limited,
  error: ProviderError | ProviderAnswerError | null,
  gate: AccountGate,
  signal: AbortSignal,
): Promise<void> {
  gate.count(`${request} ${outcomeOf(error)}`);
  if (error === null) return gate.answered(of);
  if (error instanceof ProviderAnswerError) return; // whoever answered, it needn't be the provider
  if (error.status === 429) return gate.refused(of, { forMs: pauseAfter429(error), said: error.detail });
  if (error.status !== null && error.status < 500) return gate.answered(of);
  // Nobody else is to blame where this process stopped the request, or could make none of it.
  if (signal.aborted || error.kind === "refused") return;
  return gate.unanswered(of, error.status === null ? error.detail : `${error.status}: ${error.detail}`);
}

function outcomeOf(error: ProviderError | ProviderAnswerError | null): string {
  if (error === null) return "ok";
  if (error instanceof ProviderAnswerError) return "unreadable";
  if (error.status !== null) return String(error.status);
  return error.kind === "not-sent" ? "not_sent" : error.kind === "refused" ? "impossible" : "unanswered";
}
