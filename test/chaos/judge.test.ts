/**
 * A judge that finds nothing proves nothing: here is each thing that it must find, and a run in which there is nothing
 * to find.
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test as base, describe, expect } from "vitest";
import type { Bucket } from "../../src/bucket/bucket.ts";
import { openFileBucket } from "../../src/bucket/file-bucket.ts";
import type { PredictionRow } from "../../src/emulator/books.ts";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import type { BatchReport, ResultLine } from "../../src/index.ts";
import { type Decisions, purchasesOf } from "./decisions.ts";
import { digestIn, foreignOrder, type Item } from "./items.ts";
import { judge, type Outcome, type Verdict } from "./judge.ts";
import { sha256, wantedOf } from "./outputs.ts";

type Case = {
  readonly emulator: Emulator;
  readonly bucket: Bucket;
  /** As it ought to be. */
  readonly outcome: Outcome;
};

const PICTURE = { id: "picture", model: "outlast/picture", input: { prompt: "a lighthouse", width: 64, height: 64 } };
const ITEMS: readonly Item[] = [
  PICTURE,
  { ...PICTURE, id: "its twin" },
  { id: "nested", model: "outlast/nested", input: { prompt: "two herons" } },
  { id: "refused", model: "outlast/moderated", input: { prompt: "rain" } },
];
const NONE: Decisions = { redriven: new Map(), retries: () => false };
const ZEROS = { "paid twice": 0, lost: 0, wrong: 0, unclear: 0, books: 0, foreign: 0 };

// oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
const test = base.extend("world", async ({}, { onCleanup }): Promise<Case> => {
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-judge-"));
  const instantly = { medianMs: 0, spread: 0 };
  const emulator = await startEmulator({ seed: "judge", queueMs: instantly, runMs: { medianMs: 20, spread: 0 } });
  onCleanup(async () => {
    await emulator.close();
    await rm(folder, { recursive: true, force: true });
  });
  const bucket = await openFileBucket(folder);
  const lines: ResultLine[] = [];
  for (const item of ITEMS) lines.push(await lineOf(item, lines.length, await create(emulator, item), bucket));
  emulator.buyForeign(foreignOrder(0));
  await expect.poll(() => running(emulator)).toBe(0);
  return { emulator, bucket, outcome: { items: ITEMS, lines, reports: [reportOf(emulator, lines)], decisions: NONE } };
});

test("nothing is found where nothing is wrong", async ({ world }) => {
  const { emulator, bucket, outcome } = world;
  expect(await judge(outcome, emulator, bucket, null)).toEqual({
    creates: ITEMS.length,
    decided: ITEMS.length,
    counts: ZEROS,
    undecidable: 0,
    offenders: [],
  });
});

test("an input that was bought once too often is found, a twin's second purchase isn't one", async ({ world }) => {
  const { emulator } = world;
  await create(emulator, PICTURE);
  await expect.poll(() => running(emulator)).toBe(0);
  expect((await verdictOn(world)).counts).toEqual({ ...ZEROS, "paid twice": 1 });
});

