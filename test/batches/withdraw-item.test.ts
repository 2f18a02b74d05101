import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import {
  CANCELED_BY_A_PERSON,
  type Withdrawal,
  type WithdrawDeps,
  withdrawItem,
} from "../../src/batches/withdraw-item.ts";
import type { StoredRow } from "../../src/bucket/input-parts.ts";
import { readReceipt } from "../../src/bucket/records.ts";
import { type AttemptRef, itemId, notifyJobId, parseItemId, QUEUE_NAMES } from "../../src/core/naming.ts";
import { predictionId, type WebhookEvent } from "../../src/core/prediction.ts";
import { everyCrash } from "../support/crash.ts";
import { ACCOUNT, type Line, MODEL, NOON, test } from "../support/stages.ts";

const REPLIES = "producer-replies";
const TOO_LATE: Withdrawal = { as: "aborted", error: "its deadline passed before it was bought" };

type World = { readonly line: Line; readonly ref: AttemptRef; readonly row: StoredRow };

/** A single that waits, and whose client wants to hear of these events; with a reply to its producer besides. */
async function openWorld(line: Line, events: readonly WebhookEvent[] | null = ["completed"]): Promise<World> {
  await line.clear();
  const { bucket, ledger, queues, clock } = line;
  const { item, row } = await openAdmission({ bucket, ledger, queues, clock }).admit({
    tenant: "default",
    account: ACCOUNT,
    identity: null,
    row: { input: { prompt: "a" }, target: MODEL, id: "my id" },
    replyTo: REPLIES,
    cancelAfterMs: null,
    webhook: events && { url: "https://client.example/hook", events, base_url: "http://127.0.0.1" },
  });
  const place = parseItemId(item);
  if (place === null || row === null) throw new Error("the single wasn't admitted");
  return { line, ref: { account: ACCOUNT, ...place, attempt: 1 }, row };
}

const depsOf = ({ line: { bucket, ledger, queues, clock } }: World): WithdrawDeps => ({
  bucket,
  ledger,
  queues,
  clock,
});

const run = (world: World, why = TOO_LATE, deps = depsOf(world)) => withdrawItem(world.ref, world.row, why, deps);

async function look({ line, ref }: World) {
  return {
    state: (await line.ledger.readItem(ref)).state,
    receipt: await readReceipt(line.bucket, ref),
    counts: (await line.ledger.standing(ACCOUNT, ref.batch))?.counts,
    told: (await line.jobs(QUEUE_NAMES.notify)).map(({ id }) => id),
    replies: await line.jobs(REPLIES),
    finishes: (await line.jobs(QUEUE_NAMES.finish)).map(({ id }) => id),
  };
}

test("an item that waits ends with a receipt, and whoever waits for it is told, its batch among them", async ({
  line,
}) => {
  const world = await openWorld(line);
  const { batch } = world.ref;
  expect(await run(world)).toMatchObject({ answer: "moved", left: 0 });
  expect(await look(world)).toMatchObject({
    state: "canceled",
    receipt: {
      index: 0,
      item: itemId(batch, 0),
      id: "my id",
      status: "canceled",
      prediction_status: "aborted",
      prediction_id: null,
      output: null,
      outputs: [],
      error: "its deadline passed before it was bought",
      attempts: [{ attempt: 1, status: "canceled", prediction_id: null }],
      claimed_at: null,
      recorded_at: "2026-11-20T12:00:00.000Z",
      webhook_events: ["completed"],
    },
    counts: { waiting: 0, canceled: 1 },
    told: [notifyJobId(world.ref, "end")],
    replies: [{ id: itemId(batch, 0), data: { status: "canceled", id: "my id" } }],
    finishes: [batch],
  });
});

test("whoever asked for nothing, or for the beginning alone, is told nothing", async ({ line }) => {
  for (const events of [null, ["start"]] as const) {
    const world = await openWorld(line, events);
    await run(world);
    expect((await look(world)).told).toEqual([]);
  }
});

test("an item that is bought, or being bought, isn't touched", async ({ line }) => {
  const world = await openWorld(line);
  await line.ledger.move(world.ref, "claim", { nowMs: NOON, nonce: "n" });
  for (const state of ["claimed", "running"] as const) {
    const before = await look(world);
    expect(await run(world)).toMatchObject({ answer: "lost", state });
    expect(await look(world)).toEqual(before);
    expect(before.receipt).toBeNull();
    await line.ledger.move(world.ref, "bind", { nowMs: NOON, predictionId: predictionId("p1") });
  }
});

test("an end that came for another reason stays, and nobody is told again", async ({ line }) => {
  const world = await openWorld(line);
  await run(world, CANCELED_BY_A_PERSON);
  const before = await look(world);
  // As if the client's webhook had been called by now.
  await line.redis.del(
    `bull:${QUEUE_NAMES.notify}:${notifyJobId(world.ref, "end")}`,
    `bull:${QUEUE_NAMES.notify}:wait`,
  );
  expect(await run(world, TOO_LATE)).toMatchObject({ answer: "already" });
  expect(await look(world)).toEqual({ ...before, told: [] });
  expect(before.receipt).toMatchObject({ prediction_status: "canceled", error: "canceled before it was bought" });
});

test("twice at once is once", async ({ line }) => {
  const world = await openWorld(line);
  await Promise.all([run(world), run(world), run(world)]);
  expect(await look(world)).toMatchObject({ counts: { canceled: 1 }, told: { length: 1 }, replies: { length: 1 } });
});

describe("killed after any effect and run again twice,", () => {
  test("a withdrawal ends as if nothing had happened", async ({ line }) => {
    const { undisturbed, crashes } = await everyCrash({
      open: () => openWorld(line),
      run: (world, wrap) => run(world, TOO_LATE, wrap(depsOf(world))),
      look,
    });
    expect(crashes.map(({ diedAfter }) => diedAfter)).toEqual(["move", "putOnce", "reply", "notify", "finish"]);
    // Every world begins at the same noon, so that all ids are the same.
    for (const { diedAfter, seen } of crashes) expect(seen, `died after ${diedAfter}`).toEqual(undisturbed);
  });
});
