/** Requests that are held until their prediction has ended: `Prefer: wait`. */

import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { parseItemId } from "../../src/core/naming.ts";
import { SECOND } from "../../src/core/time.ts";
import type { Ledger } from "../../src/ledger/ledger.ts";
import { bringTo } from "./items.ts";
import { head, openRawClient, type RawAnswer } from "./raw-client.ts";
import { type Served, test } from "./serving.ts";

const BODY = '{"version":"outlast/text","input":{}}';

const create = (waitSeconds: number) =>
  head(
    "POST /v1/predictions",
    "Content-Type: application/json",
    `Content-Length: ${BODY.length}`,
    `Prefer: wait=${waitSeconds}`,
  ) + BODY;

/** The item that was admitted last, once it is there. */
async function admitted({ app }: Served): Promise<NonNullable<ReturnType<typeof parseItemId>>> {
  const newest = async () =>
    (await app.inject("/v1/predictions")).json<{ results: { id: string }[] }>().results[0]?.id ?? "";
  await expect.poll(newest).not.toBe("");
  const place = parseItemId(await newest());
  if (place === null) throw new Error("what is listed isn't an item");
  return place;
}

const viewIn = (answer: RawAnswer | undefined) => JSON.parse(answer?.body ?? "") as Readonly<Record<string, unknown>>;

test("the answer comes as soon as the prediction has ended, with its output", async ({ serve }) => {
  const served = await serve();
  using client = await openRawClient(await served.listen());
  await client.send(create(60));
  const place = await admitted(served);
  await bringTo("saved", place, served.services);
  const [answer] = await client.answers(1);
  expect(answer).toMatchObject({ status: 201, headers: { "preference-applied": "wait=60" } });
  expect(viewIn(answer)).toMatchObject({
    status: "succeeded",
    output: [expect.stringMatching(/\/v1\/files\/\w{26}\/output-0\.txt\?expires=/)],
  });
});

test("one that runs when the time is up is `starting`, which clients go on asking for", async ({ serve }) => {
  const served = await serve();
  using client = await openRawClient(await served.listen());
  await client.send(create(2));
  const place = await admitted(served);
  await bringTo("copying", place, served.services);
  const [answer] = await client.answers(1);
  expect([answer?.status, viewIn(answer)["status"]]).toEqual([202, "starting"]);
  const { status } = (await served.app.inject(`/v1/predictions/${String(viewIn(answer)["id"])}`)).json<{
    status: string;
  }>();
  expect(status).toBe("processing");
});

test("whoever has gone away is waited for no longer", async ({ serve }) => {
  let looks = 0;
  const counted = (ledger: Ledger): Ledger => ({
    ...ledger,
    readStates(...range) {
      looks++;
      return ledger.readStates(...range);
    },
  });
  const served = await serve({ over: ({ ledger }) => ({ ledger: counted(ledger) }) });
  const client = await openRawClient(await served.listen());
  await client.send(create(60));
  await expect.poll(() => looks).toBeGreaterThan(2);
  client.reset();
  await sleep(SECOND / 2); // the look that was under way
  looks = 0;
  await sleep(SECOND); // silence is the claim
  expect(looks).toBe(0);
});

test("what was admitted is told, even where nobody can see any more how it stands", async ({ serve }) => {
  const gone = async () => Promise.reject(new Error("Command timed out"));
  const { app } = await serve({
    over: ({ ledger }) => ({ ledger: { ...ledger, readStates: gone, readItem: gone } }),
  });
  for (const [headers, status] of [
    [{}, 201],
    [{ prefer: "wait=1" }, 202],
  ] as const) {
    const payload = { version: "outlast/text", input: {} };
    const answer = await app.inject({ method: "POST", url: "/v1/predictions", payload, headers });
    expect([answer.statusCode, answer.json()]).toMatchObject([status, { status: "starting" }]);
  }
});

test("a server that closes lets everybody go who is held", async ({ serve }) => {
  const served = await serve();
  using client = await openRawClient(await served.listen());
  await client.send(create(60));
  await admitted(served);
  const closed = served.app.close();
  const [answer] = await client.answers(1);
  expect([answer?.status, viewIn(answer)["status"]]).toEqual([202, "starting"]);
  await closed;
  expect(await client.ended()).toBe("in order");
});
