/**
 * A strict token bucket: it starts full, holds `burst` tokens and gains `perMinute` of them a minute, evenly. In any
 * span of t minutes it admits at most burst + perMinute × t requests. A refused request costs nothing (one report
 * says that Replicate counts them too; unconfirmed). No clock in here: time is an argument.
 */

export type Limit = { readonly perMinute: number; readonly burst: number };

export type Bucket = { readonly tokens: number; readonly filledAtMs: number };

export type Verdict = {
  readonly admitted: boolean;
  readonly bucket: Bucket;
  /** Whole requests that would still be admitted now. */
  readonly remaining: number;
  /** Until the next request is admitted, if this one wasn't; else until the bucket has gained a token. */
  readonly resetMs: number;
};

export function fullBucket(limit: Limit, nowMs: number): Bucket {
  return { tokens: limit.burst, filledAtMs: nowMs };
}

export function take(bucket: Bucket, limit: Limit, nowMs: number): Verdict {
  if (limit.perMinute === Infinity || limit.burst === Infinity) {
    return { admitted: true, bucket, remaining: Infinity, resetMs: 0 };
  }

  const perMs = limit.perMinute / 60_000;
  const passedMs = Math.max(0, nowMs - bucket.filledAtMs);
  const tokens = Math.min(limit.burst, bucket.tokens + passedMs * perMs);
  const admitted = tokens >= 1;
  const left = admitted ? tokens - 1 : tokens;
  return {
    admitted,
    bucket: { tokens: left, filledAtMs: Math.max(nowMs, bucket.filledAtMs) },
    remaining: Math.floor(left),
    resetMs: (1 - (left % 1)) / perMs,
  };
}
