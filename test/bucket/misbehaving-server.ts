/** HTTP servers that break on purpose, on loopback; every one is closed with its connections when the test ends. */

import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import type { SelfSigned } from "./self-signed.ts";

export type Served = {
  readonly port: number;
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** What arrived, in order. */
  readonly requests: readonly http.IncomingMessage[];
};

export type Servers = {
  /** A handler of whole requests. */
  http(handler: http.RequestListener): Promise<Served>;
  https(certificate: SelfSigned, handler: http.RequestListener): Promise<Served>;
  /** Called with each request's head, on a bare socket: for answers that no HTTP server would give. */
  raw(onRequest: (socket: net.Socket, head: string) => void): Promise<Pick<Served, "port" | "url">>;
  close(): Promise<void>;
};

export function misbehavingServers(): Servers {
  const servers: net.Server[] = [];
  const sockets = new Set<net.Socket>();

  const listen = async (server: net.Server): Promise<number> => {
    servers.push(server);
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.on("error", () => {}); // clients that hang up are part of many tests
      socket.on("close", () => sockets.delete(socket));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return address.port;
  };
  const noting = (requests: http.IncomingMessage[], handler: http.RequestListener): http.RequestListener => {
    return (request, response) => {
      requests.push(request);
      handler(request, response);
    };
  };

  return {
    http: async (handler) => {
      const requests: http.IncomingMessage[] = [];
      const port = await listen(http.createServer(noting(requests, handler)));
      return { port, url: `http://127.0.0.1:${port}`, requests };
    },
    https: async (certificate, handler) => {
      const requests: http.IncomingMessage[] = [];
      const port = await listen(https.createServer(certificate, noting(requests, handler)));
      return { port, url: `https://127.0.0.1:${port}`, requests };
    },
    raw: async (onRequest) => {
      const server = net.createServer((socket) => {
        let head = "";
        socket.on("data", (chunk) => {
          head += chunk.toString("latin1");
          const end = head.indexOf("\r\n\r\n");
          if (end === -1) return;
          onRequest(socket, head.slice(0, end));
          head = head.slice(end + 4);
        });
      });
      const port = await listen(server);
      return { port, url: `http://127.0.0.1:${port}` };
    },
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await Promise.all(servers.map(async (server) => once(server.close(), "close")));
    },
  };
}
