/**
 * Keeps large files from holding all the slots that a process copies with: they have some of them at most, and the rest is
 * for small ones, whose hour runs as well. A file is large by the length its host announces, or once its stream has passed
 * so much.
 *
 * Who finds no slot is told by an error before anything more is read, and comes again: waiting holds no slot. An output that
 * was found large is remembered, so that its host isn't asked again in vain, and keeps its slot from one of its files to the
 * next. One that can't wait any longer goes at once, whatever others hold.
 */

import { Readable } from "node:stream";
import { LRUCache } from "lru-cache";
import type { Dispatcher } from "undici";
import type { Bucket } from "./bucket.ts";
import type { DownloadAgent } from "./download-agent.ts";
import { wrappedBucket } from "./wrapped-bucket.ts";

export const LARGE_BYTES = 64 * 1024 * 1024;

const MAX_REMEMBERED = 10_000;

/** All slots for large files are taken. Nothing was written. */
export class NoLargeSlot extends Error {
  override readonly name = "NoLargeSlot";

  constructor(slots: number) {
    super(`all ${slots} slots for large files are taken; it waits for one`);
  }
}

/** What a copy reads through and writes to. */
type Ends = { readonly bucket: Bucket; readonly agent: DownloadAgent };

/** Runs the copy of one file. Throws NoLargeSlot. */
export type CopyThrough = <T>(ends: Ends, copy: (ends: Ends) => Promise<T>) => Promise<T>;

export type LargeFiles = {
  /** Runs the copies of one output. `name`: the same for each of its tries. Throws NoLargeSlot, where it `mayWait`. */
  during<T>(name: string, mayWait: boolean, run: (through: CopyThrough) => Promise<T>): Promise<T>;
};

export function openLargeFiles(slots: number, largeBytes: number = LARGE_BYTES): LargeFiles {
  const known = new LRUCache<string, true>({ max: MAX_REMEMBERED });
  let taken = 0;

  return {
    async during(name, mayWait, run) {
      let held = false;

      function takeSlot(): void {
        if (held) return;
        known.set(name, true);
        if (mayWait && taken >= slots) throw new NoLargeSlot(slots);
        held = true;
        taken++;
      }
      async function* watched(body: Readable): AsyncGenerator<Buffer> {
        let bytes = 0;
        for await (const chunk of body as AsyncIterable<Buffer>) {
          bytes += chunk.length;
          if (bytes > largeBytes) takeSlot();
          yield chunk;
        }
      }
      const through: CopyThrough = async ({ bucket, agent }, copy) => {
        let announcedBytes = 0;
        const hearing = hearingLength((bytes) => {
          announcedBytes = Math.max(announcedBytes, bytes);
        });
        const putStream: Bucket["putStream"] = async (key, body, options) => {
          if (announcedBytes > largeBytes) takeSlot();
          // What announces a length is held to it by the download.
          const isKnown = held || announcedBytes > 0;
          return bucket.putStream(key, isKnown ? body : Readable.from(watched(body), { objectMode: false }), options);
        };
        return copy({
          bucket: wrappedBucket(bucket, { putStream }),
          agent: { ...agent, dispatcher: agent.dispatcher.compose(hearing) },
        });
      };

      if (known.has(name)) takeSlot();
      try {
        return await run(through);
      } finally {
        if (held) taken--;
      }
    },
  };
}

/** Tells what each answer with a body announces as its length. */
function hearingLength(heard: (bytes: number) => void): Dispatcher.DispatcherComposeInterceptor {
  return (dispatch) => (options, handler) =>
    dispatch(options, {
      onRequestStart: (controller, context) => handler.onRequestStart?.(controller, context),
      onResponseStart(controller, status, headers, message) {
        const length = Number(headers["content-length"] ?? Number.NaN);
        if (status === 200 && length > 0) heard(length);
        handler.onResponseStart?.(controller, status, headers, message);
      },
      onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd: (controller, trailers) => handler.onResponseEnd?.(controller, trailers),
      onResponseError: (controller, error) => handler.onResponseError?.(controller, error),
    });
}
