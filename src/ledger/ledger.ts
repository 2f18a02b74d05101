/**
 * Working state in Redis: where every item stands, what an open item needs, how a batch adds up.
 *
 * All of it can be rebuilt from the bucket and the provider. What has to change together is one script or transaction, so
 * it happened or it didn't; each method may be repeated, since the Redis client re-sends what wasn't answered. Keys and ids
 * come from `core/naming.ts`, legal steps from `core/item.ts`.
 */

import type { Redis } from "ioredis";
import { accountsOf } from "./accounts.ts";
import { batchesOf } from "./batches.ts";
import { budgetsOf } from "./budgets.ts";
import { decisionsOf } from "./decisions.ts";
import { feedingOf } from "./feeding.ts";
import { followingOf } from "./following.ts";
import { itemsOf } from "./items.ts";
import { recoveryOf } from "./recovery.ts";
import { savingOf } from "./saving.ts";
import { defineScripts } from "./scripts.ts";
import { secretsOf } from "./secrets.ts";
import { webhookCountsOf } from "./webhook-counts.ts";

export type { AccountHolds, AccountOpening, LostSpan, RedisIdentity } from "./accounts.ts";
export { isUnclearHalt } from "./accounts.ts";
export type { BatchStanding, FailureGroup } from "./batches.ts";
export type { Budgets, Limited } from "./budgets.ts";
export type { CancelWalk, HoldAnswer, Redriven } from "./decisions.ts";
export type { SweepNote } from "./following.ts";
export type { MoveAnswer, MoveOptions, OpenIntent, OpenItemFields, RunningItem, TakenMarks } from "./items.ts";

export type Ledger = ReturnType<typeof openLedger>;

export function openLedger(redis: Redis) {
  const scripts = defineScripts(redis);
  return {
    ...itemsOf(redis, scripts),
    ...batchesOf(redis, scripts),
    ...feedingOf(redis, scripts),
    ...decisionsOf(redis, scripts),
    ...accountsOf(redis, scripts),
    ...followingOf(redis, scripts),
    ...budgetsOf(redis, scripts),
    ...recoveryOf(redis, scripts),
    ...savingOf(redis, scripts),
    ...secretsOf(redis),
    ...webhookCountsOf(redis),
  };
}
