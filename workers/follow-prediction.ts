/**
 * Polls once a prediction that a provider has accepted. This stage alone decides that a prediction is over.
 *
 * Ended, its files go on to be copied, if it left any; without files it goes straight to the record. Succeeded without an
 * output, or with holes in a list of files, it is polled again for a minute: what is missing then makes it a failed item.
 * Running, it is polled again later; past its deadline, or when a person said so, it is
 * canceled upstream first, so that paying stops, and followed on, within bounds, to what it becomes.
 *
 * Whoever wakes it marks the item first: a mark that is found before it snoozes means that it polls again in a second.
 *
 * If this process dies:
 *   before `get` or after it   nothing has happened; the poll is repeated.
 *   after the step             the poll is repeated; the step answers `already`, and the next errand is added.
 *   after the next errand      the poll is repeated; adding the errand again changes nothing.
 */

import type { AttemptRef } from "../src/core/naming.ts";
import { DONE, type StageOutcome } from "../src/core/outcome.ts";
import { filesOf, missingFiles } from "../src/core/outputs.ts";
import {
  type Expectation,
  INCOMPLETE_FOR_MS,
  INCOMPLETE_PAUSE_MS,
  nextPoll,
  type PollKind,
  type PollPolicy,
  pollKind,
  type Waker,
} from "../src/core/polling.ts";
import type { Prediction, PredictionId, TerminalStatus } from "../src/core/prediction.ts";
import { answerOf, type Ending } from "../src/core/receipt.ts";
import { decideAfterPoll } from "../src/core/retrying.ts";
import { modelOf, runMsOf } from "../src/core/run-times.ts";
import { DAY, SECOND } from "../src/core/time.ts";
import type { MoveAnswer, MoveOptions, TakenMarks } from "../src/ledger/ledger.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../src/providers/provider.ts";
import type { FollowErrand } from "../src/queues/queues.ts";

export type FollowDeps = {
  readonly provider: Pick<Provider, "get" | "cancel">;
  readonly move: (
    ref: AttemptRef,
    step: "succeed" | "salvage" | "conclude",
    options: MoveOptions,
  ) => Promise<MoveAnswer>;
  /** What was asked of the item since its last poll; null: that one saw no status. */
  readonly takeMarks: (ref: AttemptRef, status: string | null, startedAt: string | null) => Promise<TakenMarks>;
  /** When a poll first saw the attempt's success without a whole output: this one, or an earlier one. */
  readonly incompleteSince: (ref: AttemptRef) => Promise<number>;
  readonly keepEnding: (ref: AttemptRef, ending: Ending) => Promise<string>;
  readonly enqueueCopy: (ref: AttemptRef, expiresAtMs: number, prediction: PredictionId) => Promise<void>;
  /** So long after its creation the provider keeps a prediction's files. */
  readonly filesKeptMs: number;
  readonly enqueueRecord: (ref: AttemptRef, prediction: PredictionId) => Promise<void>;
  readonly pauseAccount: (reason: string) => Promise<void>;
  /** When to expect the end of a prediction, and whether something else tells of it. `model`: null where it isn't known. */
  readonly expect: (model: string | null, told: boolean) => Promise<Expectation>;
  /** A run of a model took so long. */
  readonly learnRun: (model: string, runMs: number) => Promise<void>;
  /** A poll was answered. */
  readonly countPoll: (kind: PollKind) => void;
  readonly warn: (message: string) => void;
  /** A status that this version doesn't know, and follows all the same: told once, not at every poll. */
  readonly warnOfStatus: (word: string, message: string) => void;
  readonly clock: () => number;
  readonly random: () => number;
  readonly policy: PollPolicy;
};

/** What a poll saw of a prediction that runs on. */
type Seen = { readonly status: string | null; readonly startedAt: string | null; readonly model: string | null };

