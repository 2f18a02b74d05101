/** Batches over HTTP: submitted as rows, listed, paused, resumed and canceled. */

import { gzipSync } from "node:zlib";
import { describe, expect } from "vitest";
import { writeBatch } from "../../src/bucket/records.ts";
import { type BatchId, batchIdFrom, parseBatchId } from "../../src/core/naming.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { ACCOUNT } from "../support/stages.ts";
import { expectProblem } from "./expect-problem.ts";
import { bringTo } from "./items.ts";
import { bearer, KEYS, NDJSON, post, rows, type Served, test, WITH_KEYS } from "./serving.ts";

type Submission = { readonly url?: string; readonly headers?: Readonly<Record<string, string>> };

const submit = (app: Served["app"], payload: string | Buffer, { url = "/v1/batches", headers = {} }: Submission = {}) =>
  app.inject({ method: "POST", url, headers: { ...NDJSON, ...headers }, payload });

const AS_ROWS =
  /^"application\/json" isn't taken here: this takes rows, a line of JSON each, as application\/x-ndjson$/;

/** A row that names no model. */
const BARE = '{"input":{"prompt":"a"}}\n';

describe("rows", () => {
  test("become a batch, which says where it is and how it stands", async ({ serve }) => {
    const { app } = await serve();
    const answer = await submit(app, rows(3), { url: "/v1/batches?name=foxes" });
    expect([answer.statusCode, answer.json()]).toMatchObject([
      201,
      { name: "foxes", state: "open", items: 3, waiting: 3, account: "replicate", finished_at: null },
    ]);
    const { batch } = answer.json<{ batch: string }>();
    expect(answer.headers.location).toBe(`http://localhost:80/v1/batches/${batch}`);
    const again = await app.inject(`/v1/batches/${batch}`);
    expect(again.json()).toEqual({ ...answer.json<object>(), failures: [] });
  });

  test("sent twice are the same batch; under another name, or wanted again, they are another", async ({ serve }) => {
    const { app } = await serve();
    const first = await submit(app, rows(3));
    const second = await submit(app, rows(3));
    expect([first.statusCode, second.statusCode]).toEqual([201, 200]);
    expect(second.json()).toEqual(first.json());
    const others = ["?name=other", "?again=true", "?again=true"].map(async (query) => {
      const answer = await submit(app, rows(3), { url: `/v1/batches${query}` });
      return [answer.statusCode, answer.json<{ batch: string }>().batch] as const;
    });
    const answers = await Promise.all(others);
    expect(answers.map(([status]) => status)).toEqual([201, 201, 201]);
    expect(new Set([first.json<{ batch: string }>().batch, ...answers.map(([, batch]) => batch)]).size).toBe(4);
  });

  test("take the model of the address where they name none", async ({ serve }) => {
    const { app } = await serve();
    for (const query of ["model=outlast/text", "deployment=acme/mine", `version=${"a".repeat(64)}`]) {
      expect((await submit(app, BARE, { url: `/v1/batches?${query}` })).statusCode).toBe(201);
    }
  });

  test("that are bad are told by line, and nothing is submitted", async ({ serve }) => {
    const { app } = await serve();
    const lines = [
      '{"input":{"prompt":"a"},"model":"outlast/text"}',
      "{",
      '{"input":[],"model":"outlast/text"}',
      "",
      BARE.trim(),
      '{"input":{},"model":"outlast/text","seed":1}',
      '{"input":{"seed":12345678901234567890},"model":"outlast/text"}',
      `{"input":{"prompt":"${"a".repeat(1024 * 1024)}"},"model":"outlast/text"}`,
      '{"input":{},"model":"outlast/text","id":"twice"}',
      '{"input":{},"model":"outlast/text","id":"twice"}',
      `{"input":{"a":${"[".repeat(300)}${"]".repeat(300)}},"model":"outlast/text"}`,
      `{"input":{"a":${"[".repeat(1e5)}${"]".repeat(1e5)}},"model":"outlast/text"}`,
    ];
    const answer = await submit(app, lines.join("\n"));
    const problem = expectProblem(answer, 422) as ReturnType<typeof expectProblem> & { invalid_rows: unknown };
    expect(problem.title).toBe("Input validation failed");
    expect(problem).toMatchObject({ more_invalid_rows: false });
    expect(problem.invalid_rows).toEqual([
      { line: 2, reason: expect.stringMatching(/^not JSON/) },
      { line: 3, reason: expect.stringMatching(/"input" is an object/) },
      { line: 5, reason: expect.stringMatching(/^no model/) },
      { line: 6, reason: expect.stringMatching(/unknown key "seed"/) },
      { line: 7, reason: expect.stringMatching(/12345678901234567890 can't be kept/) },
      { line: 8, reason: expect.stringMatching(/larger than 1048576 bytes/) },
      { line: 10, reason: expect.stringMatching(/"twice" was given to line 9 already/) },
      { line: 11, reason: "nested too deeply: at most 200 levels" },
      { line: 12, reason: expect.stringMatching(/nested too deeply/) },
    ]);
    expect(problem.detail).toContain("9 bad rows; nothing was submitted");
    expect(problem.detail).toContain("- line 5: no model");
    expect((await app.inject("/v1/batches")).json()).toMatchObject({ results: [] });
  });

  test("that are bad are told up to a hundred", async ({ serve }) => {
    const { app } = await serve();
    const problem = expectProblem(await submit(app, "{}\n".repeat(500)), 422) as unknown as Record<string, unknown>;
    expect(problem["invalid_rows"]).toHaveLength(100);
    expect(problem).toMatchObject({ more_invalid_rows: true, detail: expect.stringContaining("100 or more bad rows") });
  });

  const refused: readonly (readonly [what: string, body: string | Buffer, sent: Submission, status: number, RegExp])[] =
    [
      ["none", "", {}, 422, /there are no rows/],
      ["none but empty lines", "\n\n\n", {}, 422, /there are no rows/],
      ["as JSON", "[]", { headers: { "content-type": "application/json" } }, 415, AS_ROWS],
      ["compressed", gzipSync(rows(3)), { headers: { "content-encoding": "gzip" } }, 415, /without gzip/],
      ["in UTF-16", Buffer.from(`\ufeff${rows(1)}`, "utf16le"), {}, 422, /UTF-16/],
      ["that aren't UTF-8", Buffer.from([0x22, 0xff, 0x22, 0x0a]), {}, 422, /line 1: not valid UTF-8/],
      ["for an account that isn't there", rows(1), { url: "/v1/batches?account=other" }, 422, /no account "other"/],
      ["of two models", rows(1), { url: "/v1/batches?model=a/b&version=c" }, 422, /both "model" and "version"/],
      ["of a model that is none", rows(1), { url: "/v1/batches?model=fox" }, 422, /owner\/name/],
      ["under no name", rows(1), { url: "/v1/batches?name=" }, 422, /querystring\.name/],
      ["under a long name", rows(1), { url: `/v1/batches?name=${"a".repeat(201)}` }, 422, /querystring\.name/],
      ["perhaps again", rows(1), { url: "/v1/batches?again=perhaps" }, 422, /querystring\.again/],
      ["with a wish nobody knows", rows(1), { url: "/v1/batches?priority=1" }, 422, /priority is not allowed/],
      ["with a wish twice", rows(1), { url: "/v1/batches?name=a&name=b" }, 422, /querystring\.name/],
    ];
  test.for(refused)("%s are refused", async ([, body, sent, status, words], { serve }) => {
    const { app } = await serve();
    expect(expectProblem(await submit(app, body, sent), status).detail).toMatch(words);
    expect((await app.inject("/v1/batches")).json()).toMatchObject({ results: [] });
  });

  test("without any body, and without a word on what it would be, are refused", async ({ serve }) => {
    const { app } = await serve();
    expectProblem(await app.inject({ method: "POST", url: "/v1/batches" }), 415);
  });
});

describe("pause, resume, cancel", () => {
  const act = (app: Served["app"], id: BatchId, what: string) =>
    app.inject({ method: "POST", url: `/v1/batches/${id}/${what}` });

  test("say how the batch stands then; said twice they change nothing more", async ({ serve }) => {
    const { app } = await serve();
    const id = await post(app, rows(3));
    for (const [what, state] of [
      ["pause", "paused"],
      ["pause", "paused"],
      ["resume", "open"],
      ["resume", "open"],
      ["cancel", "canceled"],
      ["cancel", "canceled"],
    ] as const) {
      const answer = await act(app, id, what);
      expect([answer.statusCode, answer.json()]).toMatchObject([200, { batch: id, state }]);
    }
  });

  test("of what has ended otherwise are refused", async ({ serve }) => {
    const { app, services } = await serve();
    const [canceled, finished] = [await post(app, rows(3)), await post(app, rows(4))];
    await act(app, canceled, "cancel");
    await services.ledger.finishBatch(ACCOUNT, finished, Date.now(), 0);
    const singles = await singlesOf(app);
    for (const [id, what, words] of [
      [canceled, "pause", /is canceled/],
      [canceled, "resume", /is canceled/],
      [finished, "pause", /has finished/],
      [finished, "resume", /has finished/],
      [finished, "cancel", /has finished/],
      [singles, "cancel", /cancel them one by one/],
    ] as const) {
      expect(expectProblem(await act(app, id, what), 409).detail).toMatch(words);
    }
    expect((await act(app, singles, "pause")).statusCode).toBe(200);
  });

  test("work with the JSON content type of clients that send it without a body", async ({ serve }) => {
    const { app } = await serve();
    const id = await post(app, rows(3));
    const headers = { "content-type": "application/json" };
    for (const what of ["pause", "resume", "cancel"]) {
      for (const payload of [undefined, "", "{}"]) {
        const answer = await app.inject({
          method: "POST",
          url: `/v1/batches/${id}/${what}`,
          headers,
          ...(payload !== undefined && { payload }),
        });
        expect([what, payload, answer.statusCode]).toEqual([what, payload, 200]);
      }
    }
  });

  test("refuse what they don't know, as creates do, and then do nothing", async ({ serve }) => {
    const { app } = await serve();
    const id = await post(app, rows(3));
    for (const what of ["pause", "resume", "cancel"]) {
      for (const [payload, words] of [
        [{ until: "tomorrow" }, /Additional property until is not allowed/],
        [[], /expected object/],
      ] as const) {
        const answer = await app.inject({
          method: "POST",
          url: `/v1/batches/${id}/${what}`,
          payload: payload as object,
        });
        expect(expectProblem(answer, 422).detail).toMatch(words);
      }
    }
    expect((await app.inject(`/v1/batches/${id}`)).json()).toMatchObject({ state: "open" });
  });
});

async function singlesOf(app: Served["app"]): Promise<BatchId> {
  const payload = { version: "outlast/text", input: {} };
  const { id } = (await app.inject({ method: "POST", url: "/v1/predictions", payload })).json<{ id: string }>();
  const batch = parseBatchId(id.slice(0, 20));
  if (batch === null) throw new Error(`${id} is of no batch`);
  return batch;
}

test("what went wrong in a batch is told in groups, with an item of each", async ({ serve }) => {
  const { app, services } = await serve();
  const batch = await post(app, rows(3));
  const ref = { account: ACCOUNT, batch, index: 1, attempt: 1 };
  await bringTo("recording", ref, services);
  await services.ledger.move(ref, "fail", { nowMs: 2_000, failure: "the model gave up" });
  expect((await app.inject(`/v1/batches/${batch}`)).json()).toMatchObject({
    failed: 1,
    failures: [{ error: "the model gave up", count: 1, example: `${batch}000001` }],
  });
});

describe("the list", () => {
  test("has every batch once, newest first, whichever page it is on", async ({ serve }) => {
    const { app, services } = await serve();
    const opened = await openMany(services, 205);
    const seen: string[] = [];
    let url = "/v1/batches";
    for (let page = 0; page < 4 && url !== ""; page++) {
      const { results, next } = (await app.inject(url)).json<{ results: { batch: string }[]; next: string | null }>();
      seen.push(...results.map(({ batch }) => batch));
      url = next ?? "";
    }
    expect(seen).toEqual(opened.toReversed());
  });

  test("keeps a day's singles in their place, however many servers admit some", async ({ serve }) => {
    const [one, other] = [await serve(), await serve()];
    const singles = await singlesOf(one.app);
    const rowsOfFile = await post(one.app, rows(3));
    expect(await singlesOf(other.app)).toBe(singles);
    const { results } = (await one.app.inject("/v1/batches")).json<{ results: { batch: string }[] }>();
    expect(results.map(({ batch }) => batch)).toEqual([rowsOfFile, singles]);
  });

  test("begins nowhere else than behind a batch of one's own", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const theirs = await post(app, rows(3), { headers: bearer(KEYS.stranger) });
    await post(app, rows(3), { headers: bearer(KEYS.producer) });
    const list = (cursor: string) => app.inject({ url: `/v1/batches?cursor=${cursor}`, headers: bearer(KEYS.viewer) });
    expect((await list(theirs)).json()).toEqual({ previous: null, next: null, results: [] });
    for (const cursor of ["", "nothing", theirs.toUpperCase(), `${theirs}0`, "%00", "a".repeat(300)]) {
      const problem = expectProblem(await list(cursor), 422);
      expect(problem.invalid_fields).toMatchObject([{ field: "querystring.cursor" }]);
    }
  });
});

async function openMany({ bucket, ledger }: CommandServices, count: number): Promise<readonly BatchId[]> {
  const ids: BatchId[] = [];
  for (let n = 0; n < count; n++) {
    const id = batchIdFrom(new Uint8Array(20).fill(n));
    const batch = {
      id,
      kind: "file",
      name: `batch ${n}`,
      tenant: "default",
      account: ACCOUNT,
      items: 1,
      retryFailed: 0,
    } as const;
    await writeBatch(bucket, { ...batch, openedAtMs: n });
    await ledger.openBatch({ ...batch, openedAtMs: n });
    ids.push(id);
  }
  return ids;
}
