/** Starts and stops the stages of a worker, and gives out the errands that never end. */

import type { Logger } from "pino";
import { rateWindow } from "../src/core/feeding.ts";
import type { Consumer } from "../src/queues/consume.ts";
import { createQueue, followQueue } from "../src/queues/queues.ts";
import type { Account, Services } from "../src/wiring.ts";
import * as consumers from "./consumers.ts";
import { watchRedis } from "./watch-redis.ts";

export const STAGES = [
  "admit",
  "feed",
  "create",
  "follow",
  "copy",
  "record",
  "notify",
  "finish",
  "sweep",
  "keep",
] as const;
export type Stage = (typeof STAGES)[number];

/** Follow's share of an account's reads; cancels, sweeps and audits have the rest. */
const FOLLOW_SHARE = 0.8;

export type RunningStages = {
  /** Stops taking jobs and lets running ones end. */
  drain(): Promise<void>;
  /** Asks what still runs to stop now. */
  abort(reason: string): void;
};

export async function startStages(services: Services, stages: readonly Stage[], log: Logger): Promise<RunningStages> {
  const makers: Record<Stage, () => Consumer | readonly Consumer[]> = {
    admit: () => consumers.admit(services, log),
    feed: () => consumers.feed(services, log),
    create: () => consumers.creates(services, log),
    follow: () => services.accounts.map((account) => consumers.follow(services, account, log)),
    copy: () => consumers.copy(services, log),
    record: () => consumers.record(services, log),
    notify: () => consumers.notify(services, log),
    finish: () => consumers.finish(services, log),
    sweep: () => consumers.sweep(services, log),
    keep: () => consumers.keep(services, log),
  };
  const [first] = services.accounts;
  if (first === undefined) throw new Error("a worker without accounts has nothing to do");
  const redis = await services.ledger.readIdentity(first.name);
  for (const account of services.accounts) await setRates(services, account);
  const running = stages.flatMap((stage) => makers[stage]());
  await giveOut(services, stages);
  const watching = watchRedis(redis, {
    readIdentity: () => services.ledger.readIdentity(first.name),
    giveOut: async () => {
      for (const account of services.accounts) await setRates(services, account);
      await giveOut(services, stages);
    },
    warn: (fields, message) => log.warn(fields, message),
  });
  return {
    async drain() {
      await watching.close();
      await Promise.all(running.map((consumer) => consumer.close()));
    },
    abort(reason) {
      for (const consumer of running) consumer.abort(reason);
    },
  };
}

/** The errands that never end. */
async function giveOut({ queues, accounts }: Services, stages: readonly Stage[]): Promise<void> {
  if (stages.includes("keep")) await queues.scheduleKeeper();
  for (const { name } of accounts) {
    if (stages.includes("feed")) await queues.wakeFeed(name);
    if (stages.includes("sweep")) await queues.startSweep(name);
  }
}

/** The configured rates become the queues' limits, which act on the whole fleet; a rate set by hand since then stands. */
async function setRates({ ledger, queues }: Services, account: Account): Promise<void> {
  const { name, createsPerMinute, readsPerMinute, toleratesBurst } = account;
  const creates = createQueue(name).name;
  const isNew = await ledger.takeConfiguredRate(name, "creates", `${createsPerMinute} ${toleratesBurst}`);
  // Redis may have lost the limit, and kept that it was set.
  if (isNew || !(await queues.hasRate(creates))) {
    await queues.setRate(creates, rateWindow(createsPerMinute, toleratesBurst));
  }
  const polls = followQueue(name).name;
  if ((await ledger.takeConfiguredRate(name, "polls", String(readsPerMinute))) || !(await queues.hasRate(polls))) {
    await queues.setRate(polls, rateWindow(readsPerMinute * FOLLOW_SHARE, true));
  }
}
