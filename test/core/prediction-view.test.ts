import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ITEM_STATES, type ItemState, isEnd } from "../../src/core/item.ts";
import { type AccountName, batchIdFrom, itemId } from "../../src/core/naming.ts";
import type { TerminalStatus } from "../../src/core/prediction.ts";
import { type AskedFor, asUnfinished, predictionView, type Standing } from "../../src/core/prediction-view.ts";
import { buildReceipt, type Ending, type Receipt } from "../../src/core/receipt.ts";

const BATCH = batchIdFrom(new Uint8Array(13).fill(9));
const ITEM = itemId(BATCH, 7);
const NOON = Date.UTC(2026, 10, 20, 12);
const FILE = "https://replicate.delivery/a/out.png";
const KEY = `batches/${BATCH}/items/00000007/output-0.png`;
const LINKS = {
  baseUrl: "https://predictions.example",
  fileUrl: (item: string, key: string) => `https://predictions.example/v1/files/${item}/${key.split("/").at(-1)}`,
};

const ASKED: AskedFor = {
  item: ITEM,
  input: { prompt: "a fox" },
  target: { kind: "model", owner: "outlast", name: "picture" },
  createdAt: "2026-11-20T12:00:00.000Z",
  deadline: null,
  webhook: null,
};

/** A receipt as record writes it, of a prediction that ended so at the provider. */
function receiptOf(ended: TerminalStatus, end: Ending["end"], output: unknown = [FILE, "words"]): Receipt {
  return buildReceipt({
    ref: { account: "replicate" as AccountName, batch: BATCH, index: 7, attempt: 1 },
    rowId: null,
    replyTo: null,
    webhookEvents: [],
    predictionId: "p1",
    claimedAtMs: NOON,
    recordedAtMs: NOON + 5_000,
    earlier: [],
    ending: {
      end,
      error: end === "saved" ? null : "no luck",
      answer: {
        status: ended,
        output,
        error: null,
        logs: "step 1",
        model: "outlast/picture",
        version: "v1",
        createdAt: "2026-11-20T12:00:01.000Z",
        startedAt: "2026-11-20T12:00:02.000Z",
        completedAt: "2026-11-20T12:00:04.000Z",
        metrics: { predict_time: 2 },
      },
      copied: end === "saved" ? [{ from: FILE, key: KEY, url: "u", bytes: 1, sha256: "s", content_type: "t" }] : [],
    },
  });
}

function unbought(as: "canceled" | "aborted"): Receipt {
  return buildReceipt({
    ref: { account: "replicate" as AccountName, batch: BATCH, index: 7, attempt: 1 },
    rowId: null,
    replyTo: null,
    webhookEvents: [],
    predictionId: null,
    claimedAtMs: null,
    recordedAtMs: NOON + 5_000,
    earlier: [],
    ending: { end: "canceled", error: `${as} before it was bought`, answer: null, copied: [], unboughtAs: as },
  });
}

const view = (standing: Partial<Standing> & Pick<Standing, "state">, asked: Partial<AskedFor> = {}) =>
  predictionView({ ...ASKED, ...asked }, { seenStatus: null, startedAt: null, receipt: null, ...standing }, LINKS);

