/**
 * How fast an account may ask, for each of its two limits, creates and reads: what was configured or set by hand, less
 * what the provider's refusals have taught. Pure; `gates/account-gate.ts` keeps it for all processes and obeys.
 *
 * A refusal (429) stops the limit's requests for as long as the provider said. Then they begin at half the rate and are
 * back at the whole within a minute. Where a second refusal comes soon, the limit is lower than we were told: then they
 * come back to three quarters of what was refused, and go on from there within ten minutes. Where the provider names a
 * lower tier (low credit), that is the rate, until it has been believed long enough to be tried again.
 */

import { lowCreditTier } from "./retry-after.ts";
import { HOUR, MINUTE, SECOND } from "./time.ts";

export type Rate = { readonly perMinute: number; readonly toleratesBurst: boolean };

export type Refusal = {
  readonly atMs: number;
  readonly untilMs: number;
  /** In the provider's words. */
  readonly said: string;
};

export type Pace = Rate & {
  /** Whether a person set it, and no setting did. */
  readonly byHand: boolean;
  readonly slow: {
    /** When it was refused; `fromMs`: when it goes on. */
    readonly sinceMs: number;
    readonly fromMs: number;
    /** The rate at that moment. */
    readonly perMinute: number;
    /** What is reached after the first minute; null: the whole rate. */
    readonly ceiling: number | null;
  } | null;
  readonly tier: {
    readonly perMinute: number;
    readonly burst: number;
    readonly toldAtMs: number;
    readonly believedForMs: number;
  } | null;
  readonly lastRefusal: Refusal | null;
};

/** What polls get of an account's reads, and what sweeps, cancels and audits have together. */
export const POLLS_SHARE = 0.8;
export const SHARE_BESIDE_POLLS = 0.2;

const RAMP_MS = MINUTE;
const REGAIN_MS = 10 * MINUTE;
/** Refusals of requests that were under way together are one: of those that come while all wait, or so soon. */
const TOGETHER_MS = SECOND / 2;
/** A refusal that comes so soon after the one before says that the rate itself is too high. */
const AGAIN_MS = 5 * MINUTE;
const SLOWEST = 1;

const TIER_BELIEVED_MS = 10 * MINUTE;
const TIER_BELIEVED_LONGEST_MS = HOUR;
/** A tier that is tried again begins with so many times its rate: enough for a refusal, if it still holds. */
const TIER_TRIAL = 4;

const LONGEST_WORDS = 500;

export function freshPace(rate: Rate, byHand = false): Pace {
  return { ...rate, byHand, slow: null, tier: null, lastRefusal: null };
}

/**
 * Another rate: what was learned of the old one's height is no use any more, what the provider said last stays on
 * record.
 */
export function withRate(pace: Pace, rate: Rate, byHand: boolean): Pace {
  return { ...freshPace(rate, byHand), lastRefusal: pace.lastRefusal };
}

/** Until when nobody asks, as the provider said; in the past, if anybody may. */
export function refusedUntilMs({ lastRefusal }: Pace): number {
  return lastRefusal?.untilMs ?? 0;
}

/** The tier that holds at this moment, if one does. */
export function tierAt({ tier }: Pace, nowMs: number): Pace["tier"] {
  return tier !== null && nowMs < tier.toldAtMs + tier.believedForMs ? tier : null;
}

/** What is allowed at this moment; never more than the account's rate. */
export function effectiveRate(pace: Pace, nowMs: number): Rate {
  const { perMinute, toleratesBurst } = pace;
  const tier = tierAt(pace, nowMs);
  if (tier !== null) {
    return {
      perMinute: Math.min(tier.perMinute, regained(pace, nowMs), perMinute),
      toleratesBurst: toleratesBurst && tier.burst > 1,
    };
  }
  return { perMinute: Math.min(regained(pace, nowMs), tried(pace, nowMs), perMinute), toleratesBurst };
}

function regained({ slow, perMinute }: Pace, nowMs: number): number {
  if (slow === null) return perMinute;
  const forMs = nowMs - slow.fromMs;
  const top = slow.ceiling ?? perMinute;
  if (forMs < RAMP_MS) return between(slow.perMinute, top, forMs / RAMP_MS);
  return between(top, perMinute, (forMs - RAMP_MS) / REGAIN_MS);
}

/** After a tier that isn't believed any more, until it is forgotten. */
function tried({ tier, perMinute }: Pace, nowMs: number): number {
  if (tier === null) return perMinute;
  const forMs = nowMs - tier.toldAtMs - tier.believedForMs;
  return between(Math.min(TIER_TRIAL * tier.perMinute, perMinute), perMinute, forMs / RAMP_MS);
}

function between(from: number, to: number, share: number): number {
  return from + (Math.max(to, from) - from) * Math.min(Math.max(share, 0), 1);
}

/** The provider refused a request at this moment, and asked to wait for so long. */
export function afterRefusal(
  pace: Pace,
  refusal: { readonly forMs: number; readonly said: string },
  nowMs: number,
): Pace {
  const untilMs = Math.max(refusedUntilMs(pace), nowMs + refusal.forMs);
  const lastRefusal = { atMs: nowMs, untilMs, said: refusal.said.slice(0, LONGEST_WORDS) };
  const told = lowCreditTier(refusal.said);
  if (told !== null)
    return { ...pace, lastRefusal, tier: { ...told, toldAtMs: nowMs, believedForMs: believed(pace, nowMs) } };

  const { slow } = pace;
  if (slow !== null && nowMs < Math.max(slow.fromMs, slow.sinceMs + TOGETHER_MS)) {
    return { ...pace, lastRefusal, slow: { ...slow, fromMs: untilMs } };
  }
  const rate = effectiveRate(pace, nowMs).perMinute;
  const isAgain = slow !== null && nowMs < slow.fromMs + AGAIN_MS;
  const ceiling = isAgain ? Math.max(rate * 0.75, SLOWEST) : null;
  return {
    ...pace,
    lastRefusal,
    slow: {
      sinceMs: nowMs,
      fromMs: untilMs,
      perMinute: Math.min(Math.max(rate / 2, SLOWEST), pace.perMinute),
      ceiling,
    },
  };
}

/** Told again while it was believed: nothing new. Told again when it was tried: it is believed for twice as long. */
function believed(pace: Pace, nowMs: number): number {
  const { tier } = pace;
  if (tier === null || nowMs > tier.toldAtMs + tier.believedForMs + HOUR) return TIER_BELIEVED_MS;
  if (tierAt(pace, nowMs) !== null) return tier.believedForMs;
  return Math.min(2 * tier.believedForMs, TIER_BELIEVED_LONGEST_MS);
}
