/** What tests of whole runs do with a fleet: submit, wait, and hold the outcome against the provider's books. */

import { createHash } from "node:crypto";
import { expect } from "vitest";
import { readResults } from "../../src/batches/read-results.ts";
import { type BatchReport, progressIn, reportBatch } from "../../src/batches/report-batch.ts";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { isSettled } from "../../src/core/batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import type { Target } from "../../src/core/prediction.ts";
import type { ResultLine } from "../../src/core/receipt.ts";
import type { Row } from "../../src/core/rows.ts";
import type { Fleet } from "./fleet.ts";

export function model(name: string): Target {
  return { kind: "model", owner: "outlast", name };
}

/** So many different prompts for `outlast/picture`, each with an id. */
export function* prompts(count: number): Generator<Row> {
  for (let at = 0; at < count; at++) {
    yield { id: `row-${at}`, input: { prompt: `prompt number ${at}` }, target: model("picture") };
  }
}

export async function submit(fleet: Fleet, rows: Iterable<Row>, name = "test"): Promise<BatchId> {
  const [account] = fleet.services.accounts;
  if (account === undefined) throw new Error("the fleet has no account");
  async function* readings() {
    let line = 0;
    for (const row of rows) yield { line: ++line, row };
  }
  const submitted = await submitBatch(
    readings(),
    { name, tenant: "default", account },
    { ...fleet.services, clock: Date.now },
  );
  return submitted.batch;
}

export async function report(fleet: Fleet, batch: BatchId): Promise<BatchReport> {
  const found = await reportBatch(fleet.services.ledger, batch);
  if (found === null) throw new Error(`Redis knows no batch ${batch}`);
  return found;
}

/** Items that have ended with a receipt. */
export async function endedItems(fleet: Fleet, batch: BatchId): Promise<number> {
  const { saved, failed } = await report(fleet, batch);
  return saved + failed;
}

/** Until nothing more happens by itself. */
export async function untilSettled(fleet: Fleet, batch: BatchId, timeout = 120_000): Promise<BatchReport> {
  const settled = async () => {
    const now = await report(fleet, batch);
    return isSettled(progressIn(now), now.paused);
  };
  await expect.poll(settled, { timeout, interval: 200 }).toBe(true);
  return report(fleet, batch);
}

export async function results(fleet: Fleet, batch: BatchId): Promise<readonly ResultLine[]> {
  const { account, items } = await report(fleet, batch);
  return Array.fromAsync(readResults(fleet.services, { account, id: batch, items }));
}

/** Every kept file is what the file host served, no two are the same, and the results stand in input order. */
export async function expectRightBytes(fleet: Fleet, batch: BatchId): Promise<void> {
  const served = new Set([...fleet.emulator.fileRows()].map((file) => file.sha256));
  const kept = new Set<string>();
  const lines = await results(fleet, batch);
  for (const [index, line] of lines.entries()) {
    expect(line.index).toBe(index);
    for (const output of line.outputs) {
      const bytes = await fleet.services.bucket.get(output.key, { maxBytes: 10_000_000 });
      const sha256 = createHash("sha256")
        .update(bytes ?? "")
        .digest("hex");
      expect(sha256).toBe(output.sha256);
      expect(served).toContain(sha256);
      kept.add(sha256);
    }
  }
  expect(kept.size).toBe((await report(fleet, batch)).metrics.output_files);
}