const NOTHING_SEEN: Seen = { status: null, startedAt: null, model: null };
const SOON_MS = SECOND;
/** While the account's token is refused, asking more often helps nobody. */
const PAUSED_POLL_MS = 30 * SECOND;
const LONGEST_OUTAGE_MS = DAY;

export async function followPrediction(
  errand: FollowErrand,
  deps: FollowDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  let prediction: Prediction;
  try {
    prediction = await deps.provider.get(errand.predictionId, signal);
  } catch (error) {
    if (error instanceof ProviderAnswerError) {
      // Loud, but bounded like any other poll: past its deadline it is canceled, and at last given up.
      deps.warn(`prediction ${errand.predictionId}: ${error.message}; it is polled again`);
      return pollAgain(errand, NOTHING_SEEN, deps, signal);
    }
    if (!(error instanceof ProviderError)) throw error;
    return afterFailedPoll(errand, error, deps, signal);
  }

  if (isTerminal(prediction)) return keepEnd(errand, prediction, deps);
  if (prediction.status === "unknown") {
    deps.warnOfStatus(
      prediction.statusWord,
      `prediction ${prediction.id} has the status "${prediction.statusWord}", which isn't known here; all such are followed on`,
    );
  }
  const { statusWord: status, startedAt } = prediction;
  return pollAgain(errand, { status, startedAt, model: modelOf(prediction) }, deps, signal);
}

type EndedPrediction = Prediction & { readonly status: TerminalStatus };

async function keepEnd(errand: FollowErrand, prediction: EndedPrediction, deps: FollowDeps): Promise<StageOutcome> {
  const answer = answerOf(prediction);
  switch (prediction.status) {
    case "succeeded":
      return keepSuccess(errand, prediction, deps);
    case "failed":
      return keepRest(errand, { end: "failed", error: prediction.error, answer, copied: [] }, prediction, deps);
    case "canceled":
    case "aborted": {
      // A deadline ends it so, and then the item has failed; or a person did, on the provider's own page.
      const overdue = prediction.status === "aborted" || deps.clock() >= deadlineOf(errand, deps);
      const error = prediction.error ?? `the prediction was ${prediction.status} at the provider`;
      return keepRest(errand, { end: overdue ? "failed" : "canceled", error, answer, copied: [] }, prediction, deps);
    }
    default:
      return prediction.status satisfies never;
  }
}

async function keepSuccess(errand: FollowErrand, prediction: Prediction, deps: FollowDeps): Promise<StageOutcome> {
  const ending: Ending = { end: "saved", error: null, answer: answerOf(prediction), copied: [] };
  const failed = (error: string): Ending => ({ ...ending, end: "failed", error });
  if (prediction.dataRemoved) {
    return conclude(errand, failed("succeeded, but the provider has removed its data already"), deps);
  }
  const files = countFiles(prediction.output);
  if (files === null) {
    const error = "succeeded, but its output holds too many files, or is nested too deeply";
    return conclude(errand, failed(error), deps);
  }
  const missing = missingFiles(prediction.output);
  if (prediction.output === null || missing > 0) {
    const nowMs = deps.clock();
    if (nowMs - (await deps.incompleteSince(errand)) < INCOMPLETE_FOR_MS) {
      return { kind: "snooze", untilMs: nowMs + INCOMPLETE_PAUSE_MS };
    }
  }
  if (prediction.output === null) return conclude(errand, failed("succeeded with no output"), deps, prediction);
  if (missing > 0) {
    const error = `succeeded, but ${missing} of its ${files + missing} files are missing: its list has null in their place`;
    return copyOn(errand, "succeed", failed(error), prediction, deps);
  }
  if (files === 0) return conclude(errand, ending, deps, prediction);
  return copyOn(errand, "succeed", ending, prediction, deps);
}

