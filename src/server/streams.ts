/**
 * How many streams of events are open, of one key and in all: each costs memory, and its batch a look a second, for as long
 * as it lasts. Counted in this process, as limits are.
 */

import type { Client } from "./clients.ts";
import { HttpProblem } from "./problems.ts";

const PER_KEY = 100;
const IN_ALL = 1_000;
const RETRY_AFTER_SECONDS = 5;

export type Streams = {
  /** Takes a place until the signal aborts; throws an HttpProblem, 429, where none is left. */
  readonly take: (client: Client, until: AbortSignal) => void;
};

export function openStreams({ perKey, inAll } = { perKey: PER_KEY, inAll: IN_ALL }): Streams {
  const open = new Map<string, number>();
  let all = 0;

  function count(id: string, by: 1 | -1): void {
    all += by;
    const left = (open.get(id) ?? 0) + by;
    if (left === 0) open.delete(id);
    else open.set(id, left);
  }

  return {
    take({ id }, until) {
      if (until.aborted) return;
      if ((open.get(id) ?? 0) >= perKey) throw full(`this key has ${perKey} streams of events open`);
      if (all >= inAll) throw full(`${inAll} streams of events are open on this server`);
      count(id, 1);
      until.addEventListener("abort", () => count(id, -1), { once: true });
    },
  };
}

function full(detail: string): HttpProblem {
  return new HttpProblem(429, detail, { retryAfterSeconds: RETRY_AFTER_SECONDS });
}
