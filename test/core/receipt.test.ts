import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type AccountName, batchIdFrom, itemId } from "../../src/core/naming.ts";
import { type Prediction, predictionId } from "../../src/core/prediction.ts";
import {
  type Answer,
  answerOf,
  buildReceipt,
  type CopiedFile,
  type Ending,
  notSavedBy,
  predictTimeMs,
  resultLineOf,
} from "../../src/core/receipt.ts";

const BATCH = batchIdFrom(new Uint8Array(13).fill(9));
const REF = { account: "replicate" as AccountName, batch: BATCH, index: 7, attempt: 1 };
const NOON = Date.UTC(2026, 10, 20, 12);

const anyText = fc.option(fc.string());
const anyAnswer: fc.Arbitrary<Answer> = fc.record({
  status: fc.constantFrom("succeeded", "failed", "canceled", "aborted" as const),
  output: fc.jsonValue(),
  error: anyText,
  logs: anyText,
  model: anyText,
  version: anyText,
  createdAt: anyText,
  startedAt: anyText,
  completedAt: anyText,
  metrics: fc.dictionary(fc.string(), fc.jsonValue()),
});
const anyCopied: fc.Arbitrary<CopiedFile> = fc.record({
  from: fc.webUrl(),
  key: fc.string(),
  url: fc.string(),
  bytes: fc.nat(),
  sha256: fc.string(),
  content_type: fc.string(),
});
const anyEnding: fc.Arbitrary<Ending> = fc.record({
  end: fc.constantFrom("saved", "failed", "canceled" as const),
  error: anyText,
  answer: fc.option(anyAnswer),
  copied: fc.array(anyCopied, { maxLength: 3 }),
});

const build = (ending: Ending, facts: Partial<Parameters<typeof buildReceipt>[0]> = {}) =>
  buildReceipt({
    ref: REF,
    rowId: "mine",
    replyTo: null,
    webhookEvents: [],
    predictionId: "p1",
    claimedAtMs: NOON,
    recordedAtMs: NOON + 1,
    earlier: [],
    ending,
    ...facts,
  });

test("a receipt is JSON as it is, says who it is about, and begins with its results line", () => {
  fc.assert(
    fc.property(anyEnding, (ending) => {
      const receipt = build(ending);
      expect(JSON.parse(JSON.stringify(receipt))).toEqual(JSON.parse(JSON.stringify({ ...receipt })));
      expect(receipt).toMatchObject({
        index: 7,
        item: itemId(BATCH, 7),
        id: "mine",
        status: ending.end,
        batch: BATCH,
        account: "replicate",
      });
      expect(Object.keys(receipt).slice(0, 10)).toEqual(Object.keys(resultLineOf(receipt)));
      expect(receipt.outputs).toHaveLength(ending.copied.length);
      expect(receipt.attempts).toEqual([
        {
          attempt: 1,
          status: ending.end,
          prediction_id: "p1",
          error: receipt.error,
          metrics: receipt.metrics,
          ...(ending.end === "failed" && ending.answer?.status === "succeeded" && { not_saved: true }),
        },
      ]);
      for (const output of receipt.outputs)
        expect(Object.keys(output)).toEqual(["key", "url", "bytes", "sha256", "content_type"]);
    }),
  );
});

test("an item that isn't saved always says why; a saved one says nothing unless somebody did", () => {
  fc.assert(
    fc.property(anyEnding, (ending) => {
      const { error } = build(ending);
      const told = ending.error ?? ending.answer?.error ?? null;
      if (ending.end === "saved" || told !== null) expect(error).toBe(told);
      else expect(error).toMatch(/the provider says \w+/);
    }),
  );
});

test("the output names the objects where there are any, and the provider's URLs where there are none", () => {
  const kept = "https://h.example/kept.png";
  const lost = "https://h.example/lost.png";
  const prediction: Prediction = {
    id: predictionId("p1"),
    status: "succeeded",
    statusWord: "succeeded",
    output: { a: [kept, "words"], b: lost, again: kept },
    error: null,
    logs: "l",
    model: "m",
    version: "v",
    createdAt: "c",
    startedAt: "s",
    completedAt: "e",
    dataRemoved: false,
    metrics: { predict_time: 1 },
  };
  const copied = [{ from: kept, key: "k", url: "u", bytes: 1, sha256: "s", content_type: "t" }];
  const unsaved = [
    { url: lost, why: "gone" },
    { url: `data:image/png;base64,${"a".repeat(1_000)}`, why: "empty" },
  ];
  const receipt = build({ end: "failed", error: "ours", answer: answerOf(prediction), copied, unsaved });
  expect(receipt).toEqual({
    index: 7,
    item: itemId(BATCH, 7),
    id: "mine",
    status: "failed",
    prediction_id: "p1",
    output: { a: ["k", "words"], b: lost, again: "k" },
    outputs: [{ key: "k", url: "u", bytes: 1, sha256: "s", content_type: "t" }],
    error: "ours",
    metrics: { predict_time: 1 },
    attempts: [
      {
        attempt: 1,
        status: "failed",
        prediction_id: "p1",
        error: "ours",
        metrics: { predict_time: 1 },
        not_saved: true,
      },
    ],
    batch: BATCH,
    account: "replicate",
    model: "m",
    version: "v",
    logs: "l",
    claimed_at: "2026-11-20T12:00:00.000Z",
    created_at: "c",
    started_at: "s",
    completed_at: "e",
    recorded_at: "2026-11-20T12:00:00.001Z",
    prediction_status: "succeeded",
    reply_to: null,
    webhook_events: [],
    unsaved: [
      { url: lost, why: "gone" },
      { url: `data:image/png;base64,${"a".repeat(78)}…`, why: "empty" },
    ],
  });
});

