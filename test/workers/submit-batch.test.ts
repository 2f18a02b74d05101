import { describe, expect } from "vitest";
import { BadRows, type BatchOptions, checkRows, type RowReading, submitBatch } from "../../src/batches/submit-batch.ts";
import { parseRow } from "../../src/bucket/input-parts.ts";
import { noteWindow } from "../../src/bucket/window-notes.ts";
import { OBJECT_KEYS, QUEUE_NAMES } from "../../src/core/naming.ts";
import { HOUR } from "../../src/core/time.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, ADMITTING, type Line, linesOf, MODEL, NOON, objectsIn, test } from "../support/stages.ts";

const OPTIONS: BatchOptions = { name: "prompts", tenant: "default", account: ADMITTING };

async function* reading(rows: readonly RowReading[]): AsyncGenerator<RowReading> {
  yield* rows;
}

const goodRow = (n: number): RowReading => ({
  line: n + 1,
  row: { input: { prompt: `input ${n}`, odd: "ä\u2028" }, target: MODEL, ...(n % 2 === 0 && { id: `row ${n}` }) },
});
const goodRows = (count: number) => Array.from({ length: count }, (_, n) => goodRow(n));

const submit = ({ bucket, ledger, queues, clock }: Line, rows: readonly RowReading[], options = OPTIONS) =>
  submitBatch(reading(rows), options, { bucket, ledger, queues, clock });

test("a file becomes a batch with its own copy of the rows, and is fed", async ({ line }) => {
  await line.clear();
  const { batch, ...told } = await submit(line, goodRows(3));
  expect(told).toEqual({ items: 3, fresh: true });
  const rows = (await linesOf(line.bucket, OBJECT_KEYS.input(batch, 0))).map(parseRow);
  expect(rows).toEqual(goodRows(3).map((read) => "row" in read && { ...read.row, target: MODEL }));
  expect(Object.keys(await objectsIn(line.bucket))).toEqual([
    OBJECT_KEYS.batch(batch),
    OBJECT_KEYS.inputIndex(batch, 0),
    OBJECT_KEYS.input(batch, 0),
  ]);
  expect(await line.ledger.standing(ACCOUNT, batch)).toMatchObject({
    batch: { id: batch, kind: "file", name: "prompts", items: 3 },
    counts: { waiting: 3 },
  });
  expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([batch]);
  expect(await line.jobs(QUEUE_NAMES.feed)).toHaveLength(1);
});

test("the same file, options and name are the same batch; anything else is another", async ({ line }) => {
  await line.clear();
  const first = await submit(line, goodRows(3));
  line.clock.forward(HOUR);
  const before = await line.look();
  expect(await submit(line, goodRows(3))).toEqual({ ...first, fresh: false });
  expect(await line.look()).toEqual(before);

  const others = [
    await submit(line, goodRows(4)),
    await submit(line, goodRows(4), { ...OPTIONS, limit: 2 }),
    await submit(line, goodRows(3), { ...OPTIONS, name: "other" }),
    await submit(line, goodRows(3), { ...OPTIONS, tenant: "other" }),
    await submit(line, goodRows(3), { ...OPTIONS, again: true }),
    await submit(line, goodRows(3), { ...OPTIONS, again: true }),
  ];
  expect(others.map(({ fresh }) => fresh)).toEqual(others.map(() => true));
  expect(new Set([first, ...others].map(({ batch }) => batch)).size).toBe(7);
  expect(await submit(line, goodRows(9), { ...OPTIONS, limit: 3 }), "what is taken is what counts").toMatchObject({
    batch: first.batch,
    fresh: false,
  });
});

