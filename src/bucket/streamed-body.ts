/** What both adapters do with a body that somebody else's stream delivers. */

import type { Readable } from "node:stream";

/**
 * Runs `write`, which consumes `body`. An abort fails the body, so there is one way for a write to end early; one that
 * comes after the body's last byte comes too late, and the write ends as it would have.
 * Whatever is thrown because of the body is the body's own error; other errors go through `translate`.
 */
export async function withBody(
  body: Readable,
  signal: AbortSignal | undefined,
  write: () => Promise<void>,
  translate: (error: unknown) => unknown,
): Promise<void> {
  const abort = (): void => {
    body.destroy(signal?.reason instanceof Error ? signal.reason : new DOMException("aborted", "AbortError"));
  };
  // A destroyed stream emits its error later, when nobody iterates it any more.
  const heard = (): void => {};
  body.on("error", heard);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort, { once: true });
  try {
    await write();
  } catch (error) {
    const { errored } = body;
    if (errored !== null && (errored === error || !wasLetGo(errored, signal))) throw errored;
    throw endedEarly(error) ? error : await translate(error);
  } finally {
    signal?.removeEventListener("abort", abort);
    body.destroy();
  }
}

/** Whoever read it stopped reading, for a reason of its own: so Node ends a body whose loop throws. */
function wasLetGo(error: Error, signal: AbortSignal | undefined): boolean {
  return "code" in error && error.code === "ABORT_ERR" && error !== signal?.reason;
}

/** The stream was destroyed by somebody who gave no reason. */
function endedEarly(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE";
}
