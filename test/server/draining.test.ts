/**
 * SIGTERM to a server and to a worker, as processes, in the middle of whatever they do: what was asked is answered, no
 * more is taken, the exit code is 0 - and a second signal ends it at once.
 */

import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { test as base, describe, expect } from "vitest";
import { type BatchId, parseBatchId, parseItemId } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import { endedItems, expectRightBytes, prompts, report, submit, untilSettled } from "../support/batch.ts";
import { type Fleet, type ServerProcess, startFleet } from "../support/fleet.ts";
import { head, openRawClient, type RawClient } from "./raw-client.ts";
import { NDJSON, rows } from "./serving.ts";

/** What a server may take to let everybody go who can be let go. */
const SOON_MS = 10 * SECOND;
/** With this a server says when it has begun with a request; connections it hasn't looked at go when it stops. */
const AWAITED = "Expect: 100-continue";
const TAKEN = /^HTTP\/1\.1 100 /;

// oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
const test = base.extend("fleet", { scope: "file" }, async ({}, { onCleanup }) => {
  const fleet = await startFleet();
  onCleanup(() => fleet[Symbol.asyncDispose]());
  return fleet;
});

const portOf = ({ url }: ServerProcess) => Number(new URL(url).port);
const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;

async function post(server: ServerProcess, count: number): Promise<BatchId> {
  const url = `${server.url}/v1/batches?again=true`;
  const answer = await fetch(url, { method: "POST", headers: NDJSON, body: rows(count) });
  const { batch } = (await answer.json()) as { batch: string };
  return parseBatchId(batch) ?? raise(`no batch came of it: ${answer.status}`);
}

/** An upload that the server has begun to take. */
async function beginUpload(server: ServerProcess): Promise<RawClient> {
  const client = await openRawClient(portOf(server));
  const headers = ["Content-Type: application/x-ndjson", "Transfer-Encoding: chunked"];
  await client.send(head("POST /v1/batches", ...headers, AWAITED));
  await client.shows(TAKEN);
  return client;
}

/** Resolves when nobody listens on the port any more. */
async function untilDeaf(port: number): Promise<void> {
  const isDeaf = async () => {
    const socket = connect(port, "127.0.0.1");
    const heard = await once(socket, "connect").then(
      () => true,
      () => false,
    );
    socket.destroy();
    return !heard;
  };
  await expect.poll(isDeaf, { timeout: SOON_MS, interval: 20 }).toBe(true);
}

/** Sends SIGTERM; answers the exit code and how long it took. */
async function stopped(process: Pick<ServerProcess, "stop">): Promise<{ code: number | null; tookMs: number }> {
  const toldAt = performance.now();
  return { code: await process.stop(), tookMs: performance.now() - toldAt };
}

describe("a server that is told to stop", { timeout: 60_000 }, () => {
  test("takes an upload that is under way to its end, and no new connection", async ({ fleet }) => {
    const server = await fleet.startServer();
    using client = await beginUpload(server);
    await client.send(chunk(rows(100)));
    const end = stopped(server);
    await untilDeaf(portOf(server));
    await client.send(`${chunk(rows(200))}0\r\n\r\n`);
    const [answer] = await client.answers(1);
    expect([answer?.status, JSON.parse(answer?.body ?? "")]).toMatchObject([201, { items: 300 }]);
    expect(await client.ended()).toBe("in order");
    expect(await end).toMatchObject({ code: 0 });
    const { batch } = JSON.parse(answer?.body ?? "") as { batch: BatchId };
    expect(await report(fleet, batch)).toMatchObject({ items: 300 });
  });

  test("answers whoever is held with the prediction as it stands, and lets watchers and idlers go", async ({
    fleet,
  }) => {
    const server = await fleet.startServer();
    const batch = await post(server, 3);
    using held = await openRawClient(portOf(server));
    const body = '{"version":"outlast/text","input":{"prompt":"a"}}';
    const headers = ["Content-Type: application/json", `Content-Length: ${body.length}`, "Prefer: wait=60"];
    await held.send(head("POST /v1/predictions", ...headers, AWAITED));
    await held.shows(TAKEN);
    await held.send(body);
    using watcher = await openRawClient(portOf(server));
    await watcher.send(head(`GET /v1/batches/${batch}/events`));
    await watcher.shows(/event: batch/);
    using pageWatcher = await openRawClient(portOf(server));
    await pageWatcher.send(head(`GET /batches/${batch}/live`));
    await pageWatcher.shows(/retry: /);
    using idler = await openRawClient(portOf(server));
    await idler.send(head("GET /health"));
    await idler.answers(1);

    const { code, tookMs } = await stopped(server);
    expect(code).toBe(0);
    expect(tookMs).toBeLessThan(SOON_MS);
    const [answer] = await held.answers(1);
    const view = JSON.parse(answer?.body ?? "") as { id: string; status: string };
    expect([answer?.status, view.status]).toEqual([202, "starting"]);
    for (const client of [held, watcher, pageWatcher, idler]) expect(await client.ended()).toBe("in order");
    await expectKept(fleet, view.id);
  });

  test("sends a download that is under way to its end, and refuses what is asked behind it", async ({ fleet }) => {
    const server = await fleet.startServer();
    const items = 20_000;
    const batch = await post(server, items);
    using client = await openRawClient(portOf(server));
    await client.send(head(`GET /v1/batches/${batch}/results`));
    await client.shows(/"index":0/);
    const end = stopped(server);
    await untilDeaf(portOf(server));
    await client.send(head("GET /v1/account"));
    expect(await client.ended()).toBe("in order");
    expect(client.received().match(/"index":/g)).toHaveLength(items);
    const [, refusal = ""] = client.received().split("\r\n0\r\n\r\n");
    expect(refusal).toMatch(/^HTTP\/1\.1 503 /);
    for (const header of [/\r\nretry-after: 1\r\n/i, /\r\ncontent-type: application\/problem\+json\r\n/i]) {
      expect(refusal).toMatch(header);
    }
    expect(await end).toMatchObject({ code: 0 });
  });

  test("isn't held up by who says nothing more in the middle of a request", async ({ fleet }) => {
    const server = await fleet.startServer();
    using silent = await openRawClient(portOf(server));
    await silent.send("GET /health HTTP/1.1\r\nHos");
    using stuck = await beginUpload(server);
    await stuck.send(chunk(rows(1)));
    const { code, tookMs } = await stopped(server);
    expect(code).toBe(0);
    expect(tookMs).toBeLessThan(25 * SECOND);
    expect((await stuck.answers(1)).map(({ status }) => status)).toEqual([408]);
  });

  test("ends at once at the second signal", async ({ fleet }) => {
    const server = await fleet.startServer();
    using client = await beginUpload(server);
    await client.send(chunk(rows(1)));
    const end = stopped(server);
    await sleep(1.2 * SECOND); // sooner it would be taken for the same: under npm one Ctrl-C comes twice
    process.kill(server.pid, "SIGTERM");
    const { code, tookMs } = await end;
    expect(code).toBe(1);
    expect(tookMs).toBeLessThan(5 * SECOND);
  });

  test("ends also where Redis says nothing", async ({ fleet }) => {
    const pid = Number(/process_id:(\d+)/.exec(await fleet.services.redis.info("server"))?.[1]);
    const server = await fleet.startServer();
    process.kill(pid, "SIGSTOP");
    try {
      using client = await openRawClient(portOf(server));
      await client.send(head("GET /v1/batches", AWAITED));
      await client.shows(TAKEN);
      const { code, tookMs } = await stopped(server);
      expect(code).toBe(0);
      expect(tookMs).toBeLessThan(SOON_MS);
      expect((await client.answers(1)).map(({ status }) => status)).toEqual([503]);
    } finally {
      process.kill(pid, "SIGCONT");
    }
  });
});

