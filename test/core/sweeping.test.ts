/** When a list proves an absence, on the provider's clock. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  DEFAULT_SWEEP_POLICY,
  isClean,
  latestAfterIntentMs,
  mayBeClean,
  type SentBetween,
  sweptSpan,
} from "../../src/core/sweeping.ts";
import { MINUTE } from "../../src/core/time.ts";

const policy = DEFAULT_SWEEP_POLICY;
const sent = (from: number, to = from): SentBetween => ({ fromMs: from * MINUTE, toMs: to * MINUTE });

describe("a sweep", () => {
  test.each<[string, SentBetween, number, boolean]>([
    ["right after the request proves nothing", sent(0), 1, false],
    ["before a list that lags has caught up proves nothing", sent(0), 10.9, false],
    ["after request deadline, settling and skew is clean", sent(0), 11, true],
    ["fifty minutes later is clean still", sent(0), 50, true],
    ["after that the inputs may be gone", sent(0), 50.1, false],
    ["of a span waits for the span's end", sent(0, 5), 15.9, false],
    ["of a span is clean after its end", sent(0, 5), 16, true],
    ["of a span that is too long can't be clean", sent(0, 45), 51, false],
  ])("%s", (_what, intent, readAt, clean) => {
    expect(isClean(intent, readAt * MINUTE, policy)).toBe(clean);
  });

  test("reads what all intents need whose prediction can still be seen", () => {
    const span = sweptSpan([sent(0), sent(20), sent(22, 24)], 55 * MINUTE, policy);
    expect(span).toEqual({ afterMs: 19.5 * MINUTE, beforeMs: 35 * MINUTE });
    expect(sweptSpan([sent(0)], 55 * MINUTE, policy)).toBeNull();
    expect(sweptSpan([], 0, policy)).toBeNull();
  });

  test("looks for one whose span began too long ago, as far back as anything can be seen", () => {
    const long = sent(0, 40);
    expect(sweptSpan([long], 80 * MINUTE, policy)).toEqual({ afterMs: 29.5 * MINUTE, beforeMs: 51 * MINUTE });
    expect(isClean(long, 80 * MINUTE, policy)).toBe(false);
    expect(sweptSpan([long], 91 * MINUTE, policy)).toBeNull();
  });

  test("reads on for as long after an intent as its prediction may be created", () => {
    expect(latestAfterIntentMs(policy)).toBe(11 * MINUTE);
  });

  test("that is clean for an intent has read everything in which its prediction can stand", () => {
    const intents = fc.array(fc.tuple(fc.nat({ max: 60 }), fc.nat({ max: 5 })), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(intents, fc.nat({ max: 120 }), (times, readAt) => {
        const all = times.map(([from, length]) => sent(from, from + length));
        const span = sweptSpan(all, readAt * MINUTE, policy);
        for (const one of all) {
          const later = Array.from({ length: 120 }, (_, more) => (readAt + more) * MINUTE);
          expect(mayBeClean(one, readAt * MINUTE, policy)).toBe(later.some((ms) => isClean(one, ms, policy)));
        }
        for (const intent of all.filter((one) => isClean(one, readAt * MINUTE, policy))) {
          expect(span?.afterMs).toBeLessThanOrEqual(intent.fromMs - policy.skewMs);
          expect(span?.beforeMs).toBeGreaterThanOrEqual(intent.toMs + latestAfterIntentMs(policy));
        }
      }),
    );
  });
});
