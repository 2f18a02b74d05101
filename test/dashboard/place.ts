/** Batches for the pages to show: rows that were really submitted, and items brought to where a test wants them. */

import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { writeReceipt } from "../../src/bucket/records.ts";
import { failureGroup } from "../../src/core/failing.ts";
import { END_STEPS, type ItemEnd, type ItemStep } from "../../src/core/item.ts";
import { type AttemptRef, type BatchId, OBJECT_KEYS } from "../../src/core/naming.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { type Answer, buildReceipt } from "../../src/core/receipt.ts";
import type { Row } from "../../src/core/rows.ts";
import type { MoveOptions } from "../../src/ledger/ledger.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { ACCOUNT, ADMITTING, MODEL } from "../support/stages.ts";

/** The prediction of an item; one prediction belongs to one attempt. */
export const predictionOf = ({ batch, index, attempt }: AttemptRef) =>
  predictionId(`${batch.slice(0, 18)}-${index}-${attempt}`);

type BatchOptions = {
  readonly name?: string;
  readonly tenant?: string;
  /** A number: so many rows, each with another prompt. */
  readonly rows?: number | readonly Partial<Row>[];
};

export async function submit(services: CommandServices, options: BatchOptions = {}): Promise<BatchId> {
  const { name = "foxes.jsonl", tenant = "default", rows = 10 } = options;
  const own = typeof rows === "number" ? Array.from({ length: rows }, () => ({})) : rows;
  async function* readings() {
    for (const [at, row] of own.entries()) {
      yield { line: at + 1, row: { input: { prompt: `fox ${at}` }, target: MODEL, ...row } };
    }
  }
  const submitted = await submitBatch(
    readings(),
    { name, tenant, account: ADMITTING, again: true },
    { ...services, clock: Date.now },
  );
  return submitted.batch;
}

export function refOf(batch: BatchId, index: number, attempt = 1): AttemptRef {
  return { account: ACCOUNT, batch, index, attempt };
}

/** Buys an item; its prediction runs. */
export async function run(services: CommandServices, ref: AttemptRef): Promise<void> {
  const nonce = `nonce-${ref.index}`;
  const id = predictionOf(ref);
  await step(services, ref, "claim", { nonce });
  await step(services, ref, "bind", { nonce, predictionId: id });
  await services.queues.follow(ref, { id, startedAtMs: Date.now(), deadlineAtMs: null }, 60_000);
}

export async function step(
  { ledger }: CommandServices,
  ref: AttemptRef,
  name: ItemStep,
  options: Omit<MoveOptions, "nowMs"> = {},
): Promise<void> {
  const { answer } = await ledger.move(ref, name, { nowMs: Date.now(), ...options });
  if (answer !== "moved") throw new Error(`item ${ref.index} can't ${name}: ${answer}`);
}

export type File = { readonly extension: string; readonly type: string; readonly body: string | Buffer };

export type End = {
  readonly end?: ItemEnd;
  readonly error?: string;
  readonly files?: readonly File[];
  readonly answer?: Partial<Answer>;
};

export const PNG: File = {
  extension: "png",
  type: "image/png",
  // One pixel.
  body: Buffer.from(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==",
    "base64",
  ),
};

/** Brings an item that was bought to its end, with its files and its receipt, as the last three stages would. */
export async function end(services: CommandServices, ref: AttemptRef, how: End = {}): Promise<void> {
  const { end: state = "saved", files = [] } = how;
  await writeEnd(services, ref, how);
  await step(services, ref, "conclude");
  await step(services, ref, END_STEPS[state], {
    sums: {
      output_files: BigInt(files.length),
      predict_time_ms: 1_500n,
      not_saved: state === "failed" && how.answer?.status === "succeeded" ? 1n : 0n,
    },
    ...(files.length > 0 && { hasFiles: true }),
    ...(state === "failed" && { failure: failureGroup(how.error ?? null) }),
  });
}

/** What lies in the bucket then. */
export async function writeEnd({ bucket }: CommandServices, ref: AttemptRef, how: End): Promise<void> {
  const { end: state = "saved", error = null, files = [] } = how;
  const copied = files.map(({ extension, type, body }, n) => {
    const key = OBJECT_KEYS.output(ref.batch, ref.index, ref.attempt, n, extension);
    const url = `https://replicate.delivery/${n}.${extension}`;
    const sha256 = createHash("sha256").update(body).digest("hex");
    const bytes = Buffer.byteLength(body);
    return { key, url: bucket.urlOf(key), bytes, sha256, content_type: type, from: url, body };
  });
  for (const { key, body, content_type: contentType } of copied) await bucket.put(key, body, { contentType });
  const answer: Answer = {
    status: state === "saved" ? "succeeded" : state,
    output: copied.map(({ from }) => from),
    error,
    logs: null,
    model: "outlast/picture",
    version: null,
    createdAt: "2026-11-20T12:00:02.000Z",
    startedAt: "2026-11-20T12:00:02.500Z",
    completedAt: "2026-11-20T12:00:04.000Z",
    metrics: { predict_time: 1.5 },
    ...how.answer,
  };
  const receipt = buildReceipt({
    ref,
    rowId: null,
    replyTo: null,
    webhookEvents: [],
    predictionId: predictionOf(ref),
    claimedAtMs: Date.parse("2026-11-20T12:00:01.000Z"),
    recordedAtMs: Date.parse("2026-11-20T12:00:05.000Z"),
    earlier: [],
    ending: { end: state, error, answer, copied },
  });
  await writeReceipt(bucket, ref, receipt);
}

// ── asking ────────────────────────────────────────────────────────────────────

export const basic = (key: string) => ({
  authorization: `Basic ${Buffer.from(`anybody:${key}`).toString("base64")}`,
});

export async function page(app: FastifyInstance, url: string, headers: Record<string, string> = {}) {
  const { statusCode, body, headers: answered } = await app.inject({ url, headers });
  return { statusCode, body, text: textOf(body), headers: answered };
}

/** A press of a button, as a browser sends it from our own page. */
export async function press(app: FastifyInstance, url: string, headers: Record<string, string> = {}) {
  return app.inject({
    method: "POST",
    url,
    headers: { "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin", ...headers },
    payload: "",
  });
}

/** What a person reads of a page. */
export function textOf(body: string): string {
  return body
    .replace(/<head>.*?<\/head>/s, "")
    .replace(/<[^>]*>/g, " ")
    .replace(/&#(\d+);/g, (_, code: string) => String.fromCharCode(Number(code)))
    .replace(/\s+/g, " ");
}
