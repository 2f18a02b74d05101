/**
 * Over TLS, as in production: HTTP/1.1 even where the server would rather speak HTTP/2, a connection per create, and
 * nothing sent to a server that can't prove who it is.
 */

import { once } from "node:events";
import { createServer, getCACertificates, setDefaultCACertificates, type TLSSocket } from "node:tls";
import { afterEach, describe, expect, test } from "vitest";
import { predictionId, type Target } from "../../src/core/prediction.ts";
import { createReplicate } from "../../src/providers/replicate.ts";
import { makeCertificate } from "./certificate.ts";
import { answer } from "./raw-server.ts";

const TARGET: Target = { kind: "model", owner: "ada", name: "loom" };
const never = () => new AbortController().signal;
const certificate = makeCertificate();
const usual = getCACertificates("default");

afterEach(() => setDefaultCACertificates(usual));

async function startServer() {
  const sockets: TLSSocket[] = [];
  const lines: string[] = [];
  const resumed: boolean[] = [];
  const server = createServer({ ...certificate, ALPNProtocols: ["h2", "http/1.1"] }, (socket) => {
    sockets.push(socket);
    resumed.push(socket.isSessionReused());
    socket.on("error", () => {});
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      const end = text.indexOf("\r\n\r\n");
      const length = Number(/content-length: (\d+)/.exec(text)?.[1] ?? 0);
      if (end === -1 || text.length < end + 4 + length) return;
      lines.push(text.slice(0, text.indexOf(" HTTP/")));
      text = text.slice(end + 4 + length);
      socket.write(answer(200, '{"id":"p1","status":"starting"}'));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    baseUrl: `https://127.0.0.1:${address.port}/v1`,
    sockets,
    lines,
    resumed,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

describe("over TLS", () => {
  test("creates and reads speak HTTP/1.1, each create on its own connection", async () => {
    setDefaultCACertificates([...usual, certificate.cert]);
    await using server = await startServer();
    await using provider = createReplicate({ baseUrl: server.baseUrl, token: "r8_x", connections: 1 });
    for (let n = 0; n < 3; n++) await provider.create({ target: TARGET, input: { n } }, never());
    for (let n = 0; n < 3; n++) await provider.get(predictionId("p1"), never());
    expect(server.lines.filter((line) => line === "POST /v1/models/ada/loom/predictions")).toHaveLength(3);
    expect(server.lines).toHaveLength(6);
    expect(server.sockets.map(({ alpnProtocol }) => alpnProtocol)).toEqual(Array(4).fill("http/1.1"));
    expect(server.resumed.slice(0, 3)).toEqual([false, true, true]); // a new connection, but not a whole new handshake
  });

  test("a server that can't prove who it is receives nothing", async () => {
    await using server = await startServer();
    await using provider = createReplicate({ baseUrl: server.baseUrl, token: "r8_x" });
    const create = provider.create({ target: TARGET, input: {} }, never());
    await expect(create).rejects.toMatchObject({ kind: "not-sent", detail: expect.stringMatching(/self-signed/) });
    expect(server.lines).toEqual([]);
  });
});
