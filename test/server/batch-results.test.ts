/** What became of a batch's items, streamed while they still run; and the files that were kept. */

import { describe, expect } from "vitest";
import { ITEM_STATES, type ItemState } from "../../src/core/item.ts";
import { type BatchId, itemId } from "../../src/core/naming.ts";
import type { ResultLine } from "../../src/core/receipt.ts";
import type { Ledger } from "../../src/ledger/ledger.ts";
import { expectProblem } from "./expect-problem.ts";
import { bringTo, contentOf } from "./items.ts";
import { head, openRawClient } from "./raw-client.ts";
import { bearer, KEYS, post, rows, type Served, test, WITH_KEYS } from "./serving.ts";

const SHOWN: Readonly<Record<ItemState, ResultLine["status"]>> = {
  waiting: "waiting",
  claimed: "in_flight",
  running: "in_flight",
  copying: "in_flight",
  recording: "in_flight",
  saved: "saved",
  failed: "failed",
  canceled: "canceled",
  unclear: "unclear",
};

async function results({ app }: Served, batch: BatchId, headers = {}): Promise<readonly ResultLine[]> {
  const answer = await app.inject({ url: `/v1/batches/${batch}/results`, headers });
  expect([answer.statusCode, answer.headers["content-type"]]).toEqual([200, "application/x-ndjson"]);
  return answer.body
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as ResultLine);
}

test("each item has its line, in input order, wherever it stands", async ({ serve }) => {
  const served = await serve();
  const batch = await post(served.app, rows(ITEM_STATES.length));
  for (const [index, state] of ITEM_STATES.entries()) await bringTo(state, { batch, index }, served.services);
  const lines = await results(served, batch);
  expect(lines.map(({ index, status }) => [index, status])).toEqual(
    ITEM_STATES.map((state, index) => [index, SHOWN[state]]),
  );
  expect(lines.map(({ item }) => item)).toEqual(ITEM_STATES.map((_, index) => itemId(batch, index)));
  const bought = ITEM_STATES.map((state) => !["waiting", "claimed", "unclear"].includes(state));
  expect(lines.map(({ prediction_id: id }) => id !== null)).toEqual(bought);
});

test("they are streamed, so they have no length that could be asked for beforehand", async ({ serve }) => {
  const { app } = await serve();
  const batch = await post(app, rows(1));
  for (const what of ["results", "events"]) {
    expect((await app.inject({ method: "HEAD", url: `/v1/batches/${batch}/${what}` })).statusCode).toBe(405);
  }
});

test("who goes away in the middle isn't read for any longer", async ({ serve }) => {
  let looks = 0;
  const counted = (ledger: Ledger): Ledger => ({
    ...ledger,
    readItem(ref) {
      looks++;
      return ledger.readItem(ref);
    },
  });
  const items = 20_000;
  const { app, listen } = await serve({ over: ({ ledger }) => ({ ledger: counted(ledger) }) });
  const batch = await post(app, rows(items));
  const port = await listen();
  const client = await openRawClient(port);
  await client.send(head(`GET /v1/batches/${batch}/results`));
  await client.shows(/"index":0/);
  client.reset();
  const connections = () =>
    new Promise<number>((resolve, reject) =>
      app.server.getConnections((error, count) => (error === null ? resolve(count) : reject(error))),
    );
  await expect.poll(connections).toBe(0);
  const looked = looks;
  await app.inject("/ready");
  await app.inject("/ready");
  expect(looked).toBeLessThan(items / 2);
  expect(looks - looked, "those that were under way").toBeLessThanOrEqual(64);
});