describe("the status", () => {
  test("of every state, as a table", () => {
    type Case = readonly [state: ItemState, polled: string | null, receipt: Receipt | null, status: string];
    const table: readonly Case[] = [
      ["waiting", null, null, "starting"],
      ["claimed", null, null, "starting"],
      ["unclear", null, null, "starting"],
      ["running", null, null, "starting"],
      ["running", "starting", null, "starting"],
      ["running", "processing", null, "processing"],
      ["running", "pondering", null, "starting"],
      ["copying", "processing", null, "processing"],
      ["copying", null, null, "processing"],
      ["recording", "starting", null, "processing"],
      ["saved", null, receiptOf("succeeded", "saved"), "succeeded"],
      ["failed", null, receiptOf("failed", "failed"), "failed"],
      ["failed", null, receiptOf("succeeded", "failed"), "failed"], // its files couldn't be kept
      ["failed", null, receiptOf("aborted", "failed"), "aborted"],
      ["failed", null, receiptOf("canceled", "failed"), "canceled"], // by its deadline
      ["failed", null, null, "failed"],
      ["canceled", null, receiptOf("canceled", "canceled"), "canceled"],
      ["canceled", null, unbought("canceled"), "canceled"],
      ["canceled", null, unbought("aborted"), "aborted"],
      ["canceled", null, null, "canceled"], // with its whole batch
    ];
    expect(new Set(table.map(([state]) => state))).toEqual(new Set(ITEM_STATES));
    expect(
      table.map(([state, seenStatus, receipt]) => [
        state,
        seenStatus,
        receipt,
        view({ state, seenStatus, receipt }).status,
      ]),
    ).toEqual(table);
  });

  test("is never `processing` where a hold has run out, and else as it was", () => {
    const standing = fc.record({
      state: fc.constantFrom(...ITEM_STATES),
      seenStatus: fc.constantFrom(null, "starting", "processing", "other"),
      receipt: fc.constantFrom(null, receiptOf("succeeded", "saved"), unbought("aborted")),
    });
    fc.assert(
      fc.property(standing, (stands) => {
        const shown = view(stands);
        const { status, ...rest } = asUnfinished(shown);
        expect(status).toBe(shown.status === "processing" ? "starting" : shown.status);
        expect({ ...rest, status: shown.status }).toEqual(shown);
        const isOver = ["succeeded", "failed", "canceled", "aborted"].includes(shown.status);
        expect(isOver, "over exactly where the item is").toBe(isEnd(stands.state));
      }),
    );
  });
});