/** What a prediction that didn't succeed has left: its output so far is billed, too. */
async function keepRest(
  errand: FollowErrand,
  ending: Ending,
  prediction: Prediction,
  deps: FollowDeps,
): Promise<StageOutcome> {
  const files = prediction.dataRemoved ? 0 : countFiles(prediction.output);
  return files === null || files === 0
    ? conclude(errand, ending, deps, wasRun(prediction) ? prediction : null)
    : copyOn(errand, "salvage", ending, prediction, deps);
}

async function copyOn(
  errand: FollowErrand,
  step: "succeed" | "salvage",
  ending: Ending,
  prediction: Prediction,
  deps: FollowDeps,
): Promise<StageOutcome> {
  const moved = await deps.move(errand, step, {
    nowMs: deps.clock(),
    set: { ending: await deps.keepEnding(errand, ending) },
  });
  await count(errand, moved.wokenBy, deps);
  if (moved.answer === "lost") return DONE;
  if (wasRun(prediction)) await learn(prediction, moved, deps);
  const createdAtMs = prediction.createdAt === null ? Number.NaN : Date.parse(prediction.createdAt);
  const fromMs = Number.isNaN(createdAtMs) ? errand.startedAtMs : createdAtMs;
  await deps.enqueueCopy(errand, fromMs + deps.filesKeptMs, errand.predictionId);
  return DONE;
}

/** To its own end, and not to one that somebody made. */
function wasRun({ status }: Prediction): boolean {
  return status === "succeeded" || status === "failed";
}

function countFiles(output: unknown): number | null {
  try {
    return filesOf(output).length;
  } catch (error) {
    if (error instanceof RangeError) return null;
    throw error;
  }
}

/** `ran`: the prediction, where this is its own end. */
async function conclude(
  errand: FollowErrand,
  ending: Ending,
  deps: FollowDeps,
  ran: Prediction | null = null,
): Promise<StageOutcome> {
  const moved = await deps.move(errand, "conclude", {
    nowMs: deps.clock(),
    set: { ending: await deps.keepEnding(errand, ending) },
  });
  await count(errand, moved.wokenBy, deps);
  if (moved.answer === "lost") return DONE;
  if (ran !== null) await learn(ran, moved, deps);
  await deps.enqueueRecord(errand, errand.predictionId);
  return DONE;
}

/** Counted once, with the step; a crash right after it loses the count, which is a statistic. */
async function learn(prediction: Prediction, { answer }: MoveAnswer, deps: FollowDeps): Promise<void> {
  const [model, runMs] = [modelOf(prediction), runMsOf(prediction)];
  if (answer === "moved" && model !== null && runMs !== null) await deps.learnRun(model, runMs);
}

/** Who woke it is told with the step that the poll led to, so knowing why it came costs no question of its own. */
async function count(
  { startedAtMs, told }: FollowErrand,
  wokenBy: Waker | undefined,
  { clock, expect, countPoll }: FollowDeps,
): Promise<void> {
  countPoll(pollKind(wokenBy, clock() - startedAtMs, await expect(null, told)));
}

/** When the prediction is to be over: its client's limit, within ours. */
function deadlineOf({ startedAtMs, deadlineAtMs }: FollowErrand, { policy }: FollowDeps): number {
  return Math.min(deadlineAtMs ?? Number.POSITIVE_INFINITY, startedAtMs + policy.deadlineMs);
}

async function pollAgain(
  errand: FollowErrand,
  seen: Seen,
  deps: FollowDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  const deadlineMs = Math.max(deadlineOf(errand, deps) - errand.startedAtMs, 0);
  const expected = await deps.expect(seen.model, errand.told);
  const next = nextPoll(errand.startedAtMs, deps.clock(), deps.random(), expected, { ...deps.policy, deadlineMs });
  switch (next.kind) {
    case "poll":
    case "overdue": {
      const marks = await deps.takeMarks(errand, seen.status, seen.startedAt);
      if (seen.status !== null) await count(errand, marks.wokenBy, deps);
      // What only the list says is ours may be somebody else's: it is canceled on a person's word alone.
      const cancel = marks.cancel || (next.kind === "overdue" && !marks.byList);
      if (cancel) return cancelUpstream(errand, next.atMs, deps, signal);
      return { kind: "snooze", untilMs: marks.woken ? deps.clock() + SOON_MS : next.atMs };
    }
    case "give-up": {
      const minutes = Math.round(next.ageMs / 60_000);
      const error = `prediction ${errand.predictionId} hadn't ended ${minutes} minutes after it was created; it may still run`;
      return conclude(errand, { end: "failed", error, answer: null, copied: [] }, deps);
    }
    default:
      return next satisfies never;
  }
}

