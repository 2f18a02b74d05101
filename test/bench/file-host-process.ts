/**
 * A file host as a process of its own: `/files/<bytes>/<name>` is a file of so many bytes, announced. Told `start` it
 * answers its address; it ends with its parent.
 */

import { once } from "node:events";
import { createServer } from "node:http";
import { Readable } from "node:stream";

export type HostAddress = { readonly kind: "host"; readonly origin: string };

/** Larger than a socket's buffer, so that sending costs little beside receiving. */
const PIECE = Buffer.alloc(1024 * 1024, "some bytes that were made once and are sent again ");
PIECE.set([0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, 0x4a, 0x46, 0x49, 0x46, 0x00]); // as a JPEG begins

process.channel?.ref(); // the parent is what it lives for
process.once("message", () => void start());
process.once("disconnect", () => process.exit());

async function start(): Promise<void> {
  const server = createServer((request, response) => {
    const bytes = Number(/^\/files\/(\d+)\//.exec(request.url ?? "")?.[1] ?? 0);
    response.writeHead(200, { "content-type": "image/jpeg", "content-length": bytes });
    if (bytes <= PIECE.length) response.end(PIECE.subarray(0, bytes));
    else Readable.from(pieces(bytes), { objectMode: false }).pipe(response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the file host has no port");
  const told: HostAddress = { kind: "host", origin: `http://127.0.0.1:${address.port}` };
  process.send?.(told);
}

function* pieces(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= PIECE.length) yield PIECE.subarray(0, Math.min(left, PIECE.length));
}
