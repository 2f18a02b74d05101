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
 *   after a cancel          the next run finds the item canceled. It ended without a receipt, and nobody is told.
 *
 * What a person canceled, or whose own deadline has passed, before it was bought ends here, unbought.
 */

import { claimFields } from "../src/batches/claim-fields.ts";
import { CANCELED_BY_A_PERSON, type Withdrawal } from "../src/batches/withdraw-item.ts";
import type { StoredRow } from "../src/bucket/input-parts.ts";
import type { ItemByte } from "../src/core/item.ts";
import { type AccountName, type AttemptRef, errandId } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { type Expectation, nextPoll, type PollPolicy } from "../src/core/polling.ts";
import type { PredictionId } from "../src/core/prediction.ts";
import type { Ending } from "../src/core/receipt.ts";
import { decideAfterCreate } from "../src/core/retrying.ts";
import { modelOf } from "../src/core/run-times.ts";
import { SECOND } from "../src/core/time.ts";
import type { MoveAnswer, MoveOptions } from "../src/ledger/ledger.ts";
import { type Provider, ProviderError } from "../src/providers/provider.ts";
import type { BoughtPrediction, CreateErrand } from "../src/queues/queues.ts";

export type CreateDeps = {
  readonly readRow: (errand: CreateErrand) => Promise<StoredRow>;
  readonly move: (
    ref: AttemptRef,
    step: "claim" | "giveBack" | "doubt" | "bind" | "adopt" | "refuse",
    options: MoveOptions,
  ) => Promise<MoveAnswer>;
  /** Ends an item that waits and is never to be bought; where it ended so already, does what follows its end. */
  readonly withdraw: (ref: AttemptRef, row: StoredRow, why: Withdrawal) => Promise<MoveAnswer>;
  readonly provider: Pick<Provider, "create">;
  /** Where the provider is to report the end; null: nowhere, since it can't, or since it couldn't reach us there. */
  readonly webhookFor: (ref: AttemptRef, nonce: string) => string | null;
  readonly pauseAccount: (reason: string) => Promise<void>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  readonly enqueueFollow: (ref: AttemptRef, prediction: BoughtPrediction, delayMs: number) => Promise<void>;
  /** When to expect the end of a prediction, and whether something else tells of it. `model`: null where it isn't known. */
  readonly expect: (model: string | null, told: boolean) => Promise<Expectation>;
  /**
   * The prediction was bought for an attempt that holds another: it is noted, shown, and canceled if it still runs. Its
   * own, which a webhook told before the answer came and which has ended since, is left as it is.
   */
  readonly bookDuplicate: (ref: AttemptRef, prediction: PredictionId) => Promise<void>;
  /** Whether Redis is the one that the account's items are bought on, with all that was told to it. */
  readonly isOpen: (account: AccountName) => Promise<boolean>;
  readonly readItem: (ref: AttemptRef) => Promise<ItemByte>;
  readonly pause: (ms: number) => Promise<unknown>;
  readonly warn: (fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly enqueueRecord: (ref: AttemptRef) => Promise<void>;
  readonly enqueueNotify: (ref: AttemptRef, event: "start") => Promise<void>;
  readonly enqueueFinish: (ref: AttemptRef) => Promise<void>;
  /** Resolves when an errand taken at that moment may be sent: at once, unless the provider tolerates no burst. */
  readonly waitForTurn: (takenAtMs: number) => Promise<void>;
  readonly nonce: () => string;
  readonly clock: () => number;
  readonly random: () => number;
  readonly policy: PollPolicy;
};

/** A claim in hand. */
type Intent = { readonly ref: AttemptRef; readonly row: StoredRow; readonly nonce: string };

/** `model`: what it runs, as the provider says; null where nobody asked it. */
type BoundPrediction = BoughtPrediction & { readonly model: string | null };

/** An intent older than this, counted from before the claim, isn't acted on: who knows what happened meanwhile. */
const INTENT_FRESH_MS = 5 * SECOND;
/** So many seconds an answer waits for a Redis that is put right. */
const BIND_TRIES = 60;
/**
 * A create that was sent is heard out, also by a worker that lost its lock or is told to stop: its answer may still be
 * bound.
 */
const UNTIL_ITS_DEADLINE = new AbortController().signal;

export async function createPrediction(
  errand: CreateErrand,
  deps: CreateDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  const takenAtMs = deps.clock();
  const row = await deps.readRow(errand);
  const deadlineAtMs = deadlineOf(row);
  if (deadlineAtMs !== null && deadlineAtMs <= takenAtMs) {
    const error = `its deadline (${row.deadline}) passed before it was bought`;
    const withdrawn = await deps.withdraw(errand, row, { as: "aborted", error });
    if (withdrawn.answer === "unopened") return untilOpened(deps);
    return withdrawn.answer === "lost" ? takeUp(errand, withdrawn, row, deps) : DONE;
  }

  const nonce = deps.nonce();
  const claimedAtMs = deps.clock();
  const claim = await deps.move(errand, "claim", {
    nowMs: claimedAtMs,
    nonce,
    set: claimFields(row),
  });
  if (claim.answer === "unopened") return untilOpened(deps);
  if (claim.answer !== "moved") return takeUp(errand, claim, row, deps);

  const intent: Intent = { ref: errand, row, nonce };
  await deps.waitForTurn(takenAtMs);
  const nowMs = deps.clock();
  const intentAgeMs = nowMs - claimedAtMs;
  const leftMs = deadlineAtMs === null ? Number.POSITIVE_INFINITY : deadlineAtMs - nowMs;
  // Below zero the clock was set, and nobody knows how old it is.
  if (intentAgeMs > INTENT_FRESH_MS || intentAgeMs < 0 || leftMs <= 0 || signal.aborted) {
    return giveBack(intent, { kind: "snooze", untilMs: nowMs + SECOND }, deps);
  }

  try {
    const webhookUrl = deps.webhookFor(errand, nonce);
    const prediction = await deps.provider.create(
      {
        target: row.target,
        input: row.input,
        cancelAfterMs: Math.min(deps.policy.deadlineMs, leftMs),
        ...(webhookUrl !== null && { webhookUrl }),
      },
      UNTIL_ITS_DEADLINE,
    );
    const { id } = prediction;
    const bound = { id, startedAtMs: claimedAtMs, deadlineAtMs, told: webhookUrl !== null, model: modelOf(prediction) };
    return await bindAnswer(intent, bound, deps);
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    return await settle(intent, error, deps);
  }
}

/** Redis may have lost what was bought: the feed finds out, and nothing is sent before. */
function untilOpened({ clock }: CreateDeps): StageOutcome {
  return { kind: "snooze", untilMs: clock() + SECOND };
}

/** The answer is here: bind it, even if somebody called the item unclear meanwhile. */
async function bindAnswer(
  { ref, row, nonce }: Intent,
  prediction: BoundPrediction,
  deps: CreateDeps,
): Promise<StageOutcome> {
  const bound = await bindPatiently({ ref, row, nonce }, prediction.id, deps);
  if (bound === null) return DONE;
  if (bound.answer === "taken") {
    // By a twin, which the list couldn't tell from this one: now nobody knows of this one.
    await deps.move(ref, "doubt", { nowMs: deps.clock(), nonce });
    return DONE;
  }
  if (bound.answer === "lost") {
    await bookPatiently(ref, prediction.id, deps);
    return DONE;
  }
  return putOnItsWay(ref, prediction, row, deps);
}

/**
 * Redis may have been emptied, or set back, since the request left: then it doesn't know the batch, or the attempt, until
 * the account is open again. Null: it didn't in time; the answer is told, and the sweep finds its prediction.
 */
async function bindPatiently(
  { ref, row, nonce }: Intent,
  predictionId: PredictionId,
  deps: CreateDeps,
): Promise<MoveAnswer | null> {
  const bought = { item: errandId(ref), prediction: predictionId };
  for (let tried = 1; ; tried++) {
    try {
      const known = { nowMs: deps.clock(), predictionId };
      let bound = await deps.move(ref, "bind", { ...known, nonce });
      // The intent is gone, since somebody took this answer for lost: it is the attempt's all the same, if that has none.
      if (bound.answer === "lost") bound = await deps.move(ref, "adopt", { ...known, set: claimFields(row) });
      if (bound.answer !== "lost" || (await isSurely(ref, deps))) return bound;
    } catch (err) {
      if (tried === BIND_TRIES) {
        deps.warn({ ...bought, err }, "a bought prediction couldn't be bound to its item");
        throw err;
      }
    }
    if (tried === BIND_TRIES) {
      deps.warn(bought, "a bought prediction's item isn't known here yet");
      return null;
    }
    await deps.pause(SECOND);
  }
}

/** Nobody else knows of it: this errand, run again, wouldn't either. */
async function bookPatiently(ref: AttemptRef, prediction: PredictionId, deps: CreateDeps): Promise<void> {
  for (let tried = 1; ; tried++) {
    try {
      return await deps.bookDuplicate(ref, prediction);
    } catch (err) {
      if (tried === BIND_TRIES) {
        deps.warn({ item: errandId(ref), prediction, err }, "a prediction was bought twice, and couldn't be booked");
        throw err;
      }
    }
    await deps.pause(SECOND);
  }
}

/** Whether Redis has lost nothing of the attempt: what it says of it stands. */
async function isSurely(ref: AttemptRef, deps: CreateDeps): Promise<boolean> {
  return (await deps.isOpen(ref.account)) && (await deps.readItem(ref)).attempt >= ref.attempt;
}

async function putOnItsWay(
  ref: AttemptRef,
  { model, ...prediction }: BoundPrediction,
  row: StoredRow,
  deps: CreateDeps,
): Promise<StageOutcome> {
  const expected = await deps.expect(model, prediction.told === true);
  const nowMs = deps.clock();
  const first = nextPoll(prediction.startedAtMs, nowMs, deps.random(), expected, deps.policy);
  await deps.enqueueFollow(ref, prediction, first.kind === "poll" ? first.atMs - nowMs : 0);
  if (row.webhook?.events.includes("start") === true) await deps.enqueueNotify(ref, "start");
  return DONE;
}

/** The claim is given back - unless a person canceled the item meanwhile: then it has ended, and its errand too. */
async function giveBack(
  { ref, row, nonce }: Intent,
  outcome: StageOutcome,
  deps: CreateDeps,
  options: Pick<MoveOptions, "handBack"> = {},
): Promise<StageOutcome> {
  const given = await deps.move(ref, "giveBack", { nowMs: deps.clock(), nonce, ...options });
  if (given.answer !== "canceled") return outcome;
  await deps.withdraw(ref, row, CANCELED_BY_A_PERSON);
  return DONE;
}

/** The request gave no prediction. What that means is decided in one table. */
async function settle(intent: Intent, error: ProviderError, deps: CreateDeps): Promise<StageOutcome> {
  const { ref, nonce } = intent;
  const decision = decideAfterCreate(error, deps.random());
  const nowMs = deps.clock();
  switch (decision.kind) {
    case "again":
      return giveBack(intent, { kind: "snooze", untilMs: nowMs + decision.afterMs }, deps);
    case "slow-down":
      await giveBack(intent, DONE, deps);
      return { kind: "rate-limit", forMs: decision.forMs };
    case "pause-account":
      // Given back first: a claim that nobody gives back is unclear, and a create more is only refused again.
      await giveBack(intent, DONE, deps, { handBack: true });
      await deps.pauseAccount(decision.reason);
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
async function takeUp(ref: AttemptRef, stands: MoveAnswer, row: StoredRow, deps: CreateDeps): Promise<StageOutcome> {
  // What stands there may be a later attempt's, which has errands of its own.
  if (stands.answer === "lost" && (await deps.readItem(ref)).attempt !== ref.attempt) return DONE;
  const nowMs = deps.clock();
  if (stands.state === "claimed") {
    await deps.move(ref, "doubt", { nowMs });
  } else if (stands.state === "running" && stands.predictionId !== null) {
    const startedAtMs = stands.intentAtMs ?? nowMs;
    const bound = { id: stands.predictionId, startedAtMs, deadlineAtMs: deadlineOf(row), model: null };
    return putOnItsWay(ref, bound, row, deps);
  } else if (stands.state === "recording") {
    await deps.enqueueRecord(ref);
  } else if (stands.state === "canceled" && stands.left === 0) {
    await deps.enqueueFinish(ref);
  }
  return DONE;
}

function deadlineOf({ deadline }: StoredRow): number | null {
  return deadline === undefined ? null : Date.parse(deadline);
}