describe("a prediction", () => {
  test("that runs shows when it began, and one that has ended what its receipt says of that", () => {
    const startedAt = new Date(NOON).toISOString();
    const running = { state: "running", seenStatus: "processing", startedAt } as const;
    expect(view(running)).toMatchObject({ status: "processing", started_at: startedAt });
    const receipt = receiptOf("succeeded", "saved");
    expect(view({ ...running, state: "saved", receipt }).started_at).toBe(receipt.started_at);
    expect(view({ state: "running" })).not.toHaveProperty("started_at");
  });

  test("that is saved is shown whole, its files at our addresses", () => {
    expect(view({ state: "saved", receipt: receiptOf("succeeded", "saved") })).toEqual({
      id: ITEM,
      model: "outlast/picture",
      version: "v1",
      input: { prompt: "a fox" },
      output: [`https://predictions.example/v1/files/${ITEM}/output-0.png`, "words"],
      error: null,
      status: "succeeded",
      logs: "step 1",
      data_removed: false,
      created_at: "2026-11-20T12:00:00.000Z",
      started_at: "2026-11-20T12:00:02.000Z",
      completed_at: "2026-11-20T12:00:04.000Z",
      source: "api",
      metrics: { predict_time: 2 },
      urls: {
        get: `https://predictions.example/v1/predictions/${ITEM}`,
        cancel: `https://predictions.example/v1/predictions/${ITEM}/cancel`,
        web: `https://predictions.example/items/${ITEM}`,
      },
    });
  });

  test("that waits has no output, no error, and no times but that of its creation", () => {
    const shown = view({ state: "waiting" });
    expect(shown).toMatchObject({ output: null, error: null, logs: "", metrics: {}, version: "hidden" });
    expect(Object.keys(shown)).not.toEqual(expect.arrayContaining(["started_at"]));
    expect(Object.keys(shown)).not.toEqual(expect.arrayContaining(["completed_at"]));
  });

  test("says how it came to its end: an error where it failed or was too late, none where a person wanted it so", () => {
    expect(view({ state: "failed", receipt: receiptOf("failed", "failed") })).toMatchObject({
      error: "no luck",
      output: null,
    });
    expect(view({ state: "canceled", receipt: unbought("aborted") })).toMatchObject({
      error: "aborted before it was bought",
      completed_at: "2026-11-20T12:00:05.000Z",
    });
    expect(view({ state: "canceled", receipt: unbought("canceled") }).error).toBeNull();
    expect(view({ state: "failed", receipt: receiptOf("canceled", "failed") }).error).toBeNull();
  });

  test("that has failed shows the files that were kept of it, and none of those that couldn't be had", () => {
    const lost = "https://replicate.delivery/x/lost.png";
    const failed: Receipt = {
      ...receiptOf("failed", "failed"),
      output: [KEY, lost, "words"],
      outputs: [{ key: KEY, url: "u", bytes: 1, sha256: "s", content_type: "t" }],
      unsaved: [{ url: lost, why: "404" }],
    };
    const address = `https://predictions.example/v1/files/${ITEM}/output-0.png`;
    expect(view({ state: "failed", receipt: failed })).toMatchObject({
      status: "failed",
      output: [address, null, "words"],
    });
    expect(view({ state: "failed", receipt: { ...failed, outputs: [] } }).output).toBeNull();
  });

  test.for([
    [{ kind: "version", version: "f00d" }, { model: "", version: "f00d" }, false],
    [{ kind: "model", owner: "a", name: "b" }, { model: "a/b", version: "hidden" }, false],
    [{ kind: "deployment", owner: "a", name: "b" }, { model: "", version: "hidden" }, true],
  ] as const)("names what it runs as its client did: %j", ([target, named, isDeployment]) => {
    const shown = view({ state: "waiting" }, { target });
    expect(shown).toMatchObject(named);
    expect(shown.deployment).toBe(isDeployment ? "a/b" : undefined);
  });

  test("repeats its deadline and its webhook, where it has them", () => {
    const deadline = "2026-11-20T12:01:00.000Z";
    const webhook = { url: "https://client.example/hook", events: ["start", "completed"] } as const;
    expect(view({ state: "waiting" }, { deadline, webhook })).toMatchObject({
      deadline,
      webhook: "https://client.example/hook",
      webhook_events_filter: ["start", "completed"],
    });
    const keys = Object.keys(view({ state: "waiting" }));
    for (const key of ["deadline", "webhook", "webhook_events_filter"]) expect(keys).not.toContain(key);
  });
});

test("an address takes the place of exactly the texts that are kept files' keys, however deep they lie", () => {
  const text = fc.oneof(fc.string(), fc.constantFrom(KEY, `${KEY}x`, `see ${KEY}`, FILE));
  const output = fc.letrec<{ tree: unknown; list: unknown[]; map: Record<string, unknown> }>((tie) => ({
    tree: fc.oneof({ maxDepth: 4 }, text, fc.jsonValue({ maxDepth: 0 }), tie("list"), tie("map")),
    list: fc.array(tie("tree"), { maxLength: 4 }),
    map: fc.dictionary(fc.oneof(fc.string(), fc.constant(KEY)), tie("tree"), { maxKeys: 4 }),
  })).tree;
  fc.assert(
    fc.property(output, (made) => {
      const saved = receiptOf("succeeded", "saved");
      const shown = view({ state: "saved", receipt: { ...saved, output: made } }).output;
      const expected: unknown = JSON.parse(JSON.stringify(made ?? null), (_name, value: unknown) =>
        value === KEY ? LINKS.fileUrl(ITEM, KEY) : value,
      );
      expect(JSON.stringify(shown ?? null)).toBe(JSON.stringify(expected));
    }),
  );
  const nothingKept: Receipt = { ...receiptOf("succeeded", "saved"), outputs: [], output: [KEY] };
  expect(view({ state: "saved", receipt: nothingKept }).output, "a key that isn't its own").toEqual([KEY]);
});
