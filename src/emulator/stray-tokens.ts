/**
 * Notices tokens where they don't belong: at the file host, at the other provider, in a URL, inside a body. It keeps
 * only a fingerprint of each, and how often it came.
 */

import { fingerprint } from "./accounts.ts";

export type Place = "file host" | "other provider" | "url" | "body";
export type StrayToken = { readonly place: Place; readonly fingerprint: string; readonly times: number };

const MOST = 1_000;

export class StrayTokens {
  readonly #known: readonly string[];
  readonly #times = new Map<string, StrayToken>();

  constructor(known: readonly string[]) {
    this.#known = known;
  }

  /** Any known token anywhere in a text. */
  search(place: Place, text: string): void {
    for (const token of this.#known) if (text.includes(token)) this.note(place, token);
  }

  /** A token, known or not, that was presented. */
  note(place: Place, token: string): void {
    const mark = fingerprint(token);
    const key = `${place} ${mark}`;
    if (this.#times.size >= MOST && !this.#times.has(key)) return;
    this.#times.set(key, { place, fingerprint: mark, times: (this.#times.get(key)?.times ?? 0) + 1 });
  }

  isKnown(token: string): boolean {
    return this.#known.includes(token);
  }

  all(): readonly StrayToken[] {
    return [...this.#times.values()];
  }
}
