/**
 * The life of an attempt: its states, and every legal step between them.
 *
 *  canceled
 *        ▲ withdraw
 *     waiting ──claim──► claimed ──bind──► running ──succeed──► copying
 *        ▲                │ │ │               │                    │
 *        ├────giveBack────┘ │ └─── refuse ──┐ conclude             │ finishCopy
 *        │                  │               ▼ ▼                    │
 *        │                doubt          recording ◄───────────────┘
 *        │                  ▼               ▲ │
 *        └────giveBack── unclear ─ refuse ──┘ └─ save | fail | cancel ─► saved | failed | canceled
 *                           └─ bind ─► running
 *
 * What leads out of `unclear` is the late answer of the request itself, or evidence: the provider's list, its webhook,
 * or a person's word. `salvage` leads where `succeed` does; `adopt` leads to running, and `recall` to recording, from
 * waiting, claimed and unclear.
 *
 * One byte per item holds both: the attempt in the high nibble (1 to 15), the state in the low one. A byte of 0
 * is an item nobody has touched: attempt 1, waiting. The ledger's one Lua script makes every step and is handed
 * the numbers from here, so that this table is the only place where a step is legal or isn't.
 *
 * An end (saved, failed, canceled) never changes within its attempt.
 */

/** In the order of their numbers in the low nibble. Append only: the numbers are stored. */
export const ITEM_STATES = [
  "waiting",
  "claimed",
  "running",
  "copying",
  "recording",
  "saved",
  "failed",
  "canceled",
  "unclear",
] as const;

export type ItemState = (typeof ITEM_STATES)[number];

export type ItemEnd = Extract<ItemState, "saved" | "failed" | "canceled">;

export const MAX_ATTEMPT = 15;

type Step = { readonly from: readonly ItemState[]; readonly to: ItemState };

export const ITEM_STEPS = {
  /** A person, or the deadline of whoever asked for it, ended the item before it was bought. */
  withdraw: { from: ["waiting"], to: "canceled" },
  /** The intent to buy is written; from here on the item may cost money. */
  claim: { from: ["waiting"], to: "claimed" },
  /** The request surely wasn't accepted, says its own sender, late or not; somebody may claim the item again. */
  giveBack: { from: ["claimed", "unclear"], to: "waiting" },
  /** Nobody knows whether the provider accepted the request. */
  doubt: { from: ["claimed"], to: "unclear" },
  /** The provider's answer names the prediction, late or not. */
  bind: { from: ["claimed", "unclear"], to: "running" },
  /** Somebody else than the holder of the intent knows the prediction: a webhook, or an answer that comes very late. */
  adopt: { from: ["waiting", "claimed", "unclear"], to: "running" },
  /** The provider said no, late or not, and will go on saying so. */
  refuse: { from: ["claimed", "unclear"], to: "recording" },
  /** The prediction succeeded; its output is to be copied. */
  succeed: { from: ["running"], to: "copying" },
  /** The prediction ended otherwise, and has left files; its output is to be copied. */
  salvage: { from: ["running"], to: "copying" },
  /** The prediction ended without an output to copy. */
  conclude: { from: ["running"], to: "recording" },
  /** Every output is in the bucket, or surely can't be had. */
  finishCopy: { from: ["copying"], to: "recording" },
  /** The attempt's receipt is in the bucket; Redis had lost that it was bought. */
  recall: { from: ["waiting", "claimed", "unclear"], to: "recording" },
  save: { from: ["recording"], to: "saved" },
  fail: { from: ["recording"], to: "failed" },
  cancel: { from: ["recording"], to: "canceled" },
} as const satisfies Record<string, Step>;

export type ItemStep = keyof typeof ITEM_STEPS;

/** The step that ends an attempt so. */
export const END_STEPS = { saved: "save", failed: "fail", canceled: "cancel" } as const satisfies Record<
  ItemEnd,
  ItemStep
>;

export function isEnd(state: ItemState): state is ItemEnd {
  return state === "saved" || state === "failed" || state === "canceled";
}

export function stateNumber(state: ItemState): number {
  return ITEM_STATES.indexOf(state);
}

export type ItemByte = { readonly attempt: number; readonly state: ItemState };

export function readItemByte(byte: number): ItemByte {
  const state = ITEM_STATES[byte & 0x0f];
  if (state === undefined) throw new RangeError(`no item state has the number ${byte & 0x0f} (byte ${byte})`);
  return { attempt: Math.max(byte >> 4, 1), state };
}

export function writeItemByte({ attempt, state }: ItemByte): number {
  if (!Number.isInteger(attempt) || attempt < 1 || attempt > MAX_ATTEMPT) {
    throw new RangeError(`an attempt is a whole number from 1 to ${MAX_ATTEMPT}, not ${attempt}`);
  }
  return (attempt << 4) | stateNumber(state);
}

/**
 * What a step does to an item: the model of the ledger's script, kept here so that properties can be held
 * against it. `moved`: done. `already`: this attempt stands there already; carry on with the next effect.
 * `lost`: another attempt, or a later state; stop.
 */
export function stepItem(
  item: ItemByte,
  attempt: number,
  step: ItemStep,
): { readonly answer: "moved" | "already" | "lost"; readonly item: ItemByte } {
  const { from, to }: Step = ITEM_STEPS[step];
  if (item.attempt !== attempt) return { answer: "lost", item };
  if (from.includes(item.state)) return { answer: "moved", item: { attempt, state: to } };
  return { answer: item.state === to ? "already" : "lost", item };
}
