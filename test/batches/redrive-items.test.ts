/** Items that are bought again by a person's word. */

import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { CannotHold, holdBatch } from "../../src/batches/hold-batch.ts";
import { readResults } from "../../src/batches/read-results.ts";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import { readInputJob } from "../../src/batches/single-input.ts";
import { readBatchActs } from "../../src/bucket/acts.ts";
import { readManifest, readReceipt } from "../../src/bucket/records.ts";
import { type BatchId, OBJECT_KEYS, parseItemId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import { everyCrash } from "../support/crash.ts";
import {
  buy,
  buyAndEnd,
  cancelOne,
  claim,
  end,
  FAILED,
  failedByProvider,
  feed,
  finish,
  redrive,
  refOf,
  savedAs,
  standingOf,
  statesOf,
} from "../support/life.ts";
import { ACCOUNT, ADMITTING, type Line, NOON, test } from "../support/stages.ts";

const BOTH = new Set(["failed", "canceled"] as const);

/** Five items: saved, failed in two ways, canceled, running. */
async function open(line: Line): Promise<BatchId> {
  await line.clear();
  const batch = await line.submit(Array.from({ length: 5 }, (_, n) => ({ prompt: `input ${n}` })));
  await feed(line);
  await buyAndEnd(line, refOf(batch, 0), savedAs(refOf(batch, 0)));
  await buyAndEnd(line, refOf(batch, 1), FAILED);
  await buyAndEnd(line, refOf(batch, 2), failedByProvider("E6716: start timeout"));
  await cancelOne(line, refOf(batch, 3));
  await buy(line, refOf(batch, 4));
  await line.redis.del(`bull:${QUEUE_NAMES.feed}:feed-${ACCOUNT}`);
  return batch;
}

const FIRST = ["1 saved", "1 failed", "1 failed", "1 canceled", "1 running"];

describe("a redrive", () => {
  test("opens another attempt of the failed items, which wait and are fed; it is recorded first", async ({ line }) => {
    const batch = await open(line);
    expect(await redrive(line, batch)).toBe(2);
    expect(await statesOf(line, batch)).toEqual(["1 saved", "2 waiting", "2 waiting", "1 canceled", "1 running"]);
    expect((await standingOf(line, batch)).counts).toMatchObject({
      saved: 1,
      waiting: 2,
      canceled: 1,
      running: 1,
      failed: 0,
    });
    expect(await line.ledger.failuresOf(ACCOUNT, batch)).toEqual([]);
    expect(await readBatchActs(line.bucket, batch)).toMatchObject([
      { act: "cancel", items: [3] },
      {
        act: "redrive",
        items: [
          [1, 1],
          [2, 1],
        ],
        atMs: NOON,
      },
    ]);
    expect(await line.jobs(QUEUE_NAMES.feed)).toHaveLength(1);
    await feed(line, { createBacklog: async () => 0 });
    const fed = (await line.jobs(QUEUE_NAMES.create(ACCOUNT))).map(({ id }) => id);
    expect(fed).toEqual(expect.arrayContaining([`${batch}-1-2`, `${batch}-2-2`]));
    expect((await claim(line, refOf(batch, 1, 2))).answer).toBe("moved");
    expect((await claim(line, refOf(batch, 1))).answer, "the first attempt is over").toBe("lost");
  });

  test("takes what is chosen, by end, index and error, and never what is saved or on its way", async ({ line }) => {
    const chosen = async (choice: Parameters<typeof redrive>[2]) => {
      const batch = await open(line);
      const opened = await redrive(line, batch, choice);
      const states = await statesOf(line, batch);
      expect(states.filter((state) => state === "2 waiting")).toHaveLength(opened);
      return states.flatMap((state, index) => (state === FIRST[index] ? [] : [index]));
    };
    expect(await chosen({ ends: BOTH })).toEqual([1, 2, 3]);
    expect(await chosen({ ends: new Set(["canceled"]) })).toEqual([3]);
    expect(
      await chosen({
        ends: BOTH,
        indexes: [
          [0, 1],
          [3, 90],
        ],
      }),
    ).toEqual([1, 3]);
    expect(await chosen({ error: "e6716" })).toEqual([2]);
    expect(await chosen({ ends: BOTH, error: "nothing like it" })).toEqual([]);
    expect(await chosen({ indexes: [[0, 0]] })).toEqual([]);
  });

  test("of nothing writes no act and wakes nobody; said again it does nothing", async ({ line }) => {
    const batch = await open(line);
    await redrive(line, batch);
    await line.redis.del(`bull:${QUEUE_NAMES.feed}:feed-${ACCOUNT}`);
    const before = await line.look();
    expect(await redrive(line, batch)).toBe(0);
    expect(await line.look()).toEqual(before);
  });

  test("keeps the first attempt's receipt and cost; the results line has both attempts", async ({ line }) => {
    const batch = await open(line);
    const first = await readReceipt(line.bucket, refOf(batch, 2));
    await redrive(line, batch, { indexes: [[2, 2]] });
    await buyAndEnd(line, refOf(batch, 2, 2), savedAs(refOf(batch, 2, 2)));
    expect(await readReceipt(line.bucket, refOf(batch, 2))).toEqual(first);
    const { batch: of, sums } = await standingOf(line, batch);
    expect(sums, "1.5 s of item 0, 2 s and 1.5 s of item 2").toMatchObject({
      predict_time_ms: 5_000n,
      output_files: 2n,
    });
    const lines = await Array.fromAsync(readResults(line, of));
    expect(lines[2]).toMatchObject({
      status: "saved",
      outputs: [{ key: OBJECT_KEYS.output(batch, 2, 2, 0, "png") }],
      attempts: [
        { attempt: 1, status: "failed", prediction_id: first?.prediction_id, error: "E6716: start timeout" },
        { attempt: 2, status: "saved", error: null },
      ],
    });
    expect(await line.ledger.failuresOf(ACCOUNT, batch)).toMatchObject([{ error: "NSFW", count: 1 }]);
  });

  test("opens a finished batch again, which then finishes with a new manifest", async ({ line }) => {
    const batch = await open(line);
    await line.ledger.move(refOf(batch, 4), "conclude", { nowMs: NOON });
    await line.ledger.move(refOf(batch, 4), "fail", { nowMs: NOON });
    await finish(line, batch);
    expect(await standingOf(line, batch)).toMatchObject({ finishedAtMs: NOON });
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([]);
    line.clock.forward(SECOND);
    await redrive(line, batch, { indexes: [[1, 1]] });
    expect(await standingOf(line, batch)).toMatchObject({ finishedAtMs: null });
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([batch]);
    await buyAndEnd(line, refOf(batch, 1, 2), savedAs(refOf(batch, 1, 2)));
    line.clock.forward(SECOND);
    await finish(line, batch);
    expect(await readManifest(line.bucket, batch)).toMatchObject({ saved: 2, finished_at: "2026-11-20T12:00:02.000Z" });
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([]);
  });

  test("of a canceled batch goes on with what is redriven, and waits for the cancel to be over", async ({ line }) => {
    const batch = await open(line);
    await holdBatch(await standingOf(line, batch), "cancel", line);
    await expect(redrive(line, batch)).rejects.toThrow(CannotHold);
    expect(await statesOf(line, batch)).toEqual(FIRST);
    await feed(line);
    // What runs is ended by the cancel, which a redrive would take back.
    await expect(redrive(line, batch, { ends: BOTH })).rejects.toThrow(/haven't ended yet/);
    expect((await readBatchActs(line.bucket, batch)).map(({ act }) => act)).not.toContain("redrive");
    await end(line, refOf(batch, 4), FAILED);
    expect(await redrive(line, batch, { ends: BOTH, indexes: [[2, 3]] })).toBe(2);
    expect(await standingOf(line, batch)).toMatchObject({ canceledAtMs: null });
    expect(await statesOf(line, batch)).toEqual(["1 saved", "1 failed", "2 waiting", "2 waiting", "1 failed"]);
    expect((await claim(line, refOf(batch, 3, 2))).answer).toBe("moved");
  });

  test("whose answer is lost tells of what it opened: the script that is sent again opens nothing more", async ({
    line,
  }) => {
    const batch = await open(line);
    const deps = worldOf(line);
    const twice: typeof deps.ledger.redrive = async (...of) => {
      await deps.ledger.redrive(...of);
      return deps.ledger.redrive(...of);
    };
    const ledger = { ...deps.ledger, redrive: twice };
    const { batch: of } = await standingOf(line, batch);
    expect(await redriveItems(of, { ends: BOTH }, { ...deps, ledger })).toBe(3);
    expect(await line.jobs(QUEUE_NAMES.feed), "the feed is woken").toHaveLength(1);
  });

  test("that is refused leaves no act: a lost Redis would be put right by it, and buy", async ({ line }) => {
    const batch = await open(line);
    await end(line, refOf(batch, 4), FAILED);
    await holdBatch(await standingOf(line, batch), "cancel", line);
    // All have ended, and the walk hasn't come by.
    await expect(redrive(line, batch)).rejects.toThrow(/haven't ended yet/);
    expect((await readBatchActs(line.bucket, batch)).map(({ act }) => act)).not.toContain("redrive");
    await feed(line);
    expect(await redrive(line, batch)).toBe(3);
  });

  test("of which a cancel comes between two slices says no more of it", async ({ line }) => {
    await line.clear();
    const batch = await line.submit(Array.from({ length: 501 }, (_, n) => ({ prompt: `input ${n}` })));
    await holdBatch(await standingOf(line, batch), "cancel", line);
    await feed(line);
    const deps = worldOf(line);
    const redriveAndCancel: typeof deps.ledger.redrive = async (...of) => {
      const opened = await deps.ledger.redrive(...of);
      await holdBatch(await standingOf(line, batch), "cancel", line);
      return opened;
    };
    const ledger = { ...deps.ledger, redrive: redriveAndCancel };
    await expect(
      redriveItems((await standingOf(line, batch)).batch, { ends: BOTH }, { ...deps, ledger }),
    ).rejects.toThrow(/haven't ended yet/);
    expect((await readBatchActs(line.bucket, batch)).map(({ act }) => act)).toEqual(["cancel", "redrive", "cancel"]);
  });

  test("of a batch of singles leaves void rows alone: their input is another item", async ({ line }) => {
    await line.clear();
    const data = { input: { prompt: "a" }, model: "outlast/text", id: "a" };
    const { item } = await openAdmission(line).admit(readInputJob({ jobId: "1", addedAtMs: NOON, data }, [ADMITTING]));
    const batch = parseItemId(item)?.batch ?? raise("no item");
    await line.ledger.publishPart({ id: batch, account: ACCOUNT }, { part: 1, first: 1, rows: 1, voidIndexes: [1] });
    await cancelOne(line, refOf(batch, 0));
    expect(await redrive(line, batch, { ends: BOTH })).toBe(1);
    expect(await statesOf(line, batch)).toEqual(["2 waiting", "1 canceled"]);
  });

  test("stops at the fifteenth attempt", async ({ line }) => {
    const batch = await open(line);
    for (let attempt = 2; attempt <= 15; attempt++) {
      expect(await redrive(line, batch, { indexes: [[1, 1]] }), `attempt ${attempt}`).toBe(1);
      await buyAndEnd(line, refOf(batch, 1, attempt), FAILED);
    }
    expect(await redrive(line, batch, { indexes: [[1, 1]] })).toBe(0);
    expect((await statesOf(line, batch))[1]).toBe("15 failed");
    expect((await readReceipt(line.bucket, refOf(batch, 1, 15)))?.attempts).toHaveLength(15);
  });

  test("killed after any effect and said again twice opens each attempt once", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash<BatchId, unknown>({
      open: () => open(line),
      run: async (batch, wrap) =>
        redriveItems((await standingOf(line, batch)).batch, { ends: BOTH }, wrap({ ...worldOf(line) })),
      look: async (batch) => ({
        states: await statesOf(line, batch),
        failures: await line.ledger.failuresOf(ACCOUNT, batch),
      }),
    });
    expect(undisturbed).toMatchObject({
      states: ["1 saved", "2 waiting", "2 waiting", "2 waiting", "1 running"],
      failures: [],
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("redrive");
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });
});

const worldOf = ({ bucket, ledger, queues, clock }: Line) => ({ bucket, ledger, queues, clock });

function raise(message: string): never {
  throw new Error(message);
}
