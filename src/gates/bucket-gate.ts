/**
 * Whether the bucket takes what is written, as the whole fleet has found out: some failures in a row, and nobody writes but
 * one probe at a time; what is decided stands in `core/breaking.ts`, the state in Redis. The feed buys nothing meanwhile.
 * This process looks at the state at most once a second, and at once when it changes it itself.
 *
 * Whoever opens or closes the breaker tells, so the log has one line for an outage and not one for each file.
 */

import { type Bucket, BucketError } from "../bucket/bucket.ts";
import { wrappedBucket } from "../bucket/wrapped-bucket.ts";
import { afterFailure, afterSuccess, type Breaker, enterBreaker, isClean, leaveBreaker } from "../core/breaking.ts";
import { SECOND } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";
import type { Pass } from "./account-gate.ts";

export type BucketGateDeps = {
  readonly ledger: Pick<Ledger, "bucketBreaker" | "changeBucketBreaker">;
  readonly clock: () => number;
  /** Another text each time. */
  readonly mark: () => string;
  readonly tell: (level: "error" | "info", message: string) => void;
};

export type BucketGate = {
  /** Whether a stage that writes may do so now. */
  enter(): Promise<Pass>;
  /** Whether the bucket takes what is written, as far as the fleet knows. */
  isClosed(): Promise<boolean>;
  /** Something was written. */
  answered(): Promise<void>;
  /** Something couldn't be written, and the bucket is to blame. */
  unanswered(reason: string): Promise<void>;
};

const LOOK_MS = SECOND;

export function openBucketGate({ ledger, clock, mark, tell }: BucketGateDeps): BucketGate {
  let seen: Breaker | null = null;
  let seenAtMs = Number.NEGATIVE_INFINITY;

  async function look(): Promise<Breaker> {
    if (seen !== null && clock() - seenAtMs < LOOK_MS && clock() >= seenAtMs) return seen;
    const read = await ledger.bucketBreaker();
    seenAtMs = clock();
    seen = read;
    return read;
  }

  /** Answers what it was before. */
  async function change(decide: (before: Breaker) => Breaker): Promise<Breaker> {
    let was: Breaker | null = null;
    seen = await ledger.changeBucketBreaker((before) => {
      was = before;
      return decide(before);
    });
    return was ?? seen;
  }

  return {
    async enter() {
      if ((await look()).state === "closed") return { waitMs: 0, leave: async () => undefined };
      const probe = mark();
      let waitMs = 0;
      await change((before) => {
        const entered = enterBreaker(before, probe, clock());
        waitMs = entered.waitMs;
        return entered.breaker;
      });
      const leave = async () => void (await change((before) => leaveBreaker(before, probe, clock())));
      return { waitMs, leave: waitMs > 0 ? async () => undefined : leave };
    },

    isClosed: async () => (await look()).state === "closed",

    async answered() {
      if (isClean(await look())) return;
      const was = await change(afterSuccess);
      if (was.state !== "closed") tell("info", "the bucket takes files again");
    },

    async unanswered(reason) {
      const was = await change((before) => afterFailure(before, reason, clock()));
      if (was.state === "closed" && seen?.state === "open") {
        tell(
          "error",
          `the bucket takes no files: ${reason}. Nothing more is bought until it does; one file at a time tries`,
        );
      }
    },
  };
}

/** A refusal that says something about the bucket, and not about one object. */
export function isBucketTrouble(error: unknown): error is BucketError {
  return error instanceof BucketError && error.code !== "bad-key" && error.code !== "too-large";
}

/** A bucket whose writes teach the gate. */
export function gatedBucket(bucket: Bucket, gate: BucketGate): Bucket {
  async function write<T>(send: () => Promise<T>): Promise<T> {
    // What it teaches must neither delay nor lose what was written.
    const unheard = () => undefined;
    try {
      const answer = await send();
      gate.answered().catch(unheard);
      return answer;
    } catch (error) {
      if (isBucketTrouble(error)) await gate.unanswered(`${bucket.url}: ${whyOf(error)}`).catch(unheard);
      throw error;
    }
  }
  return wrappedBucket(bucket, {
    put: (key, body, options) => write(() => bucket.put(key, body, options)),
    putStream: (key, body, options) => write(() => bucket.putStream(key, body, options)),
    putOnce: (key, body, options) => write(() => bucket.putOnce(key, body, options)),
  });
}

/** Without the object that happened to meet it. */
function whyOf({ message }: BucketError): string {
  return message.replace(/^.*? failed: /s, "");
}
