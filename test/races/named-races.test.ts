/** Races with a name: the orders of events that are known to cost money elsewhere, each by its shortest story. */

import fc from "fast-check";
import { afterAll, describe, expect } from "vitest";
import { redriveItems } from "../../src/batches/redrive-items.ts";
import { resolveUnclearItems } from "../../src/batches/resolve-unclear.ts";
import type { WebhookOutcome } from "../../src/batches/take-webhook.ts";
import type { ItemState } from "../../src/core/item.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import { createPrediction } from "../../workers/create-prediction.ts";
import { ACCOUNT, type Line, predictionOf, refOf, test } from "../support/stages.ts";
import type { Booked, CreateMode } from "./provider.ts";
import { duplicatesOf, judge, receiptsOf } from "./race-judge.ts";
import {
  closeHands,
  createDeps,
  deliver,
  openRace,
  type RaceWorld,
  race,
  type Scenario,
  settle,
  sweep,
} from "./race-world.ts";

afterAll(closeHands);

const PLAIN: Scenario = {
  start: "waiting",
  twins: false,
  retryFailed: 0,
  modes: [],
  fates: [],
  polls: [],
  endless: false,
  frozenBefore: null,
};

const CLEAN_MS = 12 * MINUTE;
const signal = new AbortController().signal;

/** Runs an item's create errand once. */
async function buy(world: RaceWorld, index = 0, attempt = 1): Promise<void> {
  const errand = await world.line.createErrand(world.batch, index, attempt);
  await createPrediction(errand, createDeps(world), signal);
}

async function stateOf({ line, batch }: RaceWorld, index = 0): Promise<ItemState> {
  return (await line.ledger.readItem({ account: ACCOUNT, batch, index })).state;
}

async function heldBy({ line, batch }: RaceWorld, index = 0): Promise<string | undefined> {
  return (await line.ledger.readItem({ account: ACCOUNT, batch, index })).fields.prediction_id;
}

function first(world: RaceWorld): Booked {
  const [booked] = world.provider.books;
  if (booked === undefined) throw new Error("nothing was bought");
  return booked;
}

/** The provider's call for a prediction, as often as it likes. */
function call(world: RaceWorld, booked: Booked): Promise<WebhookOutcome> {
  const prediction = world.provider.end(booked.id);
  return deliver(world, { ...world.attemptOf(booked), prediction, input: booked.request.input });
}

/** Which prediction each item has in the end. */
async function kept(world: RaceWorld): Promise<readonly (string | null)[]> {
  return (await receiptsOf(world)).map(({ receipt }) => receipt.prediction_id);
}

async function settled(world: RaceWorld): Promise<void> {
  await settle(world);
  await judge(world);
}

