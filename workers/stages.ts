/**
 * Starts and stops the stages of a worker, and gives out the errands that never end. Which effects a stage is given
 * stands in `buying-consumers.ts`, `following-consumers.ts` and `saving-consumers.ts`, and nowhere else.
 */

import type { Logger } from "pino";
import type { Consumer } from "../src/queues/consume.ts";
import type { Services } from "../src/wiring.ts";
import * as buying from "./buying-consumers.ts";
import * as following from "./following-consumers.ts";
import * as saving from "./saving-consumers.ts";
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

export type RunningStages = {
  /** Stops taking jobs and lets running ones end. */
  drain(): Promise<void>;
  /** Asks what still runs to stop now. */
  abort(reason: string): void;
};

export async function startStages(services: Services, stages: readonly Stage[], log: Logger): Promise<RunningStages> {
  const makers: Record<Stage, () => Consumer | readonly Consumer[]> = {
    admit: () => buying.admit(services, log),
    feed: () => buying.feed(services, log),
    create: () => buying.creates(services, log),
    follow: () => services.accounts.map((account) => following.follow(services, account, log)),
    copy: () => saving.copy(services, log),
    record: () => saving.record(services, log),
    notify: () => saving.notify(services, log),
    finish: () => saving.finish(services, log),
    sweep: () => following.sweep(services, log),
    keep: () => following.keep(services, log),
  };
  const [first] = services.accounts;
  if (first === undefined) throw new Error("a worker without accounts has nothing to do");
  const redis = await services.ledger.readIdentity(first.name);
  for (const { gate } of services.accounts) await gate.configure();
  const running = stages.flatMap((stage) => makers[stage]());
  await giveOut(services, stages);
  const watching = watchRedis(redis, {
    readIdentity: () => services.ledger.readIdentity(first.name),
    giveOut: async () => {
      for (const { gate } of services.accounts) await gate.configure();
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
