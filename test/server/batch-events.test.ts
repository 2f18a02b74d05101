/** A batch as it changes, as server-sent events: what is told, when, and what needn't be told again. */

import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { type BatchReport, reportBatch } from "../../src/batches/report-batch.ts";
import type { BatchId } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import type { Ledger } from "../../src/ledger/ledger.ts";
import { openBatchWatch } from "../../src/server/batch-watch.ts";
import { openStreams } from "../../src/server/streams.ts";
import { ACCOUNT } from "../support/stages.ts";
import { expectProblem } from "./expect-problem.ts";
import { bringTo } from "./items.ts";
import { bearer, KEYS, post, rows, test, WITH_KEYS } from "./serving.ts";

type Told = { readonly id: string; readonly report: BatchReport };

type Watcher = Disposable & {
  readonly status: number;
  /** What comes next: an event, the text of anything else, or null at the end. */
  next(): Promise<Told | string | null>;
  /** The next event, whatever else comes before it. */
  event(): Promise<Told>;
};

async function watchOver(port: number, batch: BatchId, headers: Record<string, string> = {}): Promise<Watcher> {
  const leaving = new AbortController();
  const url = `http://127.0.0.1:${port}/v1/batches/${batch}/events`;
  const answer = await fetch(url, { signal: leaving.signal, headers });
  const reader = (answer.body ?? new Blob([]).stream()).pipeThrough(new TextDecoderStream()).getReader();
  let text = "";

  async function next(): Promise<Told | string | null> {
    for (;;) {
      const end = text.indexOf("\n\n");
      if (end !== -1) {
        const block = text.slice(0, end);
        text = text.slice(end + 2);
        const [, id = "", data = ""] = /^event: batch\nid: (\S+)\ndata: (.*)$/.exec(block) ?? [];
        return data === "" ? block : { id, report: JSON.parse(data) as BatchReport };
      }
      const { value, done } = await reader.read();
      if (done) return null;
      text += value;
    }
  }
  return {
    status: answer.status,
    next,
    async event() {
      for (;;) {
        const told = await next();
        if (told === null) throw new Error("the stream ended");
        if (typeof told !== "string") return told;
      }
    },
    [Symbol.dispose]: () => leaving.abort(),
  };
}

test("the batch is told at once, again at each change, and no more when it has finished", async ({ serve }) => {
  const { app, services, listen } = await serve();
  const batch = await post(app, rows(3));
  using watcher = await watchOver(await listen(), batch);
  expect(await watcher.next()).toBe("retry: 2000");
  const first = await watcher.event();
  expect(first.report).toMatchObject({ batch, state: "open", waiting: 3, in_flight: 0 });

  await bringTo("running", { batch, index: 1 }, services);
  const second = await watcher.event();
  expect(second.report).toMatchObject({ state: "running", waiting: 2, in_flight: 1 });
  expect(second.id).not.toBe(first.id);

  await services.ledger.finishBatch(ACCOUNT, batch, Date.now(), 0);
  expect((await watcher.event()).report).toMatchObject({ state: "finished" });
  expect(await watcher.next()).toBe(null);
});

test("who has seen the present version hears nothing but signs of life until it changes", async ({ serve }) => {
  const { app, services, listen } = await serve({ timeouts: { heartbeatMs: 400 } });
  const batch = await post(app, rows(3));
  const port = await listen();
  using first = await watchOver(port, batch);
  const { id } = await first.event();

  using again = await watchOver(port, batch, { "last-event-id": id });
  expect(await again.next()).toBe("retry: 2000");
  // In the time of three heartbeats the batch is looked at once more.
  for (let beat = 0; beat < 3; beat++) expect(await again.next()).toBe(": still here");
  await bringTo("running", { batch, index: 1 }, services);
  const changed = await again.event();
  expect(changed.report).toMatchObject({ in_flight: 1 });

  using late = await watchOver(port, batch, { "last-event-id": id });
  expect(await late.event(), "a version that is old by now is made up for at once").toEqual(changed);
});

test("who has seen how it finished needn't come again", async ({ serve }) => {
  const { app, services, listen } = await serve();
  const batch = await post(app, rows(3));
  await services.ledger.finishBatch(ACCOUNT, batch, Date.now(), 0);
  const port = await listen();
  using first = await watchOver(port, batch);
  const { id } = await first.event();
  expect(await first.next()).toBe(null);
  // A browser comes back by itself after an end, unless this is the answer.
  using again = await watchOver(port, batch, { "last-event-id": id });
  expect([again.status, await again.next()]).toEqual([204, null]);
});

