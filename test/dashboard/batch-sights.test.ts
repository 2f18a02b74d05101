/** Looks at a batch: shared by all who look, and, one after the other, its pace. */

import { expect } from "vitest";
import { openPredictions } from "../../src/batches/read-predictions.ts";
import { SECOND } from "../../src/core/time.ts";
import { openBatchSights } from "../../src/dashboard/batch-sights.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { test } from "../server/serving.ts";
import { clockAt } from "../support/clock.ts";
import { ACCOUNT } from "../support/stages.ts";
import { end, PNG, refOf, run, submit } from "./place.ts";

function open(services: CommandServices) {
  const clock = clockAt(1_000_000);
  let looks = 0;
  const ledger: CommandServices["ledger"] = {
    ...services.ledger,
    standing(account, batch) {
      looks++;
      return services.ledger.standing(account, batch);
    },
  };
  const sights = openBatchSights({ ...services, ledger, predictions: openPredictions(services), clock });
  return { sights, clock, looks: () => looks };
}

test("however many look at a batch, it is read once", async ({ serve }) => {
  const { services } = await serve();
  const { sights, looks } = open(services);
  const batch = await submit(services);
  const found = await Promise.all(Array.from({ length: 100 }, () => sights.find(batch, "default")));
  expect(new Set(found).size).toBe(1);
  expect(looks()).toBe(1);
  sights.forget(batch);
  await sights.find(batch, "default");
  expect(looks()).toBe(2);
});

test("looks that follow one another give a pace; after a pause in which nobody looked it begins anew", async ({
  serve,
}) => {
  const { services } = await serve();
  const { sights, clock } = open(services);
  const batch = await submit(services, { rows: 40 });
  const look = async () => {
    sights.forget(batch);
    return (await sights.find(batch, "default"))?.perSecond;
  };
  expect(await look()).toBe(0);
  for (let index = 0; index < 12; index++) {
    await run(services, refOf(batch, index));
    await end(services, refOf(batch, index));
    clock.forward(SECOND);
    await look();
  }
  expect(await look()).toBeCloseTo(1);
  clock.forward(60 * SECOND);
  expect(await look()).toBe(0);
});

test("of a batch that has just finished, nothing that was seen before stands for the end", async ({ serve }) => {
  const { services } = await serve();
  const { sights } = open(services);
  const batch = await submit(services, { rows: 2 });
  const outcomes = async () => {
    sights.forget(batch);
    const sight = await sights.find(batch, "default");
    return sight === null ? null : (await sights.outcomesOf(sight)).latest.map(({ index }) => index);
  };
  for (const index of [0, 1]) await run(services, refOf(batch, index));
  await end(services, refOf(batch, 0), { files: [PNG] });
  expect(await outcomes()).toEqual([0]);
  await end(services, refOf(batch, 1), { files: [PNG] });
  expect(await outcomes()).toEqual([0]); // seen less than five seconds ago
  await services.ledger.finishBatch(ACCOUNT, batch, Date.now(), 0);
  expect(await outcomes()).toEqual([1, 0]);
});
