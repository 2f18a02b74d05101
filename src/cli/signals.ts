/** Being asked to end, by Ctrl-C or by SIGTERM. */

import { SECOND } from "../core/time.ts";

/** What shells expect of a program that Ctrl-C ended. */
export const INTERRUPTED = 130;

export type EndRequest = Disposable & {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
};

/**
 * From here on the first signal only asks; one that comes a second later exits at once. (Under npm one Ctrl-C comes
 * twice: from the terminal, and handed on by npm.)
 */
export function listenForEnd(): EndRequest {
  const asked = new AbortController();
  let firstAt = 0;
  const listener = () => {
    if (!asked.signal.aborted) {
      firstAt = performance.now();
      asked.abort();
    } else if (performance.now() - firstAt > SECOND) {
      process.exit(INTERRUPTED);
    }
  };
  const names = ["SIGINT", "SIGTERM"] as const;
  for (const name of names) process.on(name, listener);
  return {
    signal: asked.signal,
    [Symbol.dispose]() {
      for (const name of names) process.off(name, listener);
    },
  };
}
