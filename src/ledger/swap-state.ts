/**
 * States that all processes change, each a field of a hash. One changes only from what its writer read
 * (`swap-field.lua`), so that what two processes learn at once adds up. A change that is sent again after a lost reply
 * is decided again, from what stands there then.
 */

import type { Redis } from "ioredis";
import { z } from "zod";
import type { Breaker } from "../core/breaking.ts";
import type { Scripts } from "./scripts.ts";

/** As many as may want to change one at the same moment, and more. */
const MAX_SWAPS = 100;

const broken = { sinceMs: z.number(), reason: z.string(), pauseMs: z.number() };
export const breaker = z.discriminatedUnion("state", [
  z.object({ state: z.literal("closed"), failures: z.number() }),
  z.object({ state: z.literal("open"), ...broken, probeAtMs: z.number() }),
  z.object({ state: z.literal("half-open"), ...broken, probe: z.string(), untilMs: z.number() }),
]) satisfies z.ZodType<Breaker>;

/** `decide` may be asked again, and changes nothing where it answers what it was given. */
export async function swapState<T>(
  { redis, scripts }: { readonly redis: Redis; readonly scripts: Scripts },
  key: string,
  field: string,
  schema: z.ZodType<T>,
  initial: T,
  decide: (before: T) => T,
): Promise<T> {
  for (let swap = 0; swap < MAX_SWAPS; swap++) {
    const text = await redis.hget(key, field);
    const before = readState(schema, text) ?? initial;
    const after = decide(before);
    if (after === before) return before;
    if ((await scripts.outlastSwapField(key, field, text ?? "", JSON.stringify(after))) === 1) return after;
  }
  throw new Error(`the field ${field} of ${key} changed ${MAX_SWAPS} times while it was to be changed`);
}

/** Null: there is none, or one that another version wrote. */
export function readState<T>(schema: z.ZodType<T>, text: string | null | undefined): T | null {
  if (text == null) return null;
  try {
    return schema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}