describe("a webhook", () => {
  test("that comes before the create's answer binds the prediction, and the answer finds it bound", async ({
    line,
  }) => {
    const world = await openRace(line, PLAIN);
    world.provider.meanwhile = async (booked) => expect(await call(world, booked)).toBe("bound");
    await buy(world);
    expect([await stateOf(world), await heldBy(world)]).toEqual(["running", "p0"]);
    await settled(world);
    expect(world.provider.requests).toHaveLength(2);
  });

  test("that comes before the answer, and is followed to its end before it, leaves nothing to book", async ({
    line,
  }) => {
    const world = await openRace(line, PLAIN);
    world.provider.meanwhile = async (booked) => {
      await call(world, booked);
      await settle(world);
      expect(await stateOf(world)).toBe("saved");
    };
    await buy(world);
    await settled(world);
  });

  test("that comes instead of the answer saves what was bought", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, modes: ["answer-lost"] });
    await buy(world);
    expect(await stateOf(world)).toBe("unclear");
    expect(await call(world, first(world))).toBe("bound");
    await settled(world);
    expect(world.provider.requests).toHaveLength(2);
  });

  test("that comes five times, one after another, does it once", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, modes: ["answer-lost"] });
    await buy(world);
    const outcomes: WebhookOutcome[] = [];
    for (let n = 0; n < 5; n++) outcomes.push(await call(world, first(world)));
    expect(outcomes).toEqual(["bound", "woken", "woken", "woken", "woken"]);
    await settled(world);
    expect(await call(world, first(world))).toBe("late");
    await settled(world);
  });

  test("that comes five times at once, beside the answer or not, does it once", { timeout: 120_000 }, async ({
    line,
  }) => {
    const property = fc.asyncProperty(
      fc.constantFrom<CreateMode>("answered", "answer-lost"),
      fc.scheduler(),
      async (mode, scheduler) => {
        const world = await openRace(line, { ...PLAIN, modes: [mode], fates: ["file"] });
        await race(world, scheduler, ["buy", "webhook", "webhook", "webhook", "webhook", "webhook"]);
        const ofFirst = world.webhooks.filter((outcome) => outcome === "bound");
        expect(ofFirst.length, "once for each item at most").toBeLessThanOrEqual(2);
        await settle(world);
        await judge(world);
      },
    );
    await fc.assert(property, { numRuns: 20 });
  });

  test("of an attempt that was redriven since changes nothing", async ({ line }) => {
    // Both of them, since either may be bought first.
    const world = await openRace(line, { ...PLAIN, fates: ["bad-input", "bad-input"] });
    await settle(world);
    expect(await stateOf(world)).toBe("failed");
    const old = first(world);
    await redrive(world);
    expect(await call(world, old), "while the next attempt waits").toBe("late");
    expect([await stateOf(world), await heldBy(world)]).toEqual(["waiting", undefined]);
    await buy(world, 0, 2);
    expect(await call(world, old), "while it runs").toBe("late");
    expect(await heldBy(world)).not.toBe(old.id);
    await settled(world);
  });

  test("with a nonce or an attempt that was never given out takes nothing from anybody", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, endless: true });
    await buy(world);
    const input = { prompt: "a whale" };
    const prediction = predictionOf("foreign", { status: "succeeded", output: "not ours" });
    const ref = { account: ACCOUNT, batch: world.batch, index: 0, attempt: 1 };
    const forged = { ref, nonce: "forged", prediction, input };
    expect(await deliver(world, forged), "its item runs").toBe("foreign");
    expect(await deliver(world, { ...forged, ref: { ...ref, index: 1 } }), "its item waits").toBe("foreign");
    expect(await deliver(world, { ...forged, ref: { ...ref, attempt: 7 } })).toBe("unknown");
    expect(await deliver(world, { ...forged, ref: { ...ref, index: 9 } })).toBe("unknown");
    expect([await heldBy(world), await stateOf(world, 1)]).toEqual(["p0", "waiting"]);
    expect(await duplicatesOf(world)).toEqual([]);
    world.provider.end(first(world).id);
    await settled(world);
  });

  test("with another's nonce, for a prediction that has its attempt, is that one's", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, twins: true });
    await buy(world, 0);
    const { request } = first(world);
    const ref = { account: ACCOUNT, batch: world.batch, index: 1, attempt: 1 };
    const prediction = predictionOf("p0", { status: "succeeded" });
    expect(await deliver(world, { ref, nonce: "forged", prediction, input: request.input })).toBe("elsewhere");
    expect(await stateOf(world, 1)).toBe("waiting");
    await settled(world);
  });
});

describe("twins", () => {
  const cases: readonly (readonly [modes: readonly CreateMode[], requests: number])[] = [
    [["answer-lost", "answered"], 2],
    [["answered", "answer-lost"], 2],
    [["answer-lost", "answer-lost"], 2],
    [["never-arrived", "answer-lost"], 3],
    [["answer-lost", "never-arrived"], 3],
    [["never-arrived", "never-arrived"], 4],
  ];
  test.for(cases)("%j end with a prediction each, after %i requests", async ([modes, requests], { line }) => {
    const world = await openRace(line, { ...PLAIN, twins: true, modes });
    await settled(world);
    expect(world.provider.requests).toHaveLength(requests);
    expect(new Set(await kept(world))).toEqual(new Set(["p0", "p1"]));
  });

  test("whose list gave one the other's prediction: the late answer takes what is left", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, twins: true, modes: ["never-arrived"] });
    await buy(world, 1); // sent first, and never arrived
    line.clock.forward(SECOND);
    world.provider.meanwhile = async () => {
      await buy(world, 0); // a second worker takes the first for dead
      expect(await stateOf(world, 0)).toBe("unclear");
      await sweep(world);
      expect([await stateOf(world, 0), await heldBy(world, 1)]).toEqual(["unclear", "p0"]);
    };
    await buy(world, 0);
    expect([await stateOf(world, 0), await heldBy(world, 1)], "its own is its twin's").toEqual(["unclear", "p0"]);
    await settled(world);
    expect(await kept(world)).toEqual(["p1", "p0"]);
  });
});

