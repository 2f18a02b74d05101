/**
 * Pages that keep themselves up to date: a page is made of parts, each an element with an id, and whoever looks at it is
 * sent those that have changed, once a second at most. `assets/live.js` puts them where they belong.
 */

import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { SECOND } from "../core/time.ts";
import { askerGone } from "../server/leaving.ts";
import { HEARTBEAT_MS, type ServerSentEvent, sendEvents } from "../server/server-sent-events.ts";
import type { Streams } from "../server/streams.ts";
import type { Html } from "./html.ts";

export type Part = { readonly id: string; readonly html: Html };

/** `over`: nothing of it changes any more. */
export type Parts = { readonly parts: readonly Part[]; readonly over: boolean };

export type Live = {
  /** `read` answers null where what the page is about has gone. */
  readonly send: (request: FastifyRequest, reply: FastifyReply, read: () => Promise<Parts | null>) => FastifyReply;
  /** Lets everybody go. */
  readonly close: () => void;
};

const LOOK_MS = SECOND;

/** A page takes its place among the streams of events; a browser that is turned away comes again. */
export function openLive(streams: Streams): Live {
  const closing = new AbortController();
  return {
    send(request, reply, read) {
      const signal = AbortSignal.any([askerGone(reply), closing.signal]);
      streams.take(request.client, signal);
      const lost = (error: unknown) => request.log.warn({ err: error }, "an open page can't be kept up to date");
      return sendEvents(reply, changes(read, { seen: seenBy(request), signal, lost }), HEARTBEAT_MS);
    },
    close: () => closing.abort(),
  };
}

/** What tells two states of a page apart. */
export function versionOf({ parts }: Parts): string {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part.html.text);
  return hash.digest("base64url").slice(0, 16);
}

/** The parts that have changed since `seen`, then since they were told last. `lost`: hears why nothing could be read. */
export async function* changes(
  read: () => Promise<Parts | null>,
  {
    seen,
    signal,
    lost,
  }: { readonly seen: string; readonly signal: AbortSignal; readonly lost: (error: unknown) => void },
): AsyncGenerator<ServerSentEvent, void, undefined> {
  let told: ReadonlyMap<string, string> | null = null;
  let away = false;
  while (!signal.aborted) {
    try {
      const page = await read();
      if (page === null) return yield { event: "over", data: "it is gone" };
      const id = versionOf(page);
      const texts = new Map(page.parts.map((part) => [part.id, part.html.text]));
      // What the reader has; who was told that it may be old is told everything again.
      const shown: ReadonlyMap<string, string> | null = away ? null : (told ?? (id === seen ? texts : null));
      const changed = page.parts.filter((part) => shown?.get(part.id) !== part.html.text);
      told = texts;
      away = false;
      if (changed.length > 0) yield { event: "parts", id, data: changed.map(({ html }) => html.text).join("") };
      if (page.over) return yield { event: "over", data: "nothing of it changes any more" };
    } catch (error) {
      if (!away) {
        lost(error);
        yield { event: "away", data: "Redis or the bucket doesn’t answer: this is how things stood before." };
      }
      away = true;
    }
    await sleep(LOOK_MS, undefined, { signal }).catch(() => undefined);
  }
}

const query = z.object({ seen: z.string().catch("") });

/** What the browser's page shows: of a connection that broke it tells by itself, of the first by its address. */
function seenBy(request: FastifyRequest): string {
  return String(request.headers["last-event-id"] ?? query.parse(request.query).seen);
}
