/**
 * The Lua scripts as commands of the Redis client. What they share with the code around them is prepended: the states by
 * name, and numbers that are decided there.
 */

import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";
import { MAX_GROUPS, OTHER_ERRORS } from "../core/failing.ts";
import { ITEM_STATES, MAX_ATTEMPT } from "../core/item.ts";
import { MAX_LATEST } from "../core/recalling.ts";
import { DEFAULT_SWEEP_POLICY } from "../core/sweeping.ts";
import { HOUR, SECOND } from "../core/time.ts";

/**
 * So many hours after its binding a prediction can be asked for: it is within an hour of its creation, by us and by the
 * list.
 */
export const BOUND_FOR_HOURS = 3;

const SHARED = [
  `local STATES = { ${ITEM_STATES.map((state, number) => `[${number}] = '${state}'`).join(", ")} }`,
  `local NUMBERS = { ${ITEM_STATES.map((state, number) => `${state} = ${number}`).join(", ")} }`,
  `local BOUND_FOR_S, SKEW_MS = ${(BOUND_FOR_HOURS * HOUR) / SECOND}, ${DEFAULT_SWEEP_POLICY.skewMs}`,
  `local MAX_ATTEMPT, MAX_LATEST, MAX_GROUPS, OTHERS = ${MAX_ATTEMPT}, ${MAX_LATEST}, ${MAX_GROUPS}, '${OTHER_ERRORS}'`,
].join("\n");

const script = (...names: string[]) =>
  [SHARED, ...names.map((name) => readFileSync(new URL(name, import.meta.url), "utf8"))].join("\n");

/** Keys first, then arguments; each script's own header says which. */
type Script = (...keysAndArguments: (string | number | Buffer)[]) => Promise<unknown>;

export type Scripts = Readonly<
  Record<
    | "outlastMove"
    | "outlastMarkItem"
    | "outlastTakeMarks"
    | "outlastOpenBatch"
    | "outlastHoldBatch"
    | "outlastFinishBatch"
    | "outlastWalkCancel"
    | "outlastPublishPart"
    | "outlastAdvance"
    | "outlastReadIdentity"
    | "outlastRedrive"
    | "outlastDoubtLost"
    | "outlastRestoreItems"
    | "outlastRestoreBatch"
    | "outlastLearnRun"
    | "outlastSwapField"
    | "outlastNoteUnsaved",
    Script
  >
>;

export function defineScripts(redis: Redis): Scripts {
  const define = (name: keyof Scripts, numberOfKeys: number, lua: string) =>
    redis.defineCommand(name, { lua, numberOfKeys });
  define("outlastMove", 17, script("redis-identity.lua", "give-to-feed.lua", "open-attempt.lua", "move.lua"));
  define("outlastMarkItem", 2, script("mark-item.lua"));
  define("outlastTakeMarks", 3, script("take-marks.lua"));
  define("outlastOpenBatch", 3, script("open-batch.lua"));
  define("outlastHoldBatch", 4, script("hold-batch.lua"));
  define("outlastFinishBatch", 3, script("finish-batch.lua"));
  define("outlastWalkCancel", 6, script("walk-cancel.lua"));
  define("outlastPublishPart", 5, script("publish-part.lua"));
  define("outlastAdvance", 5, script("advance.lua"));
  define("outlastReadIdentity", 1, script("redis-identity.lua", "read-identity.lua"));
  define("outlastRedrive", 10, script("give-to-feed.lua", "open-attempt.lua", "redrive.lua"));
  define("outlastDoubtLost", 8, script("redis-identity.lua", "doubt-lost.lua"));
  define("outlastRestoreItems", 2, script("restore-items.lua"));
  define("outlastRestoreBatch", 10, script("restore-batch.lua"));
  define("outlastLearnRun", 1, script("learn-run.lua"));
  define("outlastSwapField", 1, script("swap-field.lua"));
  define("outlastNoteUnsaved", 2, script("note-unsaved.lua"));
  return redis as Redis & Scripts;
}

/** Fields as Redis takes them: name, value, name, value; those that aren't set are left out. */
export function flat(fields: Readonly<Record<string, string | bigint | undefined>>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [name, String(value)]));
}