test("a hundred who watch a batch cost no more than one, and none is looked at when they have gone", async ({
  serve,
}) => {
  let looks = 0;
  const counted = (ledger: Ledger): Ledger => ({
    ...ledger,
    standing(account, batch) {
      looks++;
      return ledger.standing(account, batch);
    },
  });
  const { app, services, listen } = await serve({ over: ({ ledger }) => ({ ledger: counted(ledger) }) });
  const batch = await post(app, rows(5));
  const port = await listen();
  const watchers = await Promise.all(Array.from({ length: 100 }, () => watchOver(port, batch)));
  await Promise.all(watchers.map((watcher) => watcher.event()));

  looks = 0;
  for (let index = 0; index < 3; index++) {
    await bringTo("running", { batch, index }, services);
    const told = await Promise.all(watchers.map((watcher) => watcher.event()));
    expect(new Set(told.map(({ id }) => id)).size).toBe(1);
  }
  expect(looks, "three changes, each seen by the next look").toBeLessThanOrEqual(6);

  for (const watcher of watchers) watcher[Symbol.dispose]();
  await sleep(1.5 * SECOND); // the look that was due
  looks = 0;
  await sleep(2.5 * SECOND); // silence is the claim
  expect(looks).toBe(0);
});

test("a key may have a hundred streams open; one more is told to come again, and finds room when another ends", async ({
  serve,
}) => {
  const { app, listen } = await serve({ env: WITH_KEYS });
  const batch = await post(app, rows(3), { headers: bearer(KEYS.producer) });
  const port = await listen();
  const watch = (key: string) => watchOver(port, batch, bearer(key));
  const watchers = await Promise.all(Array.from({ length: 100 }, () => watch(KEYS.producer)));
  await Promise.all(watchers.map((watcher) => watcher.event()));

  const url = `http://127.0.0.1:${port}/v1/batches/${batch}/events`;
  const refused = await fetch(url, { headers: bearer(KEYS.producer), signal: AbortSignal.timeout(10 * SECOND) });
  const { status: statusCode, headers } = refused;
  const problem = expectProblem({ statusCode, headers: Object.fromEntries(headers), body: await refused.text() }, 429);
  expect(problem.detail).toMatch(/100 streams of events/);
  expect(Number(headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
  const page = await fetch(`http://127.0.0.1:${port}/batches/live`, { headers: bearer(KEYS.producer) });
  expect(page.status, "a page that keeps itself up to date has a stream, too").toBe(429);
  await page.body?.cancel();
  using other = await watch(KEYS.operator);
  await other.event();

  watchers.pop()?.[Symbol.dispose]();
  await expect
    .poll(async () => {
      using again = await watch(KEYS.producer);
      return again.status;
    })
    .toBe(200);
  for (const watcher of watchers) watcher[Symbol.dispose]();
});

test("all keys together may have so many", () => {
  const streams = openStreams({ perKey: 2, inAll: 3 });
  const client = (id: string) => ({ tenant: "acme", role: "viewer", account: null, id }) as const;
  const [first, second] = [new AbortController(), new AbortController()];
  streams.take(client("a"), first.signal);
  streams.take(client("a"), second.signal);
  expect(() => streams.take(client("a"), second.signal)).toThrow("this key has 2 streams of events open");
  streams.take(client("b"), second.signal);
  expect(() => streams.take(client("c"), second.signal)).toThrow("3 streams of events are open");
  first.abort();
  streams.take(client("c"), second.signal);
  second.abort();
  // Whoever has gone by now holds nothing.
  for (let n = 0; n < 10; n++) streams.take(client("a"), second.signal);
  for (const id of ["a", "a", "b"]) streams.take(client(id), new AbortController().signal);
});

test("whoever still hasn't left when the server closes isn't looked after any more", async ({ serve }) => {
  const { app, services } = await serve();
  const batch = await post(app, rows(3));
  let looks = 0;
  const watch = openBatchWatch(async (id) => {
    looks++;
    return reportBatch(services.ledger, id);
  });
  const events = watch.follow(batch, new AbortController().signal);
  await events.next();
  watch.close();
  looks = 0;
  await sleep(SECOND / 4); // silence is the claim
  expect(looks).toBeLessThanOrEqual(1);
  expect(await events.next()).toMatchObject({ done: true });
});

test("the streams end when the server closes, and it waits for none of them", async ({ serve }) => {
  const { app, listen } = await serve();
  const batch = await post(app, rows(3));
  const port = await listen();
  const watchers = await Promise.all(Array.from({ length: 10 }, () => watchOver(port, batch)));
  for (const watcher of watchers) await watcher.event();
  await app.close();
  for (const watcher of watchers) expect(await watcher.next()).toBe(null);
});
