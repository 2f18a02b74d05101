/** Server-sent events: a reply that stays open and tells one thing after another (WHATWG HTML, section 9.2). */

import { Readable } from "node:stream";
import type { FastifyReply } from "fastify";
import { SECOND } from "../core/time.ts";

export type ServerSentEvent = { readonly event: string; readonly id?: string; readonly data: string };

/** A line that says nothing keeps proxies from taking the connection for dead. */
export const HEARTBEAT_MS = 15 * SECOND;

/** Sends what the generator yields, as fast as the reader takes it. The generator ends when the reader has gone. */
export function sendEvents(
  reply: FastifyReply,
  events: AsyncGenerator<ServerSentEvent, void, undefined>,
  heartbeatMs: number,
): FastifyReply {
  return reply
    .header("content-type", "text/event-stream")
    .header("cache-control", "no-store")
    .header("x-accel-buffering", "no")
    .send(Readable.from(textOf(events, heartbeatMs), { objectMode: false, highWaterMark: 16_384 }));
}

async function* textOf(
  events: AsyncGenerator<ServerSentEvent, void, undefined>,
  heartbeatMs: number,
): AsyncGenerator<string> {
  yield "retry: 2000\n\n";
  let next = events.next();
  try {
    for (;;) {
      const beat = Promise.withResolvers<"beat">();
      const timer = setTimeout(() => beat.resolve("beat"), heartbeatMs);
      const told = await Promise.race([next, beat.promise]).finally(() => clearTimeout(timer));
      if (told === "beat") {
        yield ": still here\n\n";
        continue;
      }
      if (told.done === true) return;
      yield textOfEvent(told.value);
      next = events.next();
    }
  } finally {
    await events.return();
  }
}

function textOfEvent({ event, id, data }: ServerSentEvent): string {
  const lines = data.split(/\r\n|\r|\n/).map((line) => `data: ${line}\n`);
  return `event: ${event}\n${id === undefined ? "" : `id: ${id}\n`}${lines.join("")}\n`;
}
