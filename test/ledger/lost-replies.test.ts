/** The connection breaks after Redis has run a script and before its reply: the client sends the script again. */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { expect } from "vitest";
import type { ItemStep } from "../../src/core/item.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { connectRedis } from "../../src/ledger/connect-redis.ts";
import { openLedger } from "../../src/ledger/ledger.ts";
import { ACCOUNT, NOON, newBatch, refOf, test } from "../support/stages.ts";

/** Between a client and Redis: `loseNext` lets the next answer never arrive. */
async function startProxy(targetPort: number) {
  const sockets = new Set<Socket>();
  let lost = 0;
  let isLosing = false;
  const server = createServer((client) => {
    const upstream = connect(targetPort, "127.0.0.1");
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {}); // resets are the purpose
      socket.on("close", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (chunk) => upstream.write(chunk));
    upstream.on("data", (chunk) => {
      if (!isLosing) return client.write(chunk);
      isLosing = false;
      lost++;
      return client.resetAndDestroy();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server has an address and a port");
  return {
    url: `redis://127.0.0.1:${address.port}`,
    loseNext: () => {
      isLosing = true;
    },
    lost: () => lost,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

test("every step answers as if its reply had come the first time, and nothing moves twice", async ({
  line,
  redis: server,
}) => {
  await line.clear();
  await using proxy = await startProxy(server.port);
  const redis = await connectRedis(proxy.url, "worker");
  using _connection = { [Symbol.dispose]: () => redis.disconnect() };
  const ledger = openLedger(redis);
  const batch = newBatch({ items: 2, retryFailed: 1 });
  await ledger.openBatch(batch);
  const ref = refOf(batch);
  // Once, so that what is lost below isn't the answer that Redis doesn't know the script.
  await ledger.move(refOf(batch, 1), "claim", { nowMs: NOON, nonce: "other" });

  const prediction = predictionId("p1");
  const steps: readonly (readonly [ItemStep, object, string])[] = [
    ["claim", { nonce: "n" }, "moved"],
    ["giveBack", { nonce: "n" }, "lost"], // given back already, and its nonce gone with it
    ["claim", { nonce: "m" }, "moved"],
    ["doubt", { nonce: "m" }, "already"],
    ["bind", { nonce: "m", predictionId: prediction }, "already"],
    ["conclude", {}, "already"],
    [
      "fail",
      { sums: { predict_time_ms: 7n, output_bytes: 0n, output_files: 0n }, retry: { recordedAtMs: NOON } },
      "lost",
    ],
  ];
  for (const [step, options, answer] of steps) {
    proxy.loseNext();
    expect((await ledger.move(ref, step, { nowMs: NOON, ...options })).answer, step).toBe(answer);
  }
  expect(proxy.lost()).toBe(steps.length);

  expect(await ledger.readStates(ACCOUNT, batch.id, 0, 1)).toEqual([{ attempt: 2, state: "waiting" }]);
  const standing = await ledger.standing(ACCOUNT, batch.id);
  expect(standing?.sums.predict_time_ms).toBe(7n);
  expect(standing?.counts).toMatchObject({ waiting: 1, claimed: 1, failed: 0, recording: 0 });
  expect(standing?.returned).toBe(1);
});
