/**
 * Every process of a fleet is replaced, one after the other, while it works: three workers and two servers. A batch runs,
 * and clients post all the time, as clients do: they send again, under the same key, what wasn't answered. Nothing may be
 * lost and nothing bought twice - by the provider's books, not by ours.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import type { BatchId } from "../../src/core/naming.ts";
import { endedItems, expectRightBytes, untilSettled } from "../support/batch.ts";
import { type Fleet, type FleetProcess, type ServerProcess, startFleet } from "../support/fleet.ts";

const ITEMS = 300;
const CLIENTS = 4;
const POST_EVERY_MS = 500;

type Posted = { readonly id: string; readonly tries: number };

test("a fleet is replaced process by process in the middle of its work, and loses and repeats nothing", async () => {
  await using fleet = await startFleet({
    emulator: { runMs: { medianMs: 800, spread: 0.4 } },
    createsPerMinute: 900,
  });
  const workers: FleetProcess[] = [fleet.startWorker(), fleet.startWorker(), fleet.startWorker()];
  const servers = [await fleet.startServer(), await fleet.startServer()];
  const batch = await submitPictures(servers[0]);
  const clients = startClients(servers);

  const inTheMiddle = async () => {
    const [ended, accepted] = [await endedItems(fleet, batch), clients.posted.size];
    const progress = async () => [(await endedItems(fleet, batch)) - ended > 15, clients.posted.size - accepted > 5];
    await expect.poll(progress, { timeout: 60_000, interval: 20 }).toEqual([true, true]);
  };
  for (let n = 0; n < 3; n++) {
    await inTheMiddle();
    expect(await workers[n]?.stop(), workers[n]?.log()).toBe(0);
    workers[n] = fleet.startWorker();
    const server = servers[n];
    if (server === undefined) continue;
    await inTheMiddle();
    expect(await server.stop(), server.log()).toBe(0);
    servers[n] = await fleet.startServer();
  }
  expect(await endedItems(fleet, batch), "all of them were replaced in mid-run").toBeLessThan(ITEMS);
  const posted = await clients.stop();
  const again = [...posted.values()].filter(({ tries }) => tries > 1);
  expect(again.length, "predictions that were sent again").toBeGreaterThan(0);

  expect(await untilSettled(fleet, batch)).toMatchObject({ items: ITEMS, saved: ITEMS, failed: 0, unclear: 0 });
  const server = servers[0] ?? raise();
  await expect.poll(() => unfinished(server, posted), { timeout: 60_000, interval: 500 }).toEqual([]);

  const { creates } = fleet.emulator.books();
  expect(creates).toMatchObject({ surplus: 0, total: ITEMS + posted.size, distinct_inputs: ITEMS + posted.size });
  await expectRightBytes(fleet, batch);
  await expectOneItemEach(fleet, server, posted);
  for (const process of [...workers, ...servers]) expect(await process.stop()).toBe(0);
});

async function submitPictures(server: ServerProcess | undefined): Promise<BatchId> {
  const rows = Array.from({ length: ITEMS }, (_, n) => `{"input":{"prompt":"picture number ${n}"}}\n`);
  const answer = await fetch(`${server?.url}/v1/batches?model=outlast/picture`, {
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body: rows.join(""),
  });
  expect(answer.status).toBe(201);
  return ((await answer.json()) as { batch: BatchId }).batch;
}

/** Each posts one prediction after the other, to whichever server is there, until it is answered. */
function startClients(servers: readonly ServerProcess[]) {
  const posted = new Map<string, Posted>();
  let stopped = false;
  async function client(name: number): Promise<void> {
    for (let n = 0; !stopped; n++) {
      const key = `client ${name}, prediction ${n}`.replaceAll(/\W+/g, "-");
      for (let tries = 1; !posted.has(key); tries++) {
        const id = await post(servers[(name + tries) % servers.length], key);
        if (id !== null) posted.set(key, { id, tries });
      }
      // All of them together ask for half of what may be created: a slow machine has no more to do at the end.
      await sleep(POST_EVERY_MS);
    }
  }
  const running = Promise.all(Array.from({ length: CLIENTS }, (_, name) => client(name)));
  return {
    posted,
    async stop() {
      stopped = true;
      await running;
      return posted;
    },
  };
}

/** Null: it wasn't answered, or by a server that closes. */
async function post(server: ServerProcess | undefined, key: string): Promise<string | null> {
  try {
    const answer = await fetch(`${server?.url}/v1/predictions`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": key },
      body: JSON.stringify({ version: "outlast/text", input: { prompt: key } }),
      signal: AbortSignal.timeout(20_000),
    });
    if (answer.status === 503) return null;
    expect(answer.status, await answer.clone().text()).toBe(201);
    return ((await answer.json()) as { id: string }).id;
  } catch (error) {
    if (error instanceof TypeError) return null; // the connection was refused or broke off
    throw error;
  }
}

async function unfinished(server: ServerProcess, posted: ReadonlyMap<string, Posted>): Promise<readonly string[]> {
  const statuses = Array.from(posted.values(), async ({ id }) => {
    const answer = await fetch(`${server.url}/v1/predictions/${id}`);
    const { status } = (await answer.json()) as { status: string };
    return status === "succeeded" ? [] : [`${id} ${status}`];
  });
  return (await Promise.all(statuses)).flat();
}

/** The list names each prediction that was posted once, and no others. */
async function expectOneItemEach(
  { emulator }: Fleet,
  server: ServerProcess,
  posted: ReadonlyMap<string, Posted>,
): Promise<void> {
  const listed: (readonly [string, string])[] = [];
  for (let url: string | null = `${server.url}/v1/predictions`; url !== null; ) {
    const page = (await (await fetch(url)).json()) as Page;
    listed.push(...page.results.map(({ id, input }) => [input.prompt, id] as const));
    url = page.next;
  }
  expect(listed).toHaveLength(posted.size);
  expect(new Map(listed)).toEqual(new Map(Array.from(posted, ([key, { id }]) => [key, id])));
  expect(emulator.books().predictions).toMatchObject({ succeeded: ITEMS + posted.size });
}

type Page = {
  readonly next: string | null;
  readonly results: readonly { readonly id: string; readonly input: { readonly prompt: string } }[];
};

function raise(): never {
  throw new Error("it isn't there");
}
