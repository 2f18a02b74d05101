/** What isn't even HTTP, or too much of it: headers that are too long, too slow or malformed. An answer, then the end. */

import { type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";

const STATUSES: Readonly<Record<string, readonly [status: number, detail: string]>> = {
  HPE_HEADER_OVERFLOW: [431, "the headers are too long"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "the headers took too long to arrive"],
};

/** Node's name for the answer that goes over a socket at the moment, which its own handler looks at, too. */
type Answering = Socket & { readonly _httpMessage?: Pick<ServerResponse, "headersSent"> | null };

export function answerClientErrors(error: NodeJS.ErrnoException, socket: Answering): void {
  // In the middle of another answer there is no place for one.
  if (error.code === "ECONNRESET" || !socket.writable || socket._httpMessage?.headersSent === true) {
    socket.destroy();
    return;
  }
  const [status, detail] = STATUSES[error.code ?? ""] ?? [400, "this isn't HTTP as the server understands it"];
  const title = STATUS_CODES[status] ?? "Bad Request";
  const body = JSON.stringify({ title, status, detail });
  socket.end(
    [
      `HTTP/1.1 ${status} ${title}`,
      "content-type: application/problem+json",
      `content-length: ${Buffer.byteLength(body)}`,
      "connection: close",
      "",
      body,
    ].join("\r\n"),
  );
}