test("what is paid for and not saved is counted once for a prediction, and no more once it is kept", () => {
  type Attempt = { readonly prediction: string; readonly end: "saved" | "failed"; readonly succeeded: boolean };
  const anyAttempt: fc.Arbitrary<Attempt> = fc.record({
    prediction: fc.constantFrom("p1", "p2"),
    end: fc.constantFrom("saved", "failed"),
    succeeded: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(anyAttempt, { minLength: 1, maxLength: 6 }), anyAnswer, (attempts, answer) => {
      let total = 0n;
      let earlier: Parameters<typeof buildReceipt>[0]["earlier"] = [];
      for (const { prediction, end, succeeded } of attempts) {
        const status = succeeded ? "succeeded" : "failed";
        const receipt = build(
          { end, error: "e", answer: { ...answer, status }, copied: [] },
          { predictionId: prediction, earlier },
        );
        total += notSavedBy(receipt);
        earlier = receipt.attempts;
      }
      const last = new Map(attempts.map((attempt) => [attempt.prediction, attempt]));
      const lost = [...last.values()].filter(({ end, succeeded }) => end === "failed" && succeeded);
      expect(total).toBe(BigInt(lost.length));
    }),
  );
});

test("an input that was refused has a receipt too, without a prediction", () => {
  const receipt = build(
    { end: "failed", error: "422", answer: null, copied: [] },
    { predictionId: null, claimedAtMs: null, rowId: null, replyTo: "q" },
  );
  expect(receipt).toMatchObject({
    id: null,
    prediction_id: null,
    output: null,
    outputs: [],
    metrics: {},
    claimed_at: null,
    reply_to: "q",
    model: null,
  });
});

test("an input that ended before it was bought says how, in the provider's words", () => {
  for (const unboughtAs of ["canceled", "aborted"] as const) {
    const receipt = build(
      { end: "canceled", error: "too late", answer: null, copied: [], unboughtAs },
      { predictionId: null, claimedAtMs: null, webhookEvents: ["completed"] },
    );
    expect(receipt).toMatchObject({
      status: "canceled",
      prediction_status: unboughtAs,
      error: "too late",
      webhook_events: ["completed"],
    });
  }
});

test("the provider's word for an end is kept where it is one, and else nothing is said", () => {
  const ended = fc.constantFrom("succeeded", "failed", "canceled", "aborted" as const);
  const running = fc.constantFrom("starting", "processing", "unknown" as const);
  fc.assert(
    fc.property(anyEnding, anyAnswer, ended, running, (ending, answer, end, other) => {
      const statusOf = (status: Answer["status"]) =>
        build({ ...ending, answer: { ...answer, status } }).prediction_status;
      expect(statusOf(end)).toBe(end);
      expect(statusOf(other)).toBeNull();
      expect(build({ ...ending, answer: null }).prediction_status).toBeNull();
    }),
  );
});

describe("billed time", () => {
  test("is whole milliseconds, rounded once, whatever a provider writes", () => {
    const table: readonly (readonly [unknown, bigint])[] = [
      [1.2345, 1_235n],
      [0.0004, 0n],
      [0.1 + 0.2, 300n],
      [0, 0n],
      [-1, 0n],
      ["1.5", 0n],
      [null, 0n],
      [Number.NaN, 0n],
      [Number.POSITIVE_INFINITY, 0n],
      [999_999_999, 999_999_999_000n],
      [1e300, 0n],
    ];
    for (const [seconds, ms] of table)
      expect([seconds, predictTimeMs({ predict_time: seconds })]).toEqual([seconds, ms]);
    expect(predictTimeMs({})).toBe(0n);
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom("predict_time", "total_time"), fc.anything()), (metrics) => {
        expect(predictTimeMs(metrics)).toBeGreaterThanOrEqual(0n);
      }),
    );
  });
});
