/**
 * Every job of every stage, those that run among them, is removed by hand, again and again in the middle of a run. Jobs
 * are only errands: the keeper gives each open item the one that its state implies, and by the provider's books nothing
 * is bought twice.
 */

import { Queue } from "bullmq";
import { expect, test } from "vitest";
import { UNTOUCHED_MS } from "../../src/core/keeping.ts";
import { QUEUE_NAMES, REDIS_KEYS } from "../../src/core/naming.ts";
import { keepQueue } from "../../src/queues/queues.ts";
import { endedItems, expectRightBytes, prompts, report, submit } from "../support/batch.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";

const ITEMS = 200;

/** All jobs but the keeper's own, which runs by a schedule. */
async function removeJobs({ services }: Fleet): Promise<number> {
  let removed = 0;
  for (const name of queueNames(services)) {
    const queue = new Queue(name, { connection: services.redis });
    removed += await queue.getJobCountByTypes("active", "waiting", "prioritized", "delayed");
    await queue.obliterate({ force: true });
    await queue.close();
  }
  return removed;
}

function queueNames({ accounts }: Fleet["services"]): readonly string[] {
  const perAccount = accounts.flatMap(({ name }) => [QUEUE_NAMES.create(name), QUEUE_NAMES.follow(name)]);
  const { feed, sweep, copy, record, finish } = QUEUE_NAMES;
  return [...perAccount, feed, sweep, copy, record, finish];
}

/** As if the time had passed after which the keeper looks at what nobody touches; then it runs. */
async function letTheKeeperLook({ services }: Fleet): Promise<void> {
  for (const { name } of services.accounts) {
    const open = await services.redis.zrange(REDIS_KEYS.open(name), "0", "-1");
    const longAgo = String(Date.now() - UNTOUCHED_MS - 1_000);
    if (open.length > 0)
      await services.redis.zadd(REDIS_KEYS.open(name), ...open.flatMap((errand) => [longAgo, errand]));
  }
  const queue = new Queue(keepQueue.name, { connection: services.redis });
  await queue.add("keep", {}, keepQueue.job);
  await queue.close();
}

test("jobs removed by hand are only errands: each item gets its own again", { timeout: 200_000 }, async () => {
  await using fleet = await startFleet({
    emulator: { runMs: { medianMs: 1_500, spread: 0.4 } },
    createsPerMinute: 1_200,
    env: { OUTLAST_SETTLING_SECONDS: "1" }, // the emulator lists a prediction at once
  });
  const batch = await submit(fleet, prompts(ITEMS));
  fleet.startWorker();
  fleet.startWorker();
  for (const ended of [20, 60, 100, 140]) {
    await expect.poll(() => endedItems(fleet, batch), { timeout: 60_000, interval: 20 }).toBeGreaterThan(ended);
    expect(await removeJobs(fleet)).toBeGreaterThan(0);
    await letTheKeeperLook(fleet);
  }
  const state = async () => {
    await letTheKeeperLook(fleet);
    return (await report(fleet, batch)).state;
  };
  await expect.poll(state, { timeout: 120_000, interval: 2_000 }).toBe("finished");
  expect(await report(fleet, batch)).toMatchObject({ items: ITEMS, saved: ITEMS, metrics: { output_files: ITEMS } });
  expect(fleet.emulator.books().creates).toMatchObject({ total: ITEMS, surplus: 0 });
  await expectRightBytes(fleet, batch);
});
