/**
 * A breaker for what may be down: after some failures in a row nobody asks any more but for one probe at a time, later and
 * later; the first answer closes it. A provider's creates have one, its reads another: there a failure is a request that
 * found nobody (connection refused, timeout, reset) or 5xx; any other answer, also a refusal, is a sign of life. The bucket
 * has one for writing, where any refusal that isn't about one object is a failure. Pure.
 */

import { SECOND } from "./time.ts";

export type Breaker =
  /** `failures`: in a row. */
  | { readonly state: "closed"; readonly failures: number }
  | {
      readonly state: "open";
      readonly sinceMs: number;
      readonly reason: string;
      /** Between one probe and the next. */
      readonly pauseMs: number;
      readonly probeAtMs: number;
    }
  | {
      readonly state: "half-open";
      readonly sinceMs: number;
      readonly reason: string;
      readonly pauseMs: number;
      /** Who probes, and until when it is waited for. */
      readonly probe: string;
      readonly untilMs: number;
    };

export const CLOSED: Breaker = { state: "closed", failures: 0 };

const FAILURES_TO_OPEN = 5;
const SHORTEST_PAUSE_MS = SECOND;
const LONGEST_PAUSE_MS = 30 * SECOND;
/** A request ends within half a minute; who hasn't told by then has died, or is writing a large file: another may probe. */
const PROBE_MS = 40 * SECOND;
/** While another's probe is under way, it is looked again so soon. */
const LOOK_AGAIN_MS = SECOND;
const LONGEST_REASON = 300;

export function afterFailure(breaker: Breaker, reason: string, nowMs: number): Breaker {
  switch (breaker.state) {
    case "closed": {
      const failures = breaker.failures + 1;
      if (failures < FAILURES_TO_OPEN) return { state: "closed", failures };
      return {
        state: "open",
        sinceMs: nowMs,
        reason: reason.slice(0, LONGEST_REASON),
        pauseMs: SHORTEST_PAUSE_MS,
        probeAtMs: nowMs + SHORTEST_PAUSE_MS,
      };
    }
    case "open":
      return breaker; // it was under way before
    case "half-open": {
      const pauseMs = Math.min(2 * breaker.pauseMs, LONGEST_PAUSE_MS);
      const { sinceMs } = breaker;
      return { state: "open", sinceMs, reason: reason.slice(0, LONGEST_REASON), pauseMs, probeAtMs: nowMs + pauseMs };
    }
    default:
      return breaker satisfies never;
  }
}

export function afterSuccess(breaker: Breaker): Breaker {
  return isClean(breaker) ? breaker : CLOSED;
}

/** Whether a success would change nothing. */
export function isClean(breaker: Breaker): boolean {
  return breaker.state === "closed" && breaker.failures === 0;
}

/** `waitMs` 0: `probe` may ask. Where the breaker isn't closed it is then the one probe, and must tell or leave. */
export function enterBreaker(
  breaker: Breaker,
  probe: string,
  nowMs: number,
): { readonly breaker: Breaker; readonly waitMs: number } {
  if (breaker.state === "closed") return { breaker, waitMs: 0 };
  // Its own answer was lost, and this is decided again.
  if (breaker.state === "half-open" && breaker.probe === probe) return { breaker, waitMs: 0 };
  const readyAtMs = breaker.state === "open" ? breaker.probeAtMs : breaker.untilMs;
  if (nowMs < readyAtMs) {
    const leftMs = readyAtMs - nowMs;
    return { breaker, waitMs: breaker.state === "open" ? leftMs : Math.min(leftMs, LOOK_AGAIN_MS) };
  }
  const { sinceMs, reason, pauseMs } = breaker;
  return {
    breaker: { state: "half-open", sinceMs, reason, pauseMs, probe, untilMs: nowMs + PROBE_MS },
    waitMs: 0,
  };
}

/** The probe didn't come to ask anything: another may. */
export function leaveBreaker(breaker: Breaker, probe: string, nowMs: number): Breaker {
  if (breaker.state !== "half-open" || breaker.probe !== probe) return breaker;
  const { sinceMs, reason, pauseMs } = breaker;
  return { state: "open", sinceMs, reason, pauseMs, probeAtMs: nowMs + pauseMs };
}

/**
 * For how long creates wait for another's breaker: what can't be followed, or saved, isn't bought. Only while somebody
 * probes: where nothing runs nobody polls, or saves, and creates find out for themselves.
 */
export function holdsCreatesMs(others: Breaker, nowMs: number): number {
  if (others.state === "closed") return 0;
  const dueMs = others.state === "open" ? others.probeAtMs : others.untilMs;
  return nowMs < dueMs + LONGEST_PAUSE_MS ? LOOK_AGAIN_MS : 0;
}
