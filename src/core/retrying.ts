/**
 * What a failure means. Failures go in as values, decisions come out; nobody retries anything by instinct.
 *
 * The table for a create is the design's: only what surely wasn't accepted may be sent again. Sources for the
 * statuses: Replicate's error pages, and recorded answers of its API.
 */

import { HOUR, MINUTE, SECOND } from "./time.ts";

/** The fields of a provider's failure that decide what happens next; `ProviderError` has them. */
export type Failure = {
  readonly kind: "not-sent" | "refused" | "unknown";
  readonly status: number | null;
  readonly retryAfterMs: number | null;
  readonly detail: string;
};

export type CreateDecision =
  /** It can't have arrived: give the claim back and try again later. */
  | { readonly kind: "again"; readonly afterMs: number }
  /** 429: give the claim back, and nobody creates for so long. */
  | { readonly kind: "slow-down"; readonly forMs: number }
  /** The token or the credit is the trouble, not this item: give the claim back and stop the account. */
  | { readonly kind: "pause-account"; readonly reason: string }
  /** The provider won't have this input. */
  | { readonly kind: "fail"; readonly reason: string }
  /** It may have arrived. Never sent again on a guess. */
  | { readonly kind: "unclear"; readonly reason: string };

const UNREACHABLE_PAUSE_MS = 5 * SECOND;
const DEFAULT_429_PAUSE_MS = 10 * SECOND;
/** As long as the longest wait that is read from an answer (`retry-after.ts`): what was asked for is never undercut. */
const LONGEST_PAUSE_MS = HOUR;

/** `jitter` is a random number in [0, 1). */
export function decideAfterCreate(failure: Failure, jitter: number): CreateDecision {
  switch (failure.kind) {
    case "not-sent":
      return { kind: "again", afterMs: spread(UNREACHABLE_PAUSE_MS, jitter) };
    case "unknown":
      return { kind: "unclear", reason: failure.detail };
    case "refused":
      if (failure.status === 429) return { kind: "slow-down", forMs: pauseAfter429(failure) };
      if (failure.status === 401 || failure.status === 402) {
        return { kind: "pause-account", reason: `${failure.status}: ${failure.detail}` };
      }
      return { kind: "fail", reason: failure.detail };
    default:
      return failure.kind satisfies never;
  }
}

export type PollDecision =
  | { readonly kind: "again" }
  | { readonly kind: "slow-down"; readonly forMs: number }
  | { readonly kind: "pause-account"; readonly reason: string }
  /** The provider doesn't know the prediction, and has had time to; or says that asking again won't help. */
  | { readonly kind: "gone"; readonly reason: string };

/**
 * A refusal may be another's: a wrong token, a proxy, a read that lags behind the create. While the prediction may still
 * run, or its outputs can still be had, what was bought isn't given up for one; after that there is nothing left to lose.
 */
const BELIEVE_REFUSAL_AFTER_MS = HOUR;

/** A poll is safe to repeat, so the only question is how soon. `isOverdue`: its deadline has passed. */
export function decideAfterPoll(
  failure: Failure,
  { ageMs, isOverdue }: { readonly ageMs: number; readonly isOverdue: boolean },
): PollDecision {
  if (failure.status === 429) return { kind: "slow-down", forMs: pauseAfter429(failure) };
  if (failure.status === 401) return { kind: "pause-account", reason: `401: ${failure.detail}` };
  // 402 and 403 are about the account, and may pass.
  const aboutIt = failure.kind === "refused" && failure.status !== 402 && failure.status !== 403;
  if (!aboutIt || !isOverdue || ageMs < BELIEVE_REFUSAL_AFTER_MS) return { kind: "again" };
  return { kind: "gone", reason: failure.detail };
}

/**
 * Whether a failed prediction failed by the provider's own doing, so that the same input may well succeed: Replicate's
 * documented codes (E1000 unknown, E6716 start timeout, E8367 stopped, E8765 health check), its older word that a run was
 * interrupted (code PA), a lack of capacity (E003), or no reason at all. `error`: in the provider's words.
 */
export function isProvidersOwnFailure(error: string | null): boolean {
  if (error === null || error.trim() === "") return true;
  return /\bE(?:1000|6716|8367|8765|003)\b|\binterrupted\b|\(code: PA\)|\b(?:at|no|out of|insufficient) capacity\b/i.test(
    error,
  );
}

/** How long to wait after a 429. */
export function pauseAfter429({ retryAfterMs }: Pick<Failure, "retryAfterMs">): number {
  return Math.min(Math.max(retryAfterMs ?? DEFAULT_429_PAUSE_MS, 100), LONGEST_PAUSE_MS);
}

function spread(ms: number, jitter: number): number {
  return Math.ceil(ms * (0.75 + 0.5 * jitter));
}

/**
 * How long a job waits before its next try after a thrown error: doubling from half a second to a minute.
 * `tries` counts those already made, from 1.
 */
export function backoffMs(tries: number, jitter: number): number {
  const doubled = 0.5 * SECOND * 2 ** Math.min(Math.max(tries - 1, 0), 10);
  return Math.min(spread(doubled, jitter), MINUTE);
}
