/**
 * TLS in front of a plain HTTP server, as a reverse proxy has it: what comes in over https goes on as it is. Its
 * certificate is made on the spot, so only `fetch` of this front trusts it.
 */

import { once } from "node:events";
import { type AddressInfo, connect } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import { Agent, fetch as undiciFetch } from "undici";
import { selfSigned } from "../bucket/self-signed.ts";

export type TlsFront = AsyncDisposable & {
  /** `https://localhost:PORT` */
  readonly url: string;
  readonly fetch: typeof fetch;
  /** Where it leads from now on: an http URL. */
  leadTo(url: string): void;
};

export async function openTlsFront(): Promise<TlsFront> {
  const certificate = selfSigned(["localhost"]);
  const open = new Set<TLSSocket>();
  let target = new URL("http://127.0.0.1:1");
  const server = createServer(certificate, (socket) => {
    open.add(socket);
    socket.once("close", () => open.delete(socket));
    const onward = connect(Number(target.port), target.hostname);
    // Whoever hangs up on either side ends both.
    socket.on("error", () => onward.destroy()).pipe(onward);
    onward.on("error", () => socket.destroy()).pipe(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const agent = new Agent({ connect: { ca: certificate.cert } });
  const trusting = (url: string | URL, init?: object) => undiciFetch(url, { ...init, dispatcher: agent });
  return {
    url: `https://localhost:${(server.address() as AddressInfo).port}`,
    fetch: trusting as unknown as typeof fetch,
    leadTo(url) {
      target = new URL(url);
    },
    async [Symbol.asyncDispose]() {
      await agent.destroy();
      for (const socket of open) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