describe("what was bought again by decision", () => {
  const REFUSED = 3;

  /** The refused item with another attempt, which was refused too. */
  async function boughtAgain({ emulator, outcome }: Case): Promise<Outcome> {
    const refused = outcome.lines[REFUSED] as ResultLine;
    const first = { attempt: 1, status: "failed", prediction_id: refused.prediction_id, error: "flagged", metrics: {} };
    const second = { ...first, attempt: 2, prediction_id: await create(emulator, ITEMS[REFUSED] as Item) } as const;
    await expect.poll(() => running(emulator)).toBe(0);
    const line = { ...refused, prediction_id: second.prediction_id, attempts: [first, second] } as ResultLine;
    const lines = outcome.lines.with(REFUSED, line);
    return { ...outcome, lines, reports: [reportOf(emulator, lines)] };
  }

  const byPeople = (ended: readonly number[]): Decisions => ({
    redriven: new Map([[`item ${REFUSED}`, new Set(ended)]]),
    retries: () => false,
  });

  test("isn't paid twice, and is billed with what came before", async ({ world }) => {
    const verdict = await verdictOn(world, { ...(await boughtAgain(world)), decisions: byPeople([1]) });
    expect(verdict).toMatchObject({ counts: ZEROS, decided: ITEMS.length + 1, creates: ITEMS.length + 1 });
  });

  test("is paid twice where nobody decided it, also by who retries what didn't fail by itself", async ({ world }) => {
    const outcome = await boughtAgain(world);
    for (const decisions of [NONE, { ...NONE, retries: () => true }]) {
      expect((await verdictOn(world, { ...outcome, decisions })).counts).toEqual({ ...ZEROS, "paid twice": 1 });
    }
  });

  test("is lost where it was decided once more and never bought", async ({ world }) => {
    const outcome = await boughtAgain(world);
    expect((await verdictOn(world, { ...outcome, decisions: byPeople([1, 2]) })).counts).toEqual({ ...ZEROS, lost: 1 });
  });

  test("is billed for what came before, also where the next attempt is unclear for good", async ({ world }) => {
    const { emulator, bucket, outcome } = world;
    const refused = outcome.lines[REFUSED] as ResultLine;
    const attempts = [{ attempt: 1, status: "failed", prediction_id: refused.prediction_id, error: "no", metrics: {} }];
    const unclear = { ...refused, status: "unclear", prediction_id: null, attempts } as ResultLine;
    const lines = outcome.lines.with(REFUSED, unclear);
    const told = { ...outcome, lines, reports: [reportOf(emulator, lines)], decisions: byPeople([1]) };
    const verdict = await judge(told, emulator, bucket, { leavesOpen: () => true });
    expect(verdict).toMatchObject({ counts: ZEROS, undecidable: 1, decided: ITEMS.length + 1, creates: ITEMS.length });
  });

  test("is wrong where an earlier attempt holds what another item holds", async ({ world }) => {
    const outcome = await boughtAgain(world);
    const refused = outcome.lines[REFUSED] as ResultLine;
    const [, second] = refused.attempts;
    const stolen = { ...second, attempt: 1, prediction_id: outcome.lines[0]?.prediction_id ?? null };
    const lines = outcome.lines.with(REFUSED, { ...refused, attempts: [stolen, second] } as ResultLine);
    const { counts } = await verdictOn(world, { ...outcome, lines, decisions: byPeople([1]) });
    expect(counts.wrong).toBeGreaterThan(0);
  });

  test("is decided by a batch that retries, once, and only where the provider's books say that it failed by itself", () => {
    const row = (model: string, status: string) => ({ model, status }) as PredictionRow;
    const attempts = ["a", "b"].map((id, at) => ({ attempt: at + 1, prediction_id: id }));
    const line = { item: "x", prediction_id: "b", attempts } as unknown as ResultLine;
    const purchases = (of: PredictionRow, retries: boolean) =>
      purchasesOf(
        line,
        { ...NONE, retries: () => retries },
        new Map([
          ["a", of],
          ["b", row("outlast/flaky", "failed")],
        ]),
      );
    expect(purchases(row("outlast/flaky", "failed"), true), "the second isn't followed").toBe(2);
    expect(purchases(row("outlast/flaky", "failed"), false)).toBe(1);
    expect(purchases(row("outlast/flaky", "succeeded"), true)).toBe(1);
    expect(purchases(row("outlast/moderated", "failed"), true)).toBe(1);
  });
});

test("an item that is nowhere, still waits, was canceled or failed for nothing is lost", async ({ world }) => {
  const [first, ...others] = world.outcome.lines;
  expect((await verdictOn(world, { lines: others })).counts.lost).toBe(1);
  for (const status of ["waiting", "in_flight", "canceled", "failed"] as const) {
    const lines = [{ ...first, status } as ResultLine, ...others];
    expect((await verdictOn(world, { lines })).counts.lost, status).toBe(1);
  }
});

test("a file with other bytes, a file that is missing and another text are wrong", async ({ world }) => {
  const { bucket, outcome } = world;
  const nested = outcome.lines[2] as ResultLine;
  const lines = outcome.lines.with(2, { ...nested, output: { ...(nested.output as object), title: "three herons" } });
  expect((await verdictOn(world, { lines })).counts.wrong).toBe(1);

  const [file] = nested.outputs;
  await bucket.put(file?.key ?? "", Buffer.alloc(file?.bytes ?? 0), { contentType: "image/png" });
  expect((await verdictOn(world)).counts.wrong).toBe(1);
  await bucket.delete(file?.key ?? "");
  expect((await verdictOn(world)).counts.wrong).toBe(1);
});

test("a prediction that two items hold, or that was bought for another or by another, is wrong", async ({ world }) => {
  const [first, twin, nested] = world.outcome.lines as readonly [ResultLine, ResultLine, ResultLine];
  const holding = (of: ResultLine) => world.outcome.lines.with(1, { ...twin, prediction_id: of.prediction_id });
  expect((await verdictOn(world, { lines: holding(first) })).counts).toMatchObject({ wrong: 2, books: 1 });
  expect((await verdictOn(world, { lines: holding(nested) })).counts.wrong).toBe(3);
  const [stranger] = world.emulator.buyForeign({ model: PICTURE.model, input: PICTURE.input });
  await expect.poll(() => running(world.emulator)).toBe(0);
  expect((await verdictOn(world, { lines: holding({ ...first, prediction_id: stranger ?? "" }) })).counts.wrong).toBe(
    1,
  );
});