describe("kept files", () => {
  /** A batch whose one item is saved, and the address of its file as the API hands it out. */
  async function kept({ app, services }: Served, headers: Readonly<Record<string, string>>) {
    const batch = await post(app, rows(1), { headers });
    await bringTo("saved", { batch, index: 0 }, services);
    const id = itemId(batch, 0);
    const { output } = (await app.inject({ url: `/v1/predictions/${id}`, headers })).json<{ output: string[] }>();
    const url = new URL(output[0] ?? "");
    return { id, signed: `${url.pathname}${url.search}`, plain: url.pathname };
  }

  test("are opened by their signed address, or by a key of their tenant", async ({ serve }) => {
    const served = await serve({ env: WITH_KEYS });
    const { signed, plain } = await kept(served, bearer(KEYS.producer));
    const open = (url: string, headers = {}) => served.app.inject({ url, headers });
    for (const answer of [await open(signed), await open(plain, bearer(KEYS.viewer))]) {
      expect([answer.statusCode, answer.body]).toEqual([200, contentOf(0)]);
      expect(answer.headers).toMatchObject({ "content-type": "text/plain", "content-length": "20" });
    }
    expectProblem(await open(plain), 401);
    expectProblem(await open(plain, bearer(KEYS.stranger)), 404);
    expect((await open(signed, bearer(KEYS.stranger))).statusCode, "the signature stands for itself").toBe(200);
  });

  test("are opened by the address that a batch's results have, or stand where the public reads the bucket", async ({
    serve,
  }) => {
    const served = await serve({ env: WITH_KEYS });
    const headers = bearer(KEYS.producer);
    const { id, signed } = await kept(served, headers);
    const batch = id.slice(0, 20) as BatchId;
    const [line] = await results(served, batch, headers);
    const { pathname, search } = new URL(line?.outputs[0]?.url ?? "");
    expect(`${pathname}${search}`).toBe(signed);
    expect(line?.output, "names the objects").toEqual([line?.outputs[0]?.key]);

    const behindCdn = await serve({ env: { ...WITH_KEYS, OUTLAST_PUBLIC_BUCKET_URL: "https://cdn.example/kept" } });
    const [shown] = await results(behindCdn, batch, headers);
    const address = `https://cdn.example/kept/${shown?.outputs[0]?.key}`;
    expect(shown?.outputs[0]?.url).toBe(address);
    const prediction = await behindCdn.app.inject({ url: `/v1/predictions/${id}`, headers });
    expect(prediction.json()).toMatchObject({ output: [address] });
  });

  test("aren't opened by an address that was tampered with", async ({ serve }) => {
    const served = await serve({ env: WITH_KEYS });
    const { signed } = await kept(served, bearer(KEYS.producer));
    const changed = (change: (url: URL) => void) => {
      const url = new URL(signed, "http://localhost");
      change(url);
      return `${url.pathname}${url.search}`;
    };
    for (const url of [
      changed(({ searchParams }) => searchParams.set("expires", "99999999999")),
      changed(({ searchParams }) => searchParams.set("expires", "1")),
      changed(({ searchParams }) => searchParams.set("expires", "NaN")),
      changed(({ searchParams }) => searchParams.set("signature", "")),
      changed(({ searchParams }) => searchParams.set("signature", "a".repeat(43))),
      changed(({ searchParams }) => searchParams.delete("signature")),
      signed.replace("000000/", "000001/"),
      signed.replace("output-0", "output-1"),
    ]) {
      expectProblem(await served.app.inject(url), 401);
    }
  });

  test("that aren't there are a 404, by whatever name they are asked for", async ({ serve }) => {
    const served = await serve();
    const { id } = await kept(served, {});
    for (const name of ["output-1.txt", "receipt.json", "..%2f..%2fbatch.json", "%00", "__proto__"]) {
      expectProblem(await served.app.inject(`/v1/files/${id}/${name}`), 404);
    }
    expectProblem(await served.app.inject("/v1/files/nothing/output-0.txt"), 404);
  });

  test("come in parts, and not again to whom has them", async ({ serve }) => {
    const served = await serve();
    const { signed } = await kept(served, {});
    const get = (headers: Readonly<Record<string, string>>) => served.app.inject({ url: signed, headers });
    const whole = await get({});
    const etag = String(whole.headers.etag);
    const text = contentOf(0);
    for (const [headers, status, body] of [
      [{ range: "bytes=4-9" }, 206, text.slice(4, 10)],
      [{ range: "bytes=-4" }, 206, text.slice(-4)],
      [{ range: "bytes=4-" }, 206, text.slice(4)],
      [{ range: "bytes=0-999" }, 206, text],
      [{ range: "bytes=4-9", "if-range": etag }, 206, text.slice(4, 10)],
      [{ range: "bytes=4-9", "if-range": '"another"' }, 200, text],
      [{ range: "bytes=0-1,4-5" }, 200, text],
      [{ range: "letters=0-1" }, 200, text],
      [{ range: "bytes=nonsense" }, 200, text],
      [{ "if-none-match": etag }, 304, ""],
      [{ "if-none-match": '"another"' }, 200, text],
    ] as const) {
      const answer = await get(headers);
      expect([headers, answer.statusCode, answer.body]).toEqual([headers, status, body]);
    }
    const outside = await get({ range: "bytes=99-" });
    expectProblem(outside, 416);
    expect(outside.headers["content-range"]).toBe(`bytes */${text.length}`);
    expect(outside.headers).not.toHaveProperty("cache-control");
    const only = await served.app.inject({ method: "HEAD", url: signed });
    expect([only.statusCode, only.headers["content-length"], only.body]).toEqual([200, String(text.length), ""]);
  });

  test("that are gone from the bucket are told so, to nobody for longer than now", async ({ serve }) => {
    const served = await serve();
    const { signed, id } = await kept(served, {});
    const [line] = await results(served, id.slice(0, 20) as BatchId);
    await served.services.bucket.delete(line?.outputs[0]?.key ?? "");
    const answer = await served.app.inject(signed);
    expectProblem(answer, 404);
    expect(answer.headers).not.toHaveProperty("cache-control");
    expect(answer.headers).not.toHaveProperty("content-disposition");
  });

  test("never run as a page", async ({ serve }) => {
    const served = await serve();
    const { signed } = await kept(served, {});
    expect((await served.app.inject(signed)).headers).toMatchObject({
      "content-security-policy": expect.stringMatching(/^sandbox; default-src 'none'/),
      "x-content-type-options": "nosniff",
      "content-disposition": 'inline; filename="output-0.txt"',
    });
  });
});