describe("an answer that comes after all hope was given up", () => {
  /** Its request is thought dead while it is on its way, and given up by a clean sweep that doesn't see what it made. */
  async function givenUp(line: Line, meanwhile: (world: RaceWorld) => Promise<unknown>): Promise<RaceWorld> {
    const world = await openRace(line, { ...PLAIN, endless: true });
    world.provider.meanwhile = async (booked) => {
      world.provider.unlisted.add(booked.id);
      await buy(world);
      line.clock.forward(CLEAN_MS);
      await sweep(world);
      expect(await stateOf(world)).toBe("waiting");
      await meanwhile(world);
    };
    await buy(world);
    return world;
  }

  test("is booked as a duplicate and canceled, where the list lagged longer than it may and it was sent again", async ({
    line,
  }) => {
    const world = await givenUp(line, (given) => buy(given));
    expect([await heldBy(world), await duplicatesOf(world)]).toEqual(["p1", ["p0"]]);
    expect(world.provider.books.map(({ ended }) => ended)).toEqual(["canceled", null]);
    expect(await call(world, first(world)), "its webhook adds nothing").toBe("duplicate");
    expect(await duplicatesOf(world)).toEqual(["p0"]);
    for (const { id } of world.provider.books) world.provider.end(id);
    await settle(world);
    expect(await stateOf(world)).toBe("saved");
    expect(await kept(world)).toEqual(["p1", "p2"]);
  });

  test("is its own where it wasn't sent again yet, and isn't any more", async ({ line }) => {
    const world = await givenUp(line, async () => undefined);
    expect([await stateOf(world), await heldBy(world)]).toEqual(["running", "p0"]);
    world.provider.end(first(world).id);
    await settled(world);
    expect(world.provider.requests).toHaveLength(2);
  });

  test("is a duplicate, canceled, where a person had canceled the item meanwhile", async ({ line }) => {
    const world = await givenUp(line, async ({ batch }) => {
      await line.ledger.move(refOf({ account: ACCOUNT, id: batch }), "withdraw", { nowMs: line.clock() });
    });
    expect([await stateOf(world), await duplicatesOf(world)]).toEqual(["canceled", ["p0"]]);
    expect(first(world).ended).toBe("canceled");
  });

  test("finds itself bound, where the list showed it in time", async ({ line }) => {
    const world = await openRace(line, PLAIN);
    world.provider.meanwhile = async () => {
      await buy(world);
      line.clock.forward(CLEAN_MS);
      await sweep(world);
      expect([await stateOf(world), await heldBy(world)]).toEqual(["running", "p0"]);
    };
    await buy(world);
    await settled(world);
    expect(world.provider.requests).toHaveLength(2);
  });
});

describe("a person's word on an unclear item", () => {
  test("to buy it again pays twice where the first had arrived, which its webhook shows", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, modes: ["answer-lost"] });
    await buy(world);
    expect(await resolve(world, "resend")).toBe(1);
    await buy(world);
    expect(await heldBy(world)).toBe("p1");
    expect(await call(world, first(world))).toBe("duplicate");
    expect(await duplicatesOf(world)).toEqual(["p0"]);
    await settle(world);
    expect(await kept(world)).toEqual(["p1", "p2"]);
  });

  test("to give it up stands, and what comes to light later is a duplicate", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, modes: ["answer-lost"] });
    await buy(world);
    expect(await resolve(world, "fail")).toBe(1);
    await settle(world);
    expect(await stateOf(world)).toBe("failed");
    expect(await call(world, first(world))).toBe("duplicate");
    expect([await stateOf(world), await duplicatesOf(world)]).toEqual(["failed", ["p0"]]);
  });

  test("to buy it again, said when its webhook had come, finds nothing to do", async ({ line }) => {
    const world = await openRace(line, { ...PLAIN, modes: ["answer-lost"] });
    await buy(world);
    await call(world, first(world));
    expect(await resolve(world, "resend")).toBe(0);
    await settled(world);
    expect(world.provider.requests).toHaveLength(2);
  });
});

test("a claim that was given back by its own sender, though another called it unclear, is bought once", async ({
  line,
}) => {
  for (const mode of ["refused", "not-sent"] as const) {
    const world = await openRace(line, { ...PLAIN, modes: [mode] });
    const deps = createDeps(world);
    const { create } = deps.provider;
    const provider = {
      create: async (...sent: Parameters<typeof create>) => {
        await buy(world);
        expect(await stateOf(world)).toBe("unclear");
        return create(...sent);
      },
    };
    await createPrediction(await line.createErrand(world.batch, 0), { ...deps, provider }, signal);
    expect(await stateOf(world)).toBe("waiting");
    await settled(world);
    expect(world.provider.requests, "the refused one, and one for each item").toHaveLength(3);
  }
});

async function redrive({ line, batch }: RaceWorld): Promise<void> {
  const { bucket, ledger, queues, clock } = line;
  const standing = await ledger.standing(ACCOUNT, batch);
  if (standing === null) throw new Error("the batch is gone");
  expect(
    await redriveItems(
      standing.batch,
      { ends: new Set(["failed"]), indexes: [[0, 0]] },
      { bucket, ledger, queues, clock },
    ),
  ).toBe(1);
}

async function resolve({ line, batch }: RaceWorld, as: "resend" | "fail"): Promise<number> {
  const { bucket, ledger, queues, clock } = line;
  const standing = await ledger.standing(ACCOUNT, batch);
  if (standing === null) throw new Error("the batch is gone");
  return resolveUnclearItems(standing.batch, as, null, { bucket, ledger, queues, clock });
}
