/** Rows to measure with: real prompts where the file of them lies beside the project, else made ones. */

import { createReadStream, existsSync } from "node:fs";
import type { Target } from "../../src/core/prediction.ts";
import { type ReadRow, readRows } from "../../src/rows/read-rows.ts";

const REAL_PROMPTS = new URL("../../../shared/data/PartiPrompts.tsv", import.meta.url);

export function areRealPromptsHere(): boolean {
  return existsSync(REAL_PROMPTS);
}

export function targetOf(model: "picture" | "text" | "slow"): Target {
  return { kind: "model", owner: "outlast", name: model };
}

/** 1,632 rows, all different. */
export async function* realRows(model: "picture" | "text", count: number): AsyncGenerator<ReadRow> {
  const options = {
    format: "tsv",
    target: targetOf(model),
    map: [{ key: "prompt", type: "string", column: "Prompt" }],
  } as const;
  let left = count;
  for await (const row of readRows(createReadStream(REAL_PROMPTS), options)) {
    if (left-- <= 0) return;
    yield row;
  }
}

/** As many as one likes, all different, about as long as the real ones. */
export async function* madeRows(
  model: "picture" | "text" | "slow",
  count: number,
  signal: AbortSignal,
): AsyncGenerator<ReadRow> {
  const target = targetOf(model);
  for (let line = 1; line <= count; line++) {
    if (line % 10_000 === 0) signal.throwIfAborted();
    const input = { prompt: `number ${line} of the prompts that nobody wrote` };
    yield { line, row: { id: `row-${line}`, input, target } };
  }
}
