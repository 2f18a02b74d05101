import { createHash } from "node:crypto";
import { describe, expect } from "vitest";
import { readResults } from "../../src/batches/read-results.ts";
import { reportBatch } from "../../src/batches/report-batch.ts";
import { writeResults } from "../../src/batches/write-results.ts";
import { writeManifest, writeReceipt } from "../../src/bucket/records.ts";
import { type AttemptRef, itemId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { buildReceipt, type Ending, type ResultLine } from "../../src/core/receipt.ts";
import { DAY, HOUR, MINUTE, SECOND } from "../../src/core/time.ts";
import type { BatchErrand } from "../../src/queues/queues.ts";
import { type FinishDeps, finishBatch } from "../../workers/finish-batch.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, linesOf, NOON, test } from "../support/stages.ts";

type World = { readonly line: Line; readonly errand: BatchErrand };

const ENDS: readonly Ending[] = [
  { end: "saved", error: null, answer: null, copied: [] },
  { end: "failed", error: "NSFW", answer: null, copied: [] },
  { end: "canceled", error: "by a person", answer: null, copied: [] },
];
const END_STEP = { saved: "save", failed: "fail", canceled: "cancel" } as const;

async function endItem(line: Line, ref: AttemptRef, ending: Ending): Promise<void> {
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  await line.ledger.move(ref, "refuse", { nowMs: NOON });
  const receipt = buildReceipt({
    ref,
    rowId: null,
    replyTo: null,
    webhookEvents: [],
    predictionId: null,
    claimedAtMs: NOON,
    recordedAtMs: NOON,
    earlier: [],
    ending,
  });
  await writeReceipt(line.bucket, ref, receipt);
  await line.ledger.move(ref, END_STEP[ending.end], {
    nowMs: NOON,
    sums: { predict_time_ms: 1_500n, output_bytes: 7n, output_files: 1n },
  });
}

/** A batch of four whose first `ended` items have ended. */
async function openWorld(line: Line, ended = 4): Promise<World> {
  await line.clear();
  const batch = await line.submit(Array.from({ length: 4 }, (_, n) => ({ prompt: `input ${n}` })));
  for (let index = 0; index < ended; index++) {
    const ending = ENDS[index % ENDS.length] as Ending;
    await endItem(line, { account: ACCOUNT, batch, index, attempt: 1 }, ending);
  }
  return { line, errand: { account: ACCOUNT, batch } };
}

function depsOf({ line }: World): FinishDeps {
  const { bucket, ledger, clock } = line;
  return {
    standing: ({ account, batch }) => ledger.standing(account, batch),
    writeResults: (standing, signal) => writeResults({ bucket, ledger }, standing, signal),
    writeManifest: (batch, manifest) => writeManifest(bucket, batch, manifest),
    noteFinished: ({ batch: { account, id }, openings }, nowMs) => ledger.finishBatch(account, id, nowMs, openings),
    clock,
  };
}

const signal = new AbortController().signal;
const run = (world: World, deps = depsOf(world)) => finishBatch(world.errand, deps, signal);
const manifestOf = async ({ line, errand }: World) => {
  const body = await line.bucket.get(OBJECT_KEYS.manifest(errand.batch), { maxBytes: 1e6 });
  return body === null ? null : (JSON.parse(body.toString()) as Record<string, unknown>);
};

test("a batch whose items have all ended gets its results in input order, then its manifest", async ({ line }) => {
  const world = await openWorld(line);
  const { batch } = world.errand;
  line.clock.forward(HOUR);
  await run(world);

  const lines = await linesOf(line.bucket, OBJECT_KEYS.results(batch));
  const results = lines.map((text) => JSON.parse(text) as ResultLine);
  expect(results.map(({ index, item, status }) => ({ index, item, status }))).toEqual(
    ["saved", "failed", "canceled", "saved"].map((status, index) => ({ index, item: itemId(batch, index), status })),
  );
  const body = `${lines.join("\n")}\n`;
  expect(await manifestOf(world)).toEqual({
    batch,
    name: "a batch",
    account: ACCOUNT,
    items: 4,
    saved: 2,
    failed: 1,
    canceled: 1,
    metrics: { predict_time: 6, output_files: 4, output_bytes: 28 },
    results: {
      key: OBJECT_KEYS.results(batch),
      bytes: Buffer.byteLength(body),
      sha256: createHash("sha256").update(body).digest("hex"),
    },
    opened_at: "2026-11-20T12:00:00.000Z",
    finished_at: "2026-11-20T13:00:00.000Z",
  });
  expect(await reportBatch(line.ledger, batch)).toMatchObject({
    state: "finished",
    items: 4,
    saved: 2,
    failed: 1,
    canceled: 1,
    waiting: 0,
    in_flight: 0,
    finished_at: "2026-11-20T13:00:00.000Z",
    metrics: { predict_time: 6, output_files: 4, output_bytes: 28 },
  });
  expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([]);
});

test("a batch with an item that hasn't ended is left alone, and its results can be read all the same", async ({
  line,
}) => {
  const world = await openWorld(line, 3);
  const ref: AttemptRef = { account: ACCOUNT, batch: world.errand.batch, index: 3, attempt: 1 };
  const statusOfLast = async () => {
    const source = { bucket: line.bucket, ledger: line.ledger };
    const lines = await Array.fromAsync(readResults(source, { account: ACCOUNT, id: ref.batch, items: 4 }));
    expect(lines.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    return lines[3]?.status;
  };
  expect(await statusOfLast()).toBe("waiting");
  await line.ledger.move(ref, "claim", { nowMs: NOON, nonce: "n" });
  expect(await statusOfLast()).toBe("in_flight");
  await line.ledger.move(ref, "doubt", { nowMs: NOON });
  expect(await statusOfLast()).toBe("unclear");
  expect(await run(world)).toEqual({ kind: "done" });
  expect(await manifestOf(world)).toBeNull();
  expect(await reportBatch(line.ledger, ref.batch)).toMatchObject({ state: "running", unclear: 1, finished_at: null });
});

describe("a batch of which an item is opened again while its results are written", () => {
  /** A person redrives item 1 at that moment. */
  async function finishWhileRedriven(world: World) {
    const { line, errand } = world;
    const deps = depsOf(world);
    const writeResults: FinishDeps["writeResults"] = async (standing, aborted) => {
      const written = await deps.writeResults(standing, aborted);
      line.clock.forward(MINUTE);
      await line.ledger.redrive({ id: errand.batch, account: ACCOUNT }, [{ index: 1, ended: 1 }], line.clock());
      return written;
    };
    return run(world, { ...deps, writeResults });
  }

  test("isn't finished: it is fed on, and has its end when that item has", async ({ line }) => {
    const world = await openWorld(line);
    const { batch } = world.errand;
    expect(await finishWhileRedriven(world)).toEqual({ kind: "snooze", untilMs: NOON + MINUTE + SECOND });
    expect(await reportBatch(line.ledger, batch)).toMatchObject({ state: "running", waiting: 1, finished_at: null });
    expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([batch]);
    expect(await line.ledger.unfinishedBatches(ACCOUNT, 10)).toEqual([batch]);
    expect(await manifestOf(world), "older than the redrive").toMatchObject({
      finished_at: "2026-11-20T12:00:00.000Z",
    });
    expect(await run(world)).toEqual({ kind: "done" });

    await endItem(line, { account: ACCOUNT, batch, index: 1, attempt: 2 }, ENDS[0] as Ending);
    await run(world);
    expect(await manifestOf(world)).toMatchObject({ saved: 3, failed: 0, finished_at: "2026-11-20T12:01:00.000Z" });
    expect(await reportBatch(line.ledger, batch)).toMatchObject({ state: "finished", saved: 3 });
  });

  test("and ends at once as it had ended, is finished with the results of its last attempt", async ({ line }) => {
    const world = await openWorld(line);
    const deps = depsOf(world);
    const ref: AttemptRef = { account: ACCOUNT, batch: world.errand.batch, index: 1, attempt: 2 };
    const writeManifest: FinishDeps["writeManifest"] = async (batch, manifest) => {
      await line.ledger.redrive({ id: batch, account: ACCOUNT }, [{ index: 1, ended: 1 }], NOON);
      await endItem(line, ref, ENDS[1] as Ending);
      return deps.writeManifest(batch, manifest);
    };
    expect(await run(world, { ...deps, writeManifest })).toMatchObject({ kind: "snooze" });
    expect(await run(world)).toEqual({ kind: "done" });
    const [, second = ""] = await linesOf(line.bucket, OBJECT_KEYS.results(ref.batch));
    expect((JSON.parse(second) as ResultLine).attempts.map(({ attempt }) => attempt)).toEqual([2]);
    expect(await reportBatch(line.ledger, ref.batch)).toMatchObject({ state: "finished" });
  });
});

test("a batch that nobody knows is no trouble", async ({ line }) => {
  const world = await openWorld(line, 0);
  await line.redis.flushall();
  expect(await run(world)).toEqual({ kind: "done" });
  expect(await reportBatch(line.ledger, world.errand.batch)).toBeNull();
});

test("a batch of singles is finished when its day is over, not before", async ({ line }) => {
  const world = await openWorld(line);
  const deps = depsOf(world);
  const standing: FinishDeps["standing"] = async (errand) => {
    const found = await deps.standing(errand);
    return found === null ? null : { ...found, batch: { ...found.batch, kind: "singles" } };
  };
  line.clock.forward(12 * HOUR - 1);
  await run(world, { ...deps, standing });
  expect(await manifestOf(world)).toBeNull();
  // Whoever came at the day's last moment still has a while to publish a part.
  line.clock.forward(DAY + MINUTE);
  await run(world, { ...deps, standing });
  expect(await manifestOf(world)).toMatchObject({ items: 4 });
});

describe("killed after any effect and run again twice,", () => {
  test("the finish of a batch ends as if nothing had happened", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: () => openWorld(line),
      run: (world, wrap) => run(world, wrap(depsOf(world))),
      look: ({ line: { look } }) => look(),
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual([
      "standing",
      "writeResults",
      "writeManifest",
      "noteFinished",
    ]);
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });

  test("a manifest that stands is not written again, so the end that it tells stays", async ({ line }) => {
    const world = await openWorld(line);
    const deps = depsOf(world);
    const noteFinished = () => Promise.reject(new Error("died"));
    await expect(run(world, { ...deps, noteFinished })).rejects.toThrow("died");
    const first = await manifestOf(world);
    line.clock.forward(HOUR);
    await run(world);
    expect(await manifestOf(world)).toEqual(first);
  });
});
