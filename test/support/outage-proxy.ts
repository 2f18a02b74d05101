/**
 * A proxy before a provider that can be down: then nobody listens, and kept connections are broken off with their next
 * request. What was on its way when it began is heard out, so that no create is left unclear.
 */

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";

export type OutageProxy = AsyncDisposable & {
  /** `http://127.0.0.1:PORT`. */
  readonly origin: string;
  goDown(): Promise<void>;
  comeBack(): Promise<void>;
};

export async function startOutageProxy(target: { readonly port: number }): Promise<OutageProxy> {
  const sockets = new Set<Socket>();
  let isDown = false;
  const server = createServer((client) => {
    const upstream = connect(target.port, "127.0.0.1");
    let answered = 0;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    client.on("data", (chunk) => {
      if (isDown && answered > 0) client.resetAndDestroy();
      else upstream.write(chunk);
    });
    upstream.on("data", (chunk) => {
      answered++;
      client.write(chunk);
    });
  });
  async function listen(port: number): Promise<number> {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return (server.address() as AddressInfo).port;
  }
  const port = await listen(0);
  return {
    origin: `http://127.0.0.1:${port}`,
    async goDown() {
      isDown = true;
      server.close();
    },
    async comeBack() {
      // A listener is closed once its last connection is.
      for (const socket of sockets) socket.destroy();
      if (server.listening) await once(server, "close");
      isDown = false;
      await listen(port);
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
