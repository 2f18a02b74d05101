/** The Lua scripts as commands of the Redis client. The states are prepended, so that Lua knows them by name, and what several share. */

import { readFileSync } from "node:fs";
import type { Redis } from "ioredis";
import { ITEM_STATES } from "../core/item.ts";

const STATE_TABLES = [
  `local STATES = { ${ITEM_STATES.map((state, number) => `[${number}] = '${state}'`).join(", ")} }`,
  `local NUMBERS = { ${ITEM_STATES.map((state, number) => `${state} = ${number}`).join(", ")} }`,
].join("\n");

const script = (...names: string[]) =>
  [STATE_TABLES, ...names.map((name) => readFileSync(new URL(name, import.meta.url), "utf8"))].join("\n");

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
