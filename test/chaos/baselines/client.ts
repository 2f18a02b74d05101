/** The official client, as the others use it. */

import Replicate from "replicate";

/** It waits for an answer for ever. A create is held for up to 60 s. */
const TIMEOUT_MS = 75_000;

export function openOfficialClient(baseUrl: string): Replicate {
  return new Replicate({
    auth: "r8_emulator",
    baseUrl,
    useFileOutput: false, // plain URLs
    fetch: (url: string | URL | Request, init?: RequestInit) =>
      fetch(url, { ...init, signal: AbortSignal.timeout(TIMEOUT_MS) }),
  });
}

/** How `run()` waits: held by the provider, as it does by itself, or asking every half second. */
export function waitOf(mode: string): { readonly mode: "block" } | { readonly mode: "poll" } {
  return { mode: mode === "poll" ? "poll" : "block" };
}
