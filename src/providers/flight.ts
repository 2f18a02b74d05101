/**
 * Tells whether a request may have left: one flight is followed from its making to its first byte.
 *
 * Source: undici 8.12.4 itself. `undici:request:create` is published while the request object is made, synchronously
 * in `Client.dispatch`, or later from a Pool's queue but in the async context of who asked (its `QueuedRequest` is an
 * AsyncResource): so the context tells whose it is. `undici:client:sendHeaders` is published by `writeH1` in the same
 * synchronous run as, and before, the first `socket.write`: without it no byte of the request was written. With it
 * the bytes may still be in this machine, which counts as written.
 *
 * If undici one day publishes under other names, no request is recognised any more, and every failure counts as
 * written: unclear, never sent twice. The tests would say so first.
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { subscribe } from "node:diagnostics_channel";

export class Flight {
  #made = false;
  #written = false;

  /** False only if undici made this flight's request and never came to write it. */
  get mayHaveBeenWritten(): boolean {
    return this.#written || !this.#made;
  }

  /** Runs `send`, which makes exactly one request. */
  run<T>(send: () => Promise<T>): Promise<T> {
    return current.run(this, send);
  }

  static onMade(request: object): void {
    const flight = current.getStore();
    if (flight === undefined) return; // somebody else's: the AWS SDK, a test, Node's own fetch
    if (flight.#made) flight.#written = true; // a second request in one flight: nothing can be said any more
    flight.#made = true;
    flights.set(request, flight);
  }

  static onWriting(request: object): void {
    const flight = flights.get(request);
    if (flight !== undefined) flight.#written = true;
  }
}

const current = new AsyncLocalStorage<Flight>();
const flights = new WeakMap<object, Flight>();

subscribe("undici:request:create", (message) => Flight.onMade(requestOf(message)));
subscribe("undici:client:sendHeaders", (message) => Flight.onWriting(requestOf(message)));

/** Both channels publish `{ request, … }`, the same object for the same request. */
function requestOf(message: unknown): object {
  return (message as { readonly request: object }).request;
}