async function expectKept({ services: { ledger } }: Fleet, id: string): Promise<void> {
  const place = parseItemId(id) ?? raise(`${id} is no item`);
  const account = (await ledger.accountOf(place.batch)) ?? raise(`nobody knows batch ${place.batch}`);
  const standing = await ledger.standing(account, place.batch);
  expect(standing?.batch.items).toBeGreaterThan(place.index);
}

describe("a worker that is told to stop", { timeout: 120_000 }, () => {
  test("ends its running jobs, and leaves the rest to another", async () => {
    await using fleet = await startFleet({ createsPerMinute: 1_200 });
    const items = 150;
    const batch = await submit(fleet, prompts(items));
    let worker = fleet.startWorker();
    for (let stop = 0; stop < 3; stop++) {
      const before = await endedItems(fleet, batch);
      await expect
        .poll(() => endedItems(fleet, batch), { timeout: 30_000, interval: 20 })
        .toBeGreaterThanOrEqual(before + 20);
      const { code, tookMs } = await stopped(worker);
      expect(code).toBe(0);
      expect(worker.log(), "nothing to warn of").not.toMatch(/"level":[456]0/);
      expect(tookMs).toBeLessThan(SOON_MS);
      expect(await countsOf(fleet, batch), "every request that was sent was answered").toMatchObject({
        claimed: 0,
        unclear: 0,
      });
      worker = fleet.startWorker();
    }
    expect(await untilSettled(fleet, batch)).toMatchObject({ items, saved: items, unclear: 0, failed: 0 });
    expect(fleet.emulator.books().creates).toMatchObject({ surplus: 0 });
    await expectRightBytes(fleet, batch);
    expect(await worker.stop()).toBe(0);
  });

  test("waits for the answer to what it has sent, and for nothing at the second signal", async () => {
    await using fleet = await startFleet();
    fleet.emulator.arm({ route: "create", kind: "late", delayMs: 4_000 });
    const batch = await submit(fleet, prompts(1), "late");
    const patient = fleet.startWorker();
    await untilCreating(fleet, batch);
    expect(await stopped(patient)).toMatchObject({ code: 0 });
    expect(await countsOf(fleet, batch)).toMatchObject({ running: 1, claimed: 0, unclear: 0 });

    fleet.emulator.arm({ route: "create", kind: "silence" });
    const other = await submit(fleet, prompts(1), "silence");
    const hurried = fleet.startWorker();
    await untilCreating(fleet, other);
    const end = stopped(hurried);
    await sleep(1.2 * SECOND); // see above
    process.kill(hurried.pid, "SIGTERM");
    const { code, tookMs } = await end;
    expect(code).toBe(1);
    expect(tookMs).toBeLessThan(5 * SECOND);
  });
});

async function countsOf(fleet: Fleet, batch: BatchId) {
  const { account } = await report(fleet, batch);
  return ((await fleet.services.ledger.standing(account, batch)) ?? raise()).counts;
}

/** Until the batch's one item is being bought. */
async function untilCreating(fleet: Fleet, batch: BatchId): Promise<void> {
  await expect.poll(async () => (await countsOf(fleet, batch)).claimed, { timeout: 20_000, interval: 20 }).toBe(1);
}

function raise(message = "it isn't there"): never {
  throw new Error(message);
}
