/**
 * Who asks. Each accepted token is an account of its own, with its own limits and its own list of predictions; on
 * Replicate several tokens can belong to one account, which nothing here depends on.
 *
 * Both prefixes are taken: `Bearer`, and the older `Token`.
 */

import { hash } from "node:crypto";
import type { Prediction } from "./prediction.ts";
import { type Bucket, fullBucket, type Limit, take, type Verdict } from "./rate-limit.ts";

export type Account = {
  /** Safe to print; the token isn't. */
  readonly name: string;
  readonly provider: "replicate" | "comet";
  readonly creates: Meter;
  readonly reads: Meter;
  /** In order of creation. */
  readonly predictions: Prediction[];
};

export type Meter = { readonly limit: Limit; bucket: Bucket };

export type Limits = { readonly creates: Limit; readonly reads: Limit };

export function openAccount(provider: Account["provider"], token: string, limits: Limits): Account {
  const nowMs = performance.now();
  return {
    name: `${provider}-${fingerprint(token)}`,
    provider,
    creates: { limit: limits.creates, bucket: fullBucket(limits.creates, nowMs) },
    reads: { limit: limits.reads, bucket: fullBucket(limits.reads, nowMs) },
    predictions: [],
  };
}

export function spend(meter: Meter): Verdict {
  const verdict = take(meter.bucket, meter.limit, performance.now());
  meter.bucket = verdict.bucket;
  return verdict;
}

/** The token in an Authorization header, or null where there is none. */
export function tokenIn(authorization: string | undefined): string | null {
  return /^(?:Bearer|Token)\s+(\S+)\s*$/i.exec(authorization ?? "")?.[1] ?? null;
}

/** Enough to recognise a token by, too little to use it. */
export function fingerprint(token: string): string {
  return hash("sha256", token, "hex").slice(0, 12);
}
