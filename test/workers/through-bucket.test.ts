/** What a stage that writes does with refusals; how the gate itself turns stands in `saving-consumers.test.ts`. */

import { expect, test } from "vitest";
import { BucketError } from "../../src/bucket/bucket.ts";
import { NoLargeSlot } from "../../src/bucket/large-files.ts";
import type { AttemptRef, BatchId } from "../../src/core/naming.ts";
import { DONE } from "../../src/core/outcome.ts";
import { SECOND } from "../../src/core/time.ts";
import { type ThroughBucketDeps, throughBucket } from "../../workers/through-bucket.ts";
import { ACCOUNT, NOON } from "../support/stages.ts";

const signal = new AbortController().signal;
const ERRAND: AttemptRef = { account: ACCOUNT, batch: "0".repeat(20) as BatchId, index: 0, attempt: 1 };

/** A stage behind a gate that asks to wait for so long; how often its passes were given back. */
function behindGate(
  stage: () => Promise<typeof DONE>,
  changed: Partial<ThroughBucketDeps<AttemptRef>> & { waitMs?: number; isClosed?: boolean } = {},
) {
  const seen = { ran: 0, left: 0 };
  const run = throughBucket<AttemptRef>(
    () => {
      seen.ran++;
      return stage();
    },
    {
      gate: {
        enter: async () => ({ waitMs: changed.waitMs ?? 0, leave: async () => void seen.left++ }),
        isClosed: async () => changed.isClosed ?? true,
      },
      deadlineMs: () => NOON + 1,
      clock: () => NOON,
      random: () => 0.5,
      ...changed,
    },
  );
  return { seen, run: () => run(ERRAND, signal) };
}

const refused = (code: BucketError["code"]) => async () => {
  throw new BucketError(code, "writing failed: no");
};

test("while the gate is closed nothing is tried, and all come back at moments of their own", async () => {
  const { seen, run } = behindGate(async () => DONE, { waitMs: 4 * SECOND });
  expect(await run()).toEqual({ kind: "snooze", untilMs: NOON + 6 * SECOND });
  const other = behindGate(async () => DONE, { waitMs: 4 * SECOND, random: () => 0 });
  expect(await other.run()).toEqual({ kind: "snooze", untilMs: NOON + 4 * SECOND });
  expect(seen).toEqual({ ran: 0, left: 0 });
});

test("a refusal is tried again inside the deadline, and is the job's failure after it", async () => {
  for (const code of ["unreachable", "denied", "missing-bucket", "failed"] as const) {
    const { seen, run } = behindGate(refused(code));
    expect(await run()).toEqual({ kind: "snooze", untilMs: NOON + 3 * SECOND });
    expect(seen).toEqual({ ran: 1, left: 1 });
    await expect(behindGate(refused(code), { deadlineMs: () => NOON }).run()).rejects.toThrow(BucketError);
  }
});

test("what is refused again and again while others are taken is the job's failure, which is told", async () => {
  const again = { kind: "snooze", untilMs: NOON + 3 * SECOND };
  const alone = behindGate(refused("denied"));
  for (let times = 1; times < 5; times++) expect(await alone.run()).toEqual(again);
  await expect(alone.run()).rejects.toThrow("writing failed: no");
  await expect(alone.run()).rejects.toThrow("writing failed: no");

  const down = behindGate(refused("denied"), { isClosed: false });
  for (let times = 1; times < 10; times++) expect(await down.run(), "the breaker's line tells of all").toEqual(again);
});

test("a refusal that is about one object, or anything else, is the job's failure at once", async () => {
  for (const code of ["bad-key", "too-large"] as const) {
    await expect(behindGate(refused(code)).run()).rejects.toThrow(BucketError);
  }
  const { seen, run } = behindGate(async () => {
    throw new Error("a host that breaks");
  });
  await expect(run()).rejects.toThrow("a host that breaks");
  expect(seen).toEqual({ ran: 1, left: 1 });
});

test("a large file that found no slot comes again, also after the deadline", async () => {
  const { run } = behindGate(
    async () => {
      throw new NoLargeSlot(8);
    },
    { deadlineMs: () => 0 },
  );
  expect(await run()).toEqual({ kind: "snooze", untilMs: NOON + 3 * SECOND });
});