test("an item that is unclear is found, unless the evidence leaves it open", async ({ world }) => {
  const { emulator, bucket, outcome } = world;
  const lines = outcome.lines.with(0, { ...(outcome.lines[0] as ResultLine), status: "unclear", prediction_id: null });
  expect((await verdictOn(world, { lines })).counts.unclear).toBe(1);
  const open = await judge({ ...outcome, lines }, emulator, bucket, { leavesOpen: () => true });
  expect(open.counts.unclear).toBe(0);
  expect(open.undecidable).toBe(1);
});

test("totals that aren't the provider's are found", async ({ world }) => {
  const [report] = world.outcome.reports as readonly [BatchReport];
  for (const metric of ["predict_time", "output_files", "output_bytes"] as const) {
    const metrics = { ...report.metrics, [metric]: report.metrics[metric] + 1 };
    expect((await verdictOn(world, { reports: [{ ...report, metrics }] })).counts, metric).toEqual({
      ...ZEROS,
      books: 1,
    });
  }
});

test("a stranger's prediction that was canceled is found", async ({ world }) => {
  const { emulator } = world;
  const [id] = emulator.buyForeign({ model: "outlast/slow", input: { prompt: "somebody else's", seconds: 600 } });
  await ask(emulator, `predictions/${id}/cancel`, {});
  await expect.poll(() => running(emulator)).toBe(0);
  expect((await verdictOn(world)).counts).toEqual({ ...ZEROS, foreign: 1 });
});

function verdictOn({ emulator, bucket, outcome }: Case, otherwise: Partial<Outcome> = {}): Promise<Verdict> {
  return judge({ ...outcome, ...otherwise }, emulator, bucket, null);
}

async function create(emulator: Emulator, { model, input }: Item): Promise<string> {
  return (await ask(emulator, `models/${model}/predictions`, { input })).id;
}

async function ask(emulator: Emulator, route: string, body: unknown): Promise<{ readonly id: string }> {
  const headers = { authorization: "Bearer r8_emulator", "content-type": "application/json" };
  const answer = await fetch(`${emulator.apiUrl}/${route}`, { method: "POST", headers, body: JSON.stringify(body) });
  return (await answer.json()) as { readonly id: string };
}

function running(emulator: Emulator): number {
  const { predictions, foreign } = emulator.books();
  return [predictions, foreign.predictions].reduce((sum, { starting, processing }) => sum + starting + processing, 0);
}

/** What Outlast would say of an item that was kept as it ought to be. */
async function lineOf(item: Item, index: number, prediction: string, bucket: Bucket): Promise<ResultLine> {
  const hasFailed = item.model === "outlast/moderated";
  const { output, files } = hasFailed ? { output: null, files: new Map<string, Buffer>() } : wantedOf(item);
  const outputs: ResultLine["outputs"][number][] = [];
  let shown = JSON.stringify(output);
  for (const [place, bytes] of files) {
    const key = `${digestIn(item)}/${index}/${outputs.length}`;
    await bucket.put(key, bytes, { contentType: "image/png" });
    outputs.push({ key, url: key, bytes: bytes.length, sha256: sha256(bytes), content_type: "image/png" });
    shown = shown.replaceAll(JSON.stringify(place), JSON.stringify(key));
  }
  return {
    index,
    item: `item ${index}`,
    id: item.id,
    status: hasFailed ? "failed" : "saved",
    prediction_id: prediction,
    output: JSON.parse(shown),
    outputs,
    error: hasFailed ? "flagged" : null,
    metrics: {},
    attempts: [],
  };
}

function reportOf(emulator: Emulator, lines: readonly ResultLine[]): BatchReport {
  const outputs = lines.flatMap((line) => line.outputs);
  return {
    saved: lines.filter(({ status }) => status === "saved").length,
    failed: lines.filter(({ status }) => status === "failed").length,
    canceled: 0,
    finished_at: null,
    metrics: {
      predict_time: Number(emulator.books().bills.predict_seconds),
      output_files: outputs.length,
      output_bytes: outputs.reduce((sum, { bytes }) => sum + bytes, 0),
    },
  } as BatchReport;
}
