/**
 * Buys one prediction: once.
 *
 * The provider takes no idempotency key, so the intent is written before the money can be spent: one script claims
 * the item and stores a nonce. Only the holder of that nonce sends, one request, and binds the prediction that the
 * answer names. Who finds another's intent without a prediction sends nothing: the item is `unclear`.
 *
 * If this process dies:
 *   before the claim        nothing has happened; the errand is run again.
 *   after the claim         the next run finds an intent that isn't its own: unclear. Perhaps nothing was bought,
 *                           and nobody guesses.
 *   after the answer        the same: bought, but its id is lost with the process.
 *   after `bind`            the next run finds the prediction and puts it on its way to be followed.
 *   after a give-back       the item waits again; the next run claims it anew.
 */

import type { StoredRow } from "../src/bucket/input-parts.ts";
import { type AttemptRef, errandId } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { firstPollDelayMs, type PollPolicy } from "../src/core/polling.ts";
import type { PredictionId } from "../src/core/prediction.ts";
import type { Ending } from "../src/core/receipt.ts";
import { decideAfterCreate } from "../src/core/retrying.ts";
import { SECOND } from "../src/core/time.ts";
import type { MoveAnswer, MoveOptions } from "../src/ledger/ledger.ts";
import { type Provider, ProviderError } from "../src/providers/provider.ts";
import type { CreateErrand } from "../src/queues/queues.ts";

export type CreateDeps = {
  readonly readRow: (errand: CreateErrand) => Promise<StoredRow>;
  readonly move: (
    ref: AttemptRef,
    step: "claim" | "giveBack" | "doubt" | "bind" | "refuse",
    options: MoveOptions,
  ) => Promise<MoveAnswer>;
  readonly provider: Pick<Provider, "create">;
  readonly pauseAccount: (reason: string) => Promise<void>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  readonly enqueueFollow: (
    ref: AttemptRef,
    prediction: { readonly id: PredictionId; readonly startedAtMs: number },
    delayMs: number,
  ) => Promise<void>;
  readonly enqueueRecord: (ref: AttemptRef) => Promise<void>;
  /** Resolves when an errand taken at that moment may be sent: at once, unless the provider tolerates no burst. */
  readonly waitForTurn: (takenAtMs: number) => Promise<void>;
  readonly nonce: () => string;
  readonly clock: () => number;
  readonly random: () => number;
  readonly policy: PollPolicy;
};

/** An intent older than this, counted from before the claim, isn't acted on: who knows what happened meanwhile. */
const INTENT_FRESH_MS = 5 * SECOND;
/** A create that was sent is heard out, also by a worker that lost its lock or is told to stop: its answer may still be bound. */
const UNTIL_ITS_DEADLINE = new AbortController().signal;

export async function createPrediction(
  errand: CreateErrand,
  deps: CreateDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  const takenAtMs = deps.clock();
  const row = await deps.readRow(errand);

  const nonce = deps.nonce();
  const claimedAtMs = deps.clock();
  const claim = await deps.move(errand, "claim", {
    nowMs: claimedAtMs,
    nonce,
    set: {
      ...(row.id !== undefined && { row_id: row.id }),
      ...(row.reply_to !== undefined && { reply_to: row.reply_to }),
    },
  });
  if (claim.answer !== "moved") return takeUp(errand, claim, deps);

  await deps.waitForTurn(takenAtMs);
  const intentAgeMs = deps.clock() - claimedAtMs;
  // Below zero the clock was set, and nobody knows how old it is.
  if (intentAgeMs > INTENT_FRESH_MS || intentAgeMs < 0 || signal.aborted) {
    await deps.move(errand, "giveBack", { nowMs: deps.clock(), nonce });
    return { kind: "snooze", untilMs: deps.clock() + SECOND };
  }

  try {
    const { id } = await deps.provider.create(
      { target: row.target, input: row.input, cancelAfterMs: deps.policy.deadlineMs },
      UNTIL_ITS_DEADLINE,
    );
    return await follow(errand, { id, startedAtMs: claimedAtMs }, nonce, deps);
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    return await settle(errand, error, nonce, deps);
  }
}

/** The answer is here: bind it, even if somebody called the item unclear meanwhile. */
async function follow(
  ref: AttemptRef,
  prediction: { readonly id: PredictionId; readonly startedAtMs: number },
  nonce: string,
  deps: CreateDeps,
): Promise<StageOutcome> {
  const bound = await deps.move(ref, "bind", { nowMs: deps.clock(), nonce, predictionId: prediction.id });
  if (bound.answer === "lost") {
    return {
      kind: "unrecoverable",
      reason: `prediction ${prediction.id} was bought for ${errandId(ref)}, which is ${bound.state} by now`,
    };
  }
  await deps.enqueueFollow(ref, prediction, firstPollDelayMs(deps.random(), deps.policy));
  return DONE;
}

/** The request gave no prediction. What that means is decided in one table. */
async function settle(ref: AttemptRef, error: ProviderError, nonce: string, deps: CreateDeps): Promise<StageOutcome> {
  const decision = decideAfterCreate(error, deps.random());
  const nowMs = deps.clock();
  switch (decision.kind) {
    case "again":
      await deps.move(ref, "giveBack", { nowMs, nonce });
      return { kind: "snooze", untilMs: nowMs + decision.afterMs };
    case "slow-down":
      await deps.move(ref, "giveBack", { nowMs, nonce });
      return { kind: "rate-limit", forMs: decision.forMs };
    case "pause-account":
      await deps.pauseAccount(decision.reason);
      await deps.move(ref, "giveBack", { nowMs, nonce, handBack: true });
      return DONE;
    case "fail": {
      const ending: Ending = { end: "failed", error: decision.reason, answer: null, copied: [] };
      const refused = await deps.move(ref, "refuse", {
        nowMs,
        nonce,
        set: { ending: await deps.keepEnding(ref, ending) },
      });
      if (refused.answer !== "lost") await deps.enqueueRecord(ref);
      return DONE;
    }
    case "unclear":
      await deps.move(ref, "doubt", { nowMs, nonce });
      return DONE;
    default:
      return decision satisfies never;
  }
}

/** Somebody has been here: an earlier run of this errand that died, or another worker. Carry on from where it stands. */
async function takeUp(ref: AttemptRef, claim: MoveAnswer, deps: CreateDeps): Promise<StageOutcome> {
  const nowMs = deps.clock();
  if (claim.state === "claimed") {
    await deps.move(ref, "doubt", { nowMs });
  } else if (claim.state === "running" && claim.predictionId !== null) {
    await deps.enqueueFollow(
      ref,
      { id: claim.predictionId, startedAtMs: claim.intentAtMs ?? nowMs },
      firstPollDelayMs(deps.random(), deps.policy),
    );
  } else if (claim.state === "recording") {
    await deps.enqueueRecord(ref);
  }
  return DONE;
}
