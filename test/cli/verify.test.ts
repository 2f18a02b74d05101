/** `outlast verify` of a real run: what it finds where everything is right, and where somebody had a hand in the bucket. */

import { open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { VerifyFinding, VerifyTotals } from "../../src/batches/verify-batch.ts";
import { itemId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { model, prompts, results, submit, untilSettled } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { jsonLines, lines, outlast } from "./outlast.ts";

const QUICK = { runMs: { medianMs: 50, spread: 0 }, queueMs: { medianMs: 20, spread: 0 } };

type Verified = {
  readonly code: number | null;
  readonly totals: VerifyTotals;
  readonly findings: readonly Exclude<VerifyFinding, VerifyTotals>[];
};

async function verify({ env }: Fleet, ...args: readonly string[]): Promise<Verified> {
  const { code, stdout } = await outlast(["verify", ...args, "--json"], { env });
  const findings = jsonLines<VerifyFinding>(stdout);
  const totals = findings.at(-1);
  if (totals?.finding !== "batch") throw new Error(`the last line holds no totals:\n${stdout}`);
  expect(totals.exit_code).toBe(code);
  return { code, totals, findings: findings.flatMap((finding) => (finding.finding === "batch" ? [] : [finding])) };
}

test("every file is as its receipt says, and every hand in the bucket is found", { timeout: 120_000 }, async () => {
  await using fleet = await startFleet({ emulator: QUICK });
  const worker = fleet.startWorker();
  const batch = await submit(fleet, [
    ...prompts(6),
    { input: { prompt: "four of them" }, target: model("pictures") },
    { input: { prompt: "made two, and failed", made: 2 }, target: model("halting") },
    { input: { prompt: "words" }, target: model("text") },
    { input: { prompt: "files and words" }, target: model("nested") },
    { input: { bytes: 30_000_000 }, target: model("large") },
  ]);
  await untilSettled(fleet, batch);
  await worker.stop();
  const kept = await results(fleet, batch);
  const files = kept.flatMap(({ outputs }) => outputs);
  expect(files).toHaveLength(6 + 4 + 2 + 3 + 1);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);

  const totals = { finding: "batch", batch, items: 11, receipts: 11, files: files.length, bytes, faults: 0 };
  expect(await verify(fleet, batch)).toEqual({
    code: 0,
    totals: { ...totals, deep: false, read: 0, exit_code: 0 },
    findings: [],
  });
  expect(await verify(fleet, batch, "--deep")).toEqual({
    code: 0,
    totals: { ...totals, deep: true, read: files.length, exit_code: 0 },
    findings: [],
  });

  const pathOf = (url: string | undefined) => (url ?? "").slice("file:".length);
  const [flipped, cut, gone] = kept.map(({ outputs }) => outputs[0]);
  await flipByte(pathOf(flipped?.url), 100);
  await truncate(pathOf(cut?.url), (cut?.bytes ?? 0) - 1);
  await rm(pathOf(gone?.url));
  await rm(pathOf(fleet.services.bucket.urlOf(OBJECT_KEYS.receipt(batch, 3, 1))));
  await writeFile(pathOf(fleet.services.bucket.urlOf(OBJECT_KEYS.receipt(batch, 4, 1))), "{");

  const found = (index: number, finding: string, key: string | null = null) => ({
    finding,
    batch,
    item: itemId(batch, index),
    index,
    attempt: 1,
    key,
    url: key === null ? null : fleet.services.bucket.urlOf(key),
    what: expect.any(String),
  });
  const shallow = [
    found(1, "length", cut?.key),
    found(2, "missing", gone?.key),
    found(3, "receipt"),
    found(4, "receipt"),
  ];
  expect(await verify(fleet, batch)).toMatchObject({ code: 2, findings: shallow, totals: { faults: 4, receipts: 9 } });
  const deep = await verify(fleet, batch, "--deep");
  expect(deep).toMatchObject({ code: 2, findings: [found(0, "bytes", flipped?.key), ...shallow] });

  const { code, stdout } = await outlast(["verify", batch, "--deep"], { env: fleet.env });
  expect(code).toBe(2);
  const shown = lines(stdout);
  expect(shown).toHaveLength(6);
  expect(shown[0]).toMatch(/^bytes: item .{26}, attempt 1, file:.*output-0\.png: its SHA-256 is /);
  expect(shown.at(-1)).toMatch(/^11 items, 9 receipts, 14 files, .*: 5 findings \(12 read and hashed\)$/);
});

async function flipByte(path: string, at: number): Promise<void> {
  const byte = (await readFile(path))[at] ?? 0;
  const file = await open(path, "r+");
  await file.write(Buffer.from([byte ^ 1]), 0, 1, at);
  await file.close();
}
