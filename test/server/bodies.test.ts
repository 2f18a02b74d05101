/** How slowly rows may come: so much of them each minute, of which only the time counts in which they are waited for. */

import { EventEmitter, once } from "node:events";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import Fastify, { type FastifyInstance } from "fastify";
import { test as base, expect } from "vitest";
import { readBodies } from "../../src/server/bodies.ts";
import { answerProblems } from "../../src/server/problems.ts";
import { head, openRawClient } from "./raw-client.ts";

const PACE_MS = 600;
const ROWS = head("POST /rows", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked");
const END = "0\r\n\r\n";

const chunk = (bytes: number) => `${bytes.toString(16)}\r\n${"x".repeat(bytes)}\r\n`;

type Opened = { readonly app: FastifyInstance; readonly port: number };

/** A server that only counts what it is sent, and asks for the next piece when `ready` says so. */
// oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
const test = base.extend("open", async ({}, { onCleanup }) => {
  const opened = new AsyncDisposableStack();
  onCleanup(() => opened.disposeAsync());
  return async (ready: () => Promise<unknown> = async () => undefined): Promise<Opened> => {
    const app = Fastify({ forceCloseConnections: true }); // a test that fails leaves some open
    opened.defer(() => app.close());
    answerProblems(app);
    readBodies(app, { paceMs: PACE_MS });
    app.post("/rows", { config: { rows: true } }, async ({ body }) => {
      let bytes = 0;
      for await (const piece of body as AsyncIterable<Buffer>) {
        bytes += piece.length;
        await ready();
      }
      return { bytes };
    });
    await app.listen({ port: 0, host: "127.0.0.1" });
    return { app, port: (app.server.address() as AddressInfo).port };
  };
});

test("a sender that is fast enough may take as long as it needs", async ({ open }) => {
  const { port } = await open();
  using client = await openRawClient(port);
  await client.send(ROWS);
  for (let n = 0; n < 10; n++) {
    await client.send(chunk(4_096));
    await sleep(PACE_MS / 4); // its pace
  }
  await client.send(END);
  expect(await client.answers(1)).toMatchObject([{ status: 200, body: JSON.stringify({ bytes: 40_960 }) }]);
});

test("one that is fast at first and drips then is cut off", async ({ open }) => {
  const { port } = await open();
  using client = await openRawClient(port);
  await client.send(ROWS + chunk(100_000));
  const dripping = setInterval(() => void client.send(chunk(1)), PACE_MS / 20);
  const answers = await client.answers(1).finally(() => clearInterval(dripping));
  expect(answers).toMatchObject([{ status: 408, body: expect.stringContaining("took too long to arrive") }]);
});

test("the time in which we don't ask for more isn't the sender's", async ({ open }) => {
  const asks = new EventEmitter();
  const { port } = await open(async () => {
    await sleep(PACE_MS);
    asks.emit("more");
  });
  using client = await openRawClient(port);
  await client.send(ROWS);
  for (let n = 0; n < 3; n++) {
    const asked = once(asks, "more");
    await client.send(chunk(1));
    await asked;
    await sleep(PACE_MS / 6); // its pace
  }
  await client.send(END);
  expect(await client.answers(1)).toMatchObject([{ status: 200, body: JSON.stringify({ bytes: 3 }) }]);
});
