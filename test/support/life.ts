/** Takes items through their lives on a line, by the stages' own functions. */

import { cancelItem } from "../../src/batches/cancel-item.ts";
import { placeItems } from "../../src/batches/place-items.ts";
import { type RedriveChoice, redriveItems } from "../../src/batches/redrive-items.ts";
import { keepEnding } from "../../src/bucket/endings.ts";
import { readRow, type StoredRow } from "../../src/bucket/input-parts.ts";
import { writeManifest } from "../../src/bucket/records.ts";
import type { ItemByte } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { answerOf, type Ending } from "../../src/core/receipt.ts";
import type { BatchStanding, MoveAnswer } from "../../src/ledger/ledger.ts";
import { type FeedDeps, feedBatches } from "../../workers/feed-batches.ts";
import { finishBatch } from "../../workers/finish-batch.ts";
import { recordMetrics } from "../../workers/record-metrics.ts";
import { feedEffects, recordEffects } from "./effects.ts";
import { ACCOUNT, type Line, predictionOf } from "./stages.ts";

export function refOf(batch: BatchId, index: number, attempt = 1): AttemptRef {
  return { account: ACCOUNT, batch, index, attempt };
}

export async function standingOf({ ledger }: Line, batch: BatchId): Promise<BatchStanding> {
  const standing = await ledger.standing(ACCOUNT, batch);
  if (standing === null) throw new Error(`Redis knows no batch ${batch}`);
  return standing;
}

/** All items of a batch, as `1 waiting`. */
export async function statesOf(line: Line, batch: BatchId): Promise<readonly string[]> {
  const { items } = (await standingOf(line, batch)).batch;
  const states: readonly ItemByte[] = await line.ledger.readStates(ACCOUNT, batch, 0, items);
  return states.map(({ attempt, state }) => `${attempt} ${state}`);
}

// ── the feed ──────────────────────────────────────────────────────────────────

export async function feed(line: Line, fields: Partial<FeedDeps> = {}): Promise<void> {
  await feedBatches({ account: ACCOUNT }, { ...feedEffects(line, 60), windowRows: 4, ...fields });
}

// ── an attempt ────────────────────────────────────────────────────────────────

export const FAILED: Ending = { end: "failed", error: "NSFW", answer: null, copied: [] };

/** Failed by the provider's own doing, after two seconds. */
export function failedByProvider(error: string | null): Ending {
  const prediction = predictionOf("any", { status: "failed", error, metrics: { predict_time: 2 } });
  return { end: "failed", error: null, answer: answerOf(prediction), copied: [] };
}

/** With one file, after a second and a half. */
export function savedAs({ batch, index, attempt }: AttemptRef): Ending {
  const from = `https://replicate.delivery/${index}/out.png`;
  const answer = predictionOf("any", { status: "succeeded", output: from, metrics: { predict_time: 1.5 } });
  const key = OBJECT_KEYS.output(batch, index, attempt, 0, "png");
  const file = { from, key, url: `file:/${key}`, bytes: 70_000, sha256: "5a", content_type: "image/png" };
  return { end: "saved", error: null, answer: answerOf(answer), copied: [file] };
}

export function claim({ ledger, clock }: Line, ref: AttemptRef): Promise<MoveAnswer> {
  return ledger.move(ref, "claim", { nowMs: clock(), nonce: nonceOf(ref) });
}

export function nonceOf({ index, attempt }: AttemptRef): string {
  return `nonce-${index}-${attempt}`;
}

/** Answers the prediction's id. */
export async function buy(line: Line, ref: AttemptRef): Promise<string> {
  const id = `p-${ref.batch.slice(0, 4)}-${ref.index}-${ref.attempt}`;
  const nowMs = line.clock();
  for (const moved of [
    await claim(line, ref),
    await line.ledger.move(ref, "bind", { nowMs, predictionId: predictionId(id) }),
  ]) {
    if (moved.answer !== "moved") throw new Error(`item ${ref.index} wasn't bought: ${moved.answer}`);
  }
  return id;
}

/** To its receipt, and past it. */
export async function end(line: Line, ref: AttemptRef, ending: Ending): Promise<void> {
  const { bucket, ledger, clock } = line;
  await ledger.move(ref, "conclude", { nowMs: clock(), set: { ending: await keepEnding(bucket, ref, ending) } });
  await record(line, ref);
}

export async function buyAndEnd(line: Line, ref: AttemptRef, ending: Ending): Promise<void> {
  await buy(line, ref);
  await end(line, ref, ending);
}

export async function record(line: Line, ref: AttemptRef): Promise<void> {
  await recordMetrics(ref, recordEffects(line));
}

export async function finish({ bucket, ledger, clock }: Line, batch: BatchId): Promise<void> {
  const deps = {
    standing: () => ledger.standing(ACCOUNT, batch),
    writeResults: async () => ({ bytes: 1, sha256: String(clock()) }),
    writeManifest: (id: BatchId, manifest: Parameters<typeof writeManifest>[2]) => writeManifest(bucket, id, manifest),
    noteFinished: ({ openings }: BatchStanding) => ledger.finishBatch(ACCOUNT, batch, clock(), openings),
    clock,
  };
  await finishBatch({ account: ACCOUNT, batch }, deps, new AbortController().signal);
}

// ── what people do ────────────────────────────────────────────────────────────

export async function rowOf({ bucket, ledger }: Line, { account, batch, index }: AttemptRef): Promise<StoredRow> {
  const [place] = await placeItems({ bucket, ledger }, account, batch, index, 1);
  if (place === undefined) throw new Error(`item ${index} of batch ${batch} has no row`);
  return readRow(bucket, batch, place);
}

export async function cancelOne(line: Line, ref: AttemptRef): Promise<string> {
  const { state } = await line.ledger.readItem(ref);
  return cancelItem({ ...ref, state }, await rowOf(line, ref), line);
}

export async function redrive(line: Line, batch: BatchId, choice: Partial<RedriveChoice> = {}): Promise<number> {
  return redriveItems((await standingOf(line, batch)).batch, { ends: new Set(["failed"]), ...choice }, line);
}

// ── Redis's misfortunes ───────────────────────────────────────────────────────

/** Takes Redis back to this moment, and lets another process serve it: what came since is lost. */
export async function remember({ redis }: Line): Promise<() => Promise<void>> {
  const copies: { key: string; ttl: number; copy: Buffer }[] = [];
  for (const key of await redis.keys("outlast:*")) {
    const [ttl, copy] = await Promise.all([redis.pttl(key), redis.dumpBuffer(key)]);
    if (copy !== null) copies.push({ key, ttl: Math.max(ttl, 0), copy });
  }
  return async () => {
    await redis.flushall();
    for (const { key, ttl, copy } of copies) await redis.restore(key, ttl, copy);
    for (const key of await redis.keys("outlast:{*}:account")) {
      const on = await redis.hget(key, "opened_on");
      if (on !== null) await redis.hset(key, "opened_on", `${"0".repeat(40)}/${on.split("/")[1]}`);
    }
  };
}
