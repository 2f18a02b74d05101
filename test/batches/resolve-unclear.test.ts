/** A person's word on unclear items. */

import { describe, expect } from "vitest";
import { holdBatch } from "../../src/batches/hold-batch.ts";
import { type Resolve, resolveUnclearItems } from "../../src/batches/resolve-unclear.ts";
import { readBatchActs } from "../../src/bucket/acts.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import { type BatchId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { everyCrash } from "../support/crash.ts";
import { claim, feed, nonceOf, record, refOf, standingOf, statesOf } from "../support/life.ts";
import { ACCOUNT, type Line, NOON, test } from "../support/stages.ts";

/** Four items, of which 1 to 3 are unclear, and another batch with an unclear one. */
async function open(line: Line): Promise<BatchId> {
  await line.clear();
  const batch = await line.submit(Array.from({ length: 4 }, (_, n) => ({ prompt: `input ${n}` })));
  const other = await line.submit([{ prompt: "another" }], "other");
  await feed(line);
  for (const ref of [refOf(batch, 1), refOf(batch, 2), refOf(batch, 3), refOf(other, 0)]) {
    await claim(line, ref);
    await line.ledger.move(ref, "doubt", { nowMs: line.clock(), nonce: nonceOf(ref) });
  }
  return batch;
}

const depsOf = ({ bucket, ledger, queues, clock }: Line) => ({ bucket, ledger, queues, clock });

async function resolve(line: Line, batch: BatchId, as: Resolve, indexes: [number, number][] | null = null) {
  return resolveUnclearItems((await standingOf(line, batch)).batch, as, indexes, depsOf(line));
}

describe("unclear items", () => {
  test("are sent again as the same attempt by a person's word, which is recorded first", async ({ line }) => {
    const batch = await open(line);
    expect(await resolve(line, batch, "resend")).toBe(3);
    expect(await statesOf(line, batch)).toEqual(["1 waiting", "1 waiting", "1 waiting", "1 waiting"]);
    expect(await readBatchActs(line.bucket, batch)).toEqual([
      { act: "resolve", as: "resend", items: [1, 2, 3], at: "2026-11-20T12:00:00.000Z", n: 1, atMs: NOON },
    ]);
    expect(await line.ledger.intents(ACCOUNT, "unclear", 10), "the other batch's").toHaveLength(1);
    expect(await line.ledger.returnedRows(ACCOUNT, batch, 10)).toHaveLength(3);
    expect((await claim(line, refOf(batch, 2))).answer).toBe("moved");
  });

  test("are given up, and then failed with a receipt that says so", async ({ line }) => {
    const batch = await open(line);
    expect(await resolve(line, batch, "fail", [[2, 9]])).toBe(2);
    expect(await statesOf(line, batch)).toEqual(["1 waiting", "1 unclear", "1 recording", "1 recording"]);
    expect(await line.jobs(QUEUE_NAMES.record)).toHaveLength(2);
    await record(line, refOf(batch, 2));
    expect(await readReceipt(line.bucket, refOf(batch, 2))).toMatchObject({
      status: "failed",
      prediction_id: null,
      error: "nobody knows whether the provider accepted its request; a person gave it up",
    });
    expect((await statesOf(line, batch))[2]).toBe("1 failed");
  });

  test("that aren't there are resolved by nobody, and no act is written", async ({ line }) => {
    const batch = await open(line);
    expect(await resolve(line, batch, "fail", [[0, 0]])).toBe(0);
    expect(await resolve(line, batch, "fail", [[7, 9]])).toBe(0);
    expect(await readBatchActs(line.bucket, batch)).toEqual([]);
  });

  test("of a canceled batch end canceled, with a receipt, instead of being sent again", async ({ line }) => {
    const batch = await open(line);
    await holdBatch(await standingOf(line, batch), "cancel", depsOf(line));
    expect(await resolve(line, batch, "resend", [[1, 1]])).toBe(1);
    expect((await statesOf(line, batch))[1]).toBe("1 canceled");
    expect(await readReceipt(line.bucket, refOf(batch, 1))).toMatchObject({ status: "canceled", prediction_id: null });
  });

  test("whose prediction comes to light at that moment keep it", async ({ line }) => {
    const batch = await open(line);
    const { ledger } = line;
    const readItem: typeof ledger.readItem = async (ref) => {
      const found = await ledger.readItem(ref);
      const bound = { nowMs: NOON, predictionId: predictionId("late"), nonce: nonceOf(refOf(batch, 1)) };
      if (ref.index === 1) expect((await ledger.move(refOf(batch, 1), "bind", bound)).answer).toBe("moved");
      return found;
    };
    const deps = { ...depsOf(line), ledger: { ...ledger, readItem } };
    expect(await resolveUnclearItems((await standingOf(line, batch)).batch, "resend", null, deps)).toBe(2);
    expect((await statesOf(line, batch))[1]).toBe("1 running");
  });

  test.for(["resend", "fail"] as const)(
    "are all told, whenever whoever says %s dies and says it again",
    async (as, { line }) => {
      const { undisturbed, crashes } = await everyCrash<BatchId, unknown>({
        open: () => open(line),
        run: async (batch, wrap) =>
          resolveUnclearItems((await standingOf(line, batch)).batch, as, null, wrap(depsOf(line))),
        look: (batch) => statesOf(line, batch),
      });
      const told = as === "resend" ? "1 waiting" : "1 recording";
      expect(undisturbed).toEqual(["1 waiting", told, told, told]);
      expect(crashes.length).toBeGreaterThan(4);
      for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
    },
  );
});
