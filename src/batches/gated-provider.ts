/**
 * A provider whose answers teach its account's gate: every process of the fleet knows of a refusal, and of a provider that
 * is down, whoever met it. A cancel takes from the reads that are left beside polls, and isn't sent where there are none.
 * What is asked and what comes back stays as it is.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { pauseAfter429 } from "../core/retrying.ts";
import { SECOND } from "../core/time.ts";
import type { Limited } from "../ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";
import type { AccountGate } from "./account-gate.ts";

/** A cancel that wasn't sent, and may be soon. */
export class NoReadLeft extends ProviderError {
  constructor(retryAfterMs: number) {
    const detail = "the account's reads beside polls are used up for the moment";
    super(`could not cancel: ${detail}; nothing was sent`, { kind: "not-sent", detail, retryAfterMs });
  }
}

type Request = "create" | "get" | "list" | "cancel";

export function gatedProvider<P extends Provider>(provider: P, gate: AccountGate): P {
  const { list, cancel } = provider;
  return {
    ...provider,
    create: (request, signal) => ask("create", () => provider.create(request, signal), gate, signal),
    get: (id, signal) => ask("get", () => provider.get(id, signal), gate, signal),
    ...(list !== undefined && {
      list: ((query, signal) => ask("list", () => list(query, signal), gate, signal)) satisfies Provider["list"],
    }),
    ...(cancel !== undefined && {
      cancel: (async (id, signal) => {
        const waitMs = await gate.takeRead();
        if (waitMs > 0) throw new NoReadLeft(waitMs);
        return ask("cancel", () => cancel(id, signal), gate, signal);
      }) satisfies Provider["cancel"],
    }),
  };
}

/** Waits until one of the reads beside polls is left, and takes it. */
export async function untilRead(gate: Pick<AccountGate, "takeRead">, signal: AbortSignal): Promise<void> {
  for (let waitMs = await gate.takeRead(); waitMs > 0; waitMs = await gate.takeRead()) {
    await sleep(Math.min(waitMs, SECOND), undefined, { signal });
  }
}

/** The cancel of a provider behind a gate, for what is canceled once: it waits until a read is left. */
export function patiently({ cancel }: Pick<Provider, "cancel">): Pick<Provider, "cancel"> {
  if (cancel === undefined) return {};
  return {
    async cancel(id, signal) {
      for (;;) {
        try {
          return await cancel(id, signal);
        } catch (error) {
          if (!(error instanceof NoReadLeft)) throw error;
          await sleep(Math.min(error.retryAfterMs ?? 0, SECOND));
          if (signal.aborted) throw error;
        }
      }
    },
  };
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
