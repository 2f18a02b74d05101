/**
 * A server on a bare socket, which does to each request exactly what a test tells it, and remembers every request
 * line that reached it, on whichever connection.
 *
 * A test that must know that nothing was repeated asks for `/account` afterwards, which is always answered well, and
 * then compares all request lines: a repetition would stand between the two.
 */

import { once } from "node:events";
import { createServer, type Socket } from "node:net";

/** Called when a connection is made; what it hands back is called for every whole request on it. */
export type Manners = {
  readonly onConnection?: (socket: Socket) => void;
  /** From the first bytes of a request that isn't whole yet. */
  readonly onFirstBytes?: (socket: Socket) => void;
  readonly onRequest?: (socket: Socket, head: string, body: string) => void;
};

export type RawServer = AsyncDisposable & {
  readonly port: number;
  readonly baseUrl: string;
  /** `POST /v1/predictions`, in order of arrival. */
  readonly lines: readonly string[];
  readonly heads: readonly string[];
  readonly connections: readonly Socket[];
  /** Everything received, on all connections. */
  readonly received: () => Buffer;
};

export async function startRawServer(manners: Manners): Promise<RawServer> {
  const lines: string[] = [];
  const heads: string[] = [];
  const connections: Socket[] = [];
  const received: Buffer[] = [];

  const server = createServer({ allowHalfOpen: true }, (socket) => {
    connections.push(socket);
    socket.on("error", () => {}); // resets are what these tests are about
    manners.onConnection?.(socket);
    let pending = "";
    let noted = false;
    socket.on("end", () => socket.end());
    socket.on("data", (chunk) => {
      received.push(chunk);
      pending += chunk.toString("latin1");
      for (;;) {
        const line = /^(?:GET|POST) \S+(?= HTTP\/1\.1\r\n)/.exec(pending)?.[0];
        if (line === undefined) return;
        if (!noted) lines.push(line);
        noted = true;
        const headEnd = pending.indexOf("\r\n\r\n");
        const head = pending.slice(0, headEnd);
        const length = Number(/\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
        const isAccount = line.endsWith("/account");
        if (!isAccount) manners.onFirstBytes?.(socket);
        if (headEnd === -1 || pending.length < headEnd + 4 + length) return;
        const body = pending.slice(headEnd + 4, headEnd + 4 + length);
        pending = pending.slice(headEnd + 4 + length);
        noted = false;
        heads.push(head);
        if (isAccount) socket.write(answer(200, '{"type":"user","username":"ada"}'));
        else manners.onRequest?.(socket, head, body);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");

  return {
    port: address.port,
    baseUrl: `http://127.0.0.1:${address.port}/v1`,
    lines,
    heads,
    connections,
    received: () => Buffer.concat(received),
    async [Symbol.asyncDispose]() {
      for (const socket of connections) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** A whole answer in HTTP/1.1, kept alive. */
export function answer(status: number, body: string, headers: readonly string[] = []): string {
  const lines = [
    `HTTP/1.1 ${status} Whatever`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    ...headers,
  ];
  return `${lines.join("\r\n")}\r\n\r\n${body}`;
}

/** A port that nobody listens on. */
export async function closedPort(): Promise<number> {
  const server = await startRawServer({});
  await server[Symbol.asyncDispose]();
  return server.port;
}
