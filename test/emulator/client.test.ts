/** Replicate's own published client, pointed at the emulator: a judge that shares no code with us. */

import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import Replicate, { validateWebhook } from "replicate";
import { expect, test } from "vitest";
import { type Emulator, startEmulator } from "../../src/emulator/emulator.ts";
import { QUICK, STUCK, UNLIMITED } from "./asker.ts";

const clientOf = (emulator: Emulator): Replicate => new Replicate({ auth: "r8_emulator", baseUrl: emulator.apiUrl });

test("run answers the output, held or polled", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const client = clientOf(emulator);
  const input = { prompt: "a kite" };
  expect(await client.run("outlast/picture", { input })).toMatch(/out-0\.png$/);
  expect(
    await client.run("outlast/text", { input: { ...input, as: "list" }, wait: { mode: "poll", interval: 5 } }),
  ).toHaveLength(5);
  await expect(client.run("outlast/moderated", { input })).rejects.toThrow("E005");
});

test("create, get, cancel, list and the account work by it", async () => {
  await using emulator = await startEmulator({ seed: 1, ...STUCK, ...UNLIMITED });
  const client = clientOf(emulator);
  for (let number = 0; number < 120; number++) {
    await client.predictions.create({ model: "outlast/text", input: { prompt: `p ${number}` } });
  }
  const made = await client.deployments.predictions.create("outlast", "picture", { input: { prompt: "a kite" } });
  expect(await client.predictions.get(made.id)).toMatchObject({ status: "starting" });
  expect(await client.predictions.cancel(made.id)).toMatchObject({ status: "canceled" });
  const ids = new Set<string>();
  for await (const page of client.paginate(() => client.predictions.list())) {
    for (const { id } of page) ids.add(id);
  }
  expect(ids.size).toBe(121);
  expect(await client.accounts.current()).toMatchObject({ type: "organization" });
  expect(await client.models.get("outlast", "text")).toMatchObject({ name: "text" });
});

test("its check of signatures accepts our webhooks, and no others", async () => {
  await using emulator = await startEmulator({ seed: 1, ...QUICK });
  const client = clientOf(emulator);
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const webhook = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  const arrival = once(server, "request") as Promise<[IncomingMessage, NodeJS.WritableStream]>;
  const input = { prompt: "a kite" };
  await client.predictions.create({ model: "outlast/text", input, webhook, webhook_events_filter: ["completed"] });
  const [request, response] = await arrival;
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  response.end();
  const sent = {
    id: String(request.headers["webhook-id"]),
    timestamp: String(request.headers["webhook-timestamp"]),
    signature: String(request.headers["webhook-signature"]),
    body: Buffer.concat(chunks).toString(),
    secret: (await client.webhooks.default.secret.get()).key,
  };
  expect(await validateWebhook(sent)).toBe(true);
  expect(await validateWebhook({ ...sent, body: sent.body.replace("a kite", "b kite") })).toBe(false);
  server.closeAllConnections();
  server.close();
});