/**
 * Its answer may be the end already - but for a success, whose output only a poll is sure to show (what the cancel of a
 * finished prediction answers isn't documented). Refused or unanswered, it is tried again at the next poll.
 */
async function cancelUpstream(
  errand: FollowErrand,
  untilMs: number,
  deps: FollowDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  if (deps.provider.cancel === undefined) return { kind: "snooze", untilMs };
  try {
    const prediction = await deps.provider.cancel(errand.predictionId, signal);
    if (prediction.id === errand.predictionId && hasStopped(prediction)) {
      return keepEnd(errand, prediction, { ...deps, countPoll: countedAlready });
    }
    return { kind: "snooze", untilMs: Math.min(untilMs, deps.clock() + SOON_MS) };
  } catch (error) {
    if (!(error instanceof ProviderError || error instanceof ProviderAnswerError)) throw error;
    if (!(error instanceof ProviderError && error.kind === "not-sent")) deps.warn(String(error));
    return { kind: "snooze", untilMs: notLate(untilMs, deps) };
  }
}

/** What couldn't be done is tried again sooner than a net may come, which relies on who tells of ends, and of ends alone. */
function notLate(untilMs: number, { clock, policy }: FollowDeps): number {
  return Math.min(untilMs, clock() + policy.longestPauseMs);
}

/** The poll that led to the cancel was. */
const countedAlready = (): undefined => undefined;

function isTerminal(prediction: Prediction): prediction is EndedPrediction {
  return prediction.status === "succeeded" || hasStopped(prediction);
}

function hasStopped(prediction: Prediction): prediction is EndedPrediction {
  return ["failed", "canceled", "aborted"].includes(prediction.status);
}

async function afterFailedPoll(
  errand: FollowErrand,
  failure: ProviderError,
  deps: FollowDeps,
  signal: AbortSignal,
): Promise<StageOutcome> {
  const nowMs = deps.clock();
  const ageMs = nowMs - errand.startedAtMs;
  const decision = decideAfterPoll(failure, { ageMs, isOverdue: nowMs >= deadlineOf(errand, deps) });
  switch (decision.kind) {
    case "again":
      return failure.kind === "refused"
        ? pollAgain(errand, NOTHING_SEEN, deps, signal)
        : askLater(errand, deps, signal);
    case "slow-down":
      return { kind: "rate-limit", forMs: decision.forMs };
    case "pause-account":
      await deps.pauseAccount(decision.reason);
      return { kind: "snooze", untilMs: nowMs + PAUSED_POLL_MS };
    case "gone": {
      const error = `the provider won't tell about prediction ${errand.predictionId} any more: ${decision.reason}`;
      return conclude(errand, { end: "failed", error, answer: null, copied: [] }, deps);
    }
    default:
      return decision satisfies never;
  }
}

/** A provider that is down tells nothing of the prediction: for a day nothing is given up for it. */
async function askLater(errand: FollowErrand, deps: FollowDeps, signal: AbortSignal): Promise<StageOutcome> {
  const nowMs = deps.clock();
  const lateMs = nowMs - deadlineOf(errand, deps) - deps.policy.graceMs;
  if (lateMs < 0 || lateMs > LONGEST_OUTAGE_MS) return pollAgain(errand, NOTHING_SEEN, deps, signal);
  return { kind: "snooze", untilMs: nowMs + deps.policy.longestPauseMs };
}
