/** What the dashboard shows, asked of its server; `board-in-browser.test.ts` looks at the page itself. */

import type { FastifyInstance } from "fastify";
import { describe, expect } from "vitest";
import { writeReceipt } from "../../src/bucket/records.ts";
import { type AttemptRef, errandId, itemId } from "../../src/core/naming.ts";
import { buildReceipt } from "../../src/core/receipt.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { ACCOUNT, BATCH, openRunningBatch, PREDICTION, test } from "./board-app.ts";

type Board = {
  readonly queues: readonly {
    readonly name: string;
    readonly displayName: string;
    readonly description: string;
    readonly readOnlyMode: boolean;
    readonly jobs: readonly {
      readonly name: string;
      readonly data: unknown;
      readonly externalUrl?: { href: string };
    }[];
  }[];
};

async function board(app: FastifyInstance, queue = ""): Promise<Board["queues"]> {
  const query = new URLSearchParams({ activeQueue: queue, page: "1", jobsPerPage: "10" }).toString();
  return (await app.inject(`/queues/api/queues?${query}`)).json<Board>().queues;
}

async function page(app: FastifyInstance, id: string): Promise<string> {
  const { statusCode, body } = await app.inject(`/jobs/${id}`);
  expect(statusCode).toBe(200);
  return body;
}

describe("the board", () => {
  test("it reads as the funnel, each queue with a sentence", async ({ app }) => {
    const queues = await board(app);
    expect(queues.map(({ displayName }) => displayName)).toEqual([
      "1 inputs",
      "2 feed",
      "3 create (replicate)",
      "4 follow (replicate)",
      "5 copy",
      "6 record",
      "7 finish",
      "8 keep",
    ]);
    expect(queues.map(({ name }) => name)).toEqual(queues.map(({ name }) => name).toSorted());
    for (const { description } of queues) expect(description).toMatch(/^[A-Z].{20,}\.$/);
  });

  test("a job says in words what it is about, and leads to its item", async ({ app, services }) => {
    const ref = await openRunningBatch(services);
    const queue = (await board(app, "4 outlast-follow-replicate"))[3];
    expect(queue?.jobs).toMatchObject([
      {
        name: "item 3",
        data: { account: "replicate", prediction_id: PREDICTION, started_at: "1970-01-01T00:00:01.000Z" },
        externalUrl: { href: `/jobs/${errandId(ref)}` },
      },
    ]);
  });

  test("large data is trimmed, and what looks like a token is starred out", async ({ app, services }) => {
    const token = `r8_${"A1b2".repeat(9)}`;
    await services.queues.input({ input: { prompt: "x".repeat(500_000), note: token }, model: "a/b" }, "large");
    await services.queues.input({ input: { prompt: `use ${token}`, api_key: "open sesame" }, model: "a/b" }, "small");
    const jobs = (await board(app, "1 outlast-inputs"))[0]?.jobs ?? [];
    const text = JSON.stringify(jobs);
    expect(jobs).toHaveLength(2);
    expect(text.length).toBeLessThan(6_000);
    expect(text).not.toContain(token);
    expect(text).not.toContain("open sesame");
    expect(text).toContain('"prompt":"use ***"');
  });

  test("the server refuses every write", async ({ app, services }) => {
    const ref = await openRunningBatch(services);
    const queue = encodeURIComponent("4 outlast-follow-replicate");
    expect(await board(app)).toSatisfy((queues: Board["queues"]) => queues.every(({ readOnlyMode }) => readOnlyMode));
    for (const [method, action] of [
      ["PUT", `${errandId(ref)}/promote`],
      ["PUT", `${errandId(ref)}/clean`],
      ["PUT", "pause"],
      ["PUT", "obliterate"],
      ["POST", "add"],
    ] as const) {
      const answer = await app.inject({ method, url: `/queues/api/queues/${queue}/${action}`, payload: {} });
      expect([action, answer.statusCode]).toEqual([action, 405]);
    }
  });

  test("its page asks no other host for anything", async ({ app }) => {
    const { headers } = await app.inject("/queues");
    expect(headers["content-security-policy"]).toContain("default-src 'self'");
  });
});

