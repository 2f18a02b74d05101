/**
 * A proxy on a bare socket before an HTTP server: it notes request lines, can lose the answer to a request, and can be
 * as if the server were gone, or frozen.
 */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

export type TcpProxy = {
  readonly port: number;
  /** `PUT /blobs/a.txt?x-id=PutObject`, in order of arrival. */
  readonly lines: readonly string[];
  /** The next request whose line matches is carried out; instead of its answer the connection is reset. */
  loseAnswerTo(line: RegExp): void;
  /** `gone`: every connection is broken off. `frozen`: connections stand, and nothing goes over them. */
  pretend(state: "well" | "gone" | "frozen"): void;
  close(): Promise<void>;
};

const REQUEST_LINE = /^((?:GET|HEAD|PUT|POST|DELETE) \S+) HTTP\/1\.1\r$/gm;

export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const lines: string[] = [];
  const sockets = new Set<Socket>();
  let toLose: RegExp | null = null;
  let state: "well" | "gone" | "frozen" = "well";

  const server = createServer((client) => {
    if (state === "gone") {
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(targetPort, "127.0.0.1");
    let losing = false;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {}); // resets are the purpose
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (chunk) => {
      if (state === "frozen") return;
      for (const [, line] of chunk.toString("latin1").matchAll(REQUEST_LINE)) {
        if (line === undefined) continue;
        lines.push(line);
        if (toLose?.test(line)) {
          losing = true;
          toLose = null;
        }
      }
      upstream.write(chunk);
    });
    upstream.on("data", (chunk) => {
      if (state === "frozen") return;
      if (losing) client.resetAndDestroy();
      else client.write(chunk);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");

  return {
    port: address.port,
    lines,
    loseAnswerTo: (line) => {
      toLose = line;
    },
    pretend: (next) => {
      // What was swallowed is missing on connections from before.
      if (next !== "frozen") for (const socket of sockets) socket.destroy();
      state = next;
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