describe("bad rows", () => {
  const bad = (line: number): RowReading => ({ line, reason: `line ${line} is bad` });
  const version: RowReading = {
    line: 9,
    row: { input: {}, target: { kind: "version", version: "a".repeat(64) } },
  };

  async function refused(line: Line, rows: readonly RowReading[], options = OPTIONS): Promise<BadRows> {
    const error = await submit(line, rows, options).then(
      () => null,
      (thrown: unknown) => thrown,
    );
    expect(await objectsIn(line.bucket), "nothing in the bucket").toEqual({});
    expect(await line.redis.keys("*batch*"), "nothing in Redis").toEqual([]);
    if (!(error instanceof BadRows)) throw new Error(`not refused, but ${String(error)}`);
    expect(await checkRows(reading(rows), options).catch((thrown: unknown) => thrown)).toEqual(error);
    return error;
  }

  test("are all told, and nothing is submitted", async ({ line }) => {
    await line.clear();
    const { rows, more, message } = await refused(line, [...goodRows(500), bad(501), goodRow(501), bad(503)]);
    expect(rows).toEqual([bad(501), bad(503)]);
    expect({ more, message }).toEqual({ more: false, message: "2 bad rows; nothing was submitted" });
  });

  test("are told up to a hundred", async ({ line }) => {
    await line.clear();
    const { rows, more } = await refused(
      line,
      Array.from({ length: 150 }, (_, n) => bad(n + 1)),
    );
    expect({ rows: rows.length, more }).toEqual({ rows: 100, more: true });
  });

  test("are also those that the account can't run, or that name no model", async ({ line }) => {
    await line.clear();
    const options = { ...OPTIONS, account: { name: ACCOUNT, targets: new Set(["model"] as const) } };
    const { rows } = await refused(line, [goodRow(0), version, { line: 10, row: { input: {} } }], options);
    expect(rows.map(({ line: at }) => at)).toEqual([9, 10]);
    expect(rows[0]?.reason).toMatch(/can't run a version.*model/);
  });

  test("are what an empty file has", async ({ line }) => {
    await line.clear();
    expect((await refused(line, [])).rows).toEqual([{ line: 1, reason: "there are no rows" }]);
    expect((await refused(line, goodRows(3), { ...OPTIONS, limit: 0 })).rows).toHaveLength(1);
  });

  test("behind the limit don't count", async ({ line }) => {
    await line.clear();
    expect(await submit(line, [goodRow(0), bad(2)], { ...OPTIONS, limit: 1 })).toMatchObject({ items: 1 });
  });
});

test("a check counts the rows and writes nothing", async ({ line }) => {
  await line.clear();
  expect(await checkRows(reading(goodRows(7)), OPTIONS)).toBe(7);
  expect(await checkRows(reading(goodRows(7)), { ...OPTIONS, limit: 2 })).toBe(2);
  expect(await line.redis.keys("*batch*")).toEqual([]);
});

test("killed after any effect and submitted again twice, a batch is as if nothing had happened", async ({ line }) => {
  const { undisturbed, crashes } = await everyCrash({
    open: () => line.clear(),
    run: (_nothing, wrap) => {
      const { bucket, ledger, queues, clock } = line;
      return submitBatch(reading(goodRows(20)), OPTIONS, wrap({ bucket, ledger, queues, clock }));
    },
    look: async () => {
      const { objects, errands } = await line.look();
      const [batch] = await line.ledger.unfedBatches(ACCOUNT, 10);
      return { objects, errands, standing: batch === undefined ? null : await line.ledger.standing(ACCOUNT, batch) };
    },
  });
  expect(undisturbed.standing?.counts.waiting).toBe(20);
  expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual([
    "get",
    "putStream",
    "put",
    "putOnce",
    "openBatch",
    "wakeFeed",
  ]);
  for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
});

test("a batch that Redis has forgotten is put back as it was: what was given out may have been bought", async ({
  line,
}) => {
  await line.clear();
  const { batch } = await submit(line, goodRows(5));
  line.clock.forward(HOUR);
  const states = async () => (await line.ledger.readStates(ACCOUNT, batch, 0, 5)).map(({ state }) => state);
  await line.redis.flushall();
  expect(await submit(line, goodRows(5))).toEqual({ batch, items: 5, fresh: false });
  expect(await states()).toEqual(["waiting", "waiting", "waiting", "waiting", "waiting"]);
  expect(await line.ledger.standing(ACCOUNT, batch)).toMatchObject({
    batch: { name: "prompts", openedAtMs: NOON },
    cursor: 0,
  });

  await noteWindow(line.bucket, batch, { first: 0, last: 2, notedAtMs: NOON });
  await line.redis.flushall();
  expect(await submit(line, goodRows(5))).toEqual({ batch, items: 5, fresh: false });
  expect(await states()).toEqual(["unclear", "unclear", "unclear", "waiting", "waiting"]);
  const intents = await line.ledger.intents(ACCOUNT, "unclear", 10);
  expect(intents.map(({ fromMs, toMs }) => [fromMs, toMs])).toEqual([1, 2, 3].map(() => [NOON, NOON + HOUR]));
  expect(await line.ledger.unfedBatches(ACCOUNT, 10)).toEqual([batch]);
  expect(await line.ledger.listBatches(10)).toEqual([batch]);
  expect(await line.ledger.accountOf(batch)).toBe(ACCOUNT);
  expect((await submit(line, goodRows(5), { ...OPTIONS, again: true })).batch).not.toBe(batch);
});

test("killed after any effect and submitted again twice, a forgotten batch is put back whole", async ({ line }) => {
  const { undisturbed, crashes } = await everyCrash({
    open: async () => {
      await line.clear();
      const { batch } = await submit(line, goodRows(20));
      await noteWindow(line.bucket, batch, { first: 0, last: 9, notedAtMs: NOON });
      await line.redis.flushall();
    },
    run: (_nothing, wrap) => {
      const { bucket, ledger, queues, clock } = line;
      return submitBatch(reading(goodRows(20)), OPTIONS, wrap({ bucket, ledger, queues, clock }));
    },
    look: () => line.look(),
  });
  expect(crashes.map(({ diedAfter }) => diedAfter)).toContain("restoreBatch");
  for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
});
