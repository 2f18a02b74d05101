/**
 * What a provider's webhook means for the attempt that its address names; and where a provider can be told to call.
 *
 * Nothing here decides that a prediction is over: a poll does that. A webhook brings the poll forward, and tells which
 * prediction is the attempt's, where nobody knows that yet.
 */

import { type ItemState, isEnd } from "./item.ts";
import type { PredictionId } from "./prediction.ts";

/** Attempt and nonce are the address's, the prediction is the signed body's. */
export type Told = { readonly attempt: number; readonly nonce: string; readonly prediction: PredictionId };

/** Where the item stands, with what its hash says. */
export type ToldItem = {
  readonly attempt: number;
  readonly state: ItemState;
  readonly prediction: string | null;
  readonly nonce: string | null;
};

export type Meaning =
  /** The attempt's own, which runs: its next poll is brought forward. */
  | { readonly kind: "wake" }
  /** The attempt has no prediction yet, and this is it. */
  | { readonly kind: "bind"; readonly step: "bind" | "adopt" }
  /** The attempt's own, which a poll has seen the end of. */
  | { readonly kind: "late" }
  /** The attempt is over, or is being recorded: its receipt says which prediction it had. */
  | { readonly kind: "ended" }
  /** Another prediction holds the attempt. */
  | { readonly kind: "another" }
  /** There has been no such attempt. */
  | { readonly kind: "unknown" };

export function meaningOf(told: Told, item: ToldItem): Meaning {
  if (told.attempt > item.attempt) return { kind: "unknown" };
  if (told.attempt < item.attempt || isEnd(item.state)) return { kind: "ended" };
  if (item.prediction === told.prediction) return { kind: item.state === "running" ? "wake" : "late" };
  if (item.prediction !== null) return { kind: "another" };
  switch (item.state) {
    case "waiting":
      return { kind: "bind", step: "adopt" };
    case "claimed":
    case "unclear":
      return { kind: "bind", step: item.nonce === told.nonce ? "bind" : "adopt" };
    // Ended without one, or its hash went between two looks.
    case "running":
    case "copying":
    case "recording":
      return { kind: "ended" };
    default:
      return item.state satisfies never;
  }
}

/**
 * Whether the provider can be told to call there: it takes https alone and refuses a create that names anything else,
 * and it reaches this machine's loopback only from there, as the emulator does.
 */
export function isCallable(publicUrl: string, providerUrl: string): boolean {
  const [here, there] = [URL.parse(publicUrl), URL.parse(providerUrl)];
  if (here === null || there === null) return false;
  return isLoopback(here) ? isLoopback(there) : here.protocol === "https:";
}

function isLoopback({ hostname }: URL): boolean {
  return /^(?:(?:.+\.)?localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}
