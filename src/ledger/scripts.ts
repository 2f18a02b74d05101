/** The Lua scripts as commands of the Redis client. The legal states are prepended, so that Lua knows them by name. */

import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";
import { ITEM_STATES } from "../core/item.ts";

const STATE_TABLE = `local STATES = { ${ITEM_STATES.map((state, number) => `[${number}] = '${state}'`).join(", ")} }\n`;

const script = (name: string) => readFileSync(new URL(name, import.meta.url), "utf8");

/** Keys first, then arguments; each script's own header says which. */
type Script = (...keysAndArguments: (string | number)[]) => Promise<unknown>;

export type Scripts = Readonly<
  Record<
    | "outlastMove"
    | "outlastMarkItem"
    | "outlastTakeMarks"
    | "outlastOpenBatch"
    | "outlastHoldBatch"
    | "outlastWalkCancel"
    | "outlastPublishPart"
    | "outlastAdvance",
    Script
  >
>;

export function defineScripts(redis: Redis): Scripts {
  redis.defineCommand("outlastMove", { lua: STATE_TABLE + script("move.lua"), numberOfKeys: 14 });
  redis.defineCommand("outlastMarkItem", { lua: script("mark-item.lua"), numberOfKeys: 2 });
  redis.defineCommand("outlastTakeMarks", { lua: script("take-marks.lua"), numberOfKeys: 2 });
  redis.defineCommand("outlastOpenBatch", { lua: script("open-batch.lua"), numberOfKeys: 3 });
  redis.defineCommand("outlastHoldBatch", { lua: script("hold-batch.lua"), numberOfKeys: 4 });
  redis.defineCommand("outlastWalkCancel", { lua: STATE_TABLE + script("walk-cancel.lua"), numberOfKeys: 6 });
  redis.defineCommand("outlastPublishPart", { lua: script("publish-part.lua"), numberOfKeys: 5 });
  redis.defineCommand("outlastAdvance", { lua: script("advance.lua"), numberOfKeys: 5 });
  return redis as Redis & Scripts;
}

/** Fields as Redis takes them: name, value, name, value; those that aren't set are left out. */
export function flat(fields: Readonly<Record<string, string | bigint | undefined>>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)]));
}
