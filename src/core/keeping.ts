/** Which errand an open item should have, by where it stands. */

import type { ItemState } from "./item.ts";
import { MINUTE } from "./time.ts";

/** An open item that nobody has touched for so long gets its errand again. */
export const UNTOUCHED_MS = 10 * MINUTE;

export type Errand = "create" | "follow" | "copy" | "record";

const ERRANDS = {
  waiting: "create",
  /** The create stage finds another's intent and calls the item unclear; it sends nothing. */
  claimed: "create",
  running: "follow",
  copying: "copy",
  recording: "record",
  saved: null,
  failed: null,
  canceled: null,
  unclear: null,
} as const satisfies Record<ItemState, Errand | null>;

export function errandFor(state: ItemState): Errand | null {
  return ERRANDS[state];
}