describe("the page of an item", () => {
  test("while it runs: where it stands, its prediction, and its job", async ({ app, services }) => {
    const ref = await openRunningBatch(services);
    const body = await page(app, errandId(ref));
    expect(body).toContain("<b>running</b>: it is bought, and runs at the provider");
    expect(body).toContain(itemId(BATCH, 3));
    expect(body).toContain("Fox/3");
    expect(body).toContain(`href="/queues/queue/4%20outlast-follow-replicate/${errandId(ref)}"`);
    expect(body).toContain(`href="https://replicate.com/p/${PREDICTION}"`);
    expect(body).not.toContain("Receipt");
  });

  test("once it has ended: the receipt, with the keys of its outputs", async ({ app, services }) => {
    const ref = await endedItem(services);
    const body = await page(app, errandId(ref));
    expect(body).toContain("<b>saved</b>");
    expect(body).toContain(`batches/${BATCH}/items/00000003/output-0.png`);
    expect(body).toContain("12,345");
    expect(body).toContain("1.5 s");
    expect(body).toContain("a secret: ***");
  });

  test("an item's id leads to its latest attempt", async ({ app, services }) => {
    const ref = await openRunningBatch(services);
    const { statusCode, headers } = await app.inject(`/jobs/${itemId(BATCH, 3)}`);
    expect([statusCode, headers.location]).toEqual([302, `/jobs/${errandId(ref)}`]);
  });

  test("what a person or a model wrote can't become part of the page", async ({ app, services }) => {
    const ref = await openRunningBatch(services, `<script>alert("1")</script>`);
    const answer = await app.inject(`/jobs/${errandId(ref)}`);
    expect(answer.body).not.toContain("<script");
    expect(answer.body).toContain("&#60;script&#62;alert(&#34;1&#34;)");
    expect(answer.headers["content-security-policy"]).toContain("default-src 'none'");
    const missing = await app.inject("/jobs/%3Cimg%20src=x%3E");
    expect(missing.statusCode).toBe(404);
    expect(missing.body).not.toContain("<img");
  });

  test("items and attempts that aren't there are told as such", async ({ app, services }) => {
    const ref = await openRunningBatch(services);
    const other = { ...ref, index: 10 };
    for (const id of [errandId(other), errandId({ ...ref, attempt: 2 }), "nonsense", `${"0".repeat(20)}-0-1`]) {
      expect([id, (await app.inject(`/jobs/${id}`)).statusCode]).toEqual([id, 404]);
    }
  });
});

async function endedItem(services: CommandServices): Promise<AttemptRef> {
  const ref = await openRunningBatch(services);
  const { bucket, ledger } = services;
  const key = `batches/${BATCH}/items/00000003/output-0.png`;
  const answer = {
    status: "succeeded",
    output: ["https://replicate.delivery/out.png", `a secret: r8_${"x".repeat(37)}`],
    error: null,
    logs: null,
    model: "outlast/picture",
    version: null,
    createdAt: null,
    startedAt: null,
    completedAt: null,
    metrics: { predict_time: 1.5 },
  } as const;
  const copied = {
    key,
    url: bucket.urlOf(key),
    bytes: 12_345,
    sha256: "ab".repeat(32),
    content_type: "image/png",
    from: "https://replicate.delivery/out.png",
  };
  await ledger.move(ref, "succeed", { nowMs: 3_000 });
  await ledger.move(ref, "finishCopy", { nowMs: 4_000 });
  const receipt = buildReceipt({
    ref: { ...ref, account: ACCOUNT },
    rowId: null,
    replyTo: null,
    predictionId: PREDICTION,
    claimedAtMs: 1_000,
    recordedAtMs: 5_000,
    ending: { end: "saved", error: null, answer, copied: [copied] },
  });
  await writeReceipt(bucket, ref, receipt);
  await ledger.move(ref, "save", { nowMs: 5_000 });
  return ref;
}
