/** A server that takes webhooks and checks them by what the docs say about signatures. */

import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

type Received = {
  readonly id: string;
  /** Of the prediction, as the body has them. */
  readonly prediction: string;
  readonly status: string;
  readonly signed: boolean;
  readonly atMs: number;
};

export const SECRET = `whsec_${Buffer.from("a secret of twenty-four b").toString("base64")}`;

/** Answers with the given statuses in turn, the last one for ever. */
export async function receiver(...statuses: number[]) {
  const received: Received[] = [];
  const receive = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString();
    const header = (name: string): string => String(request.headers[name]);
    const text = `${header("webhook-id")}.${header("webhook-timestamp")}.${body}`;
    const key = Buffer.from(SECRET.slice("whsec_".length), "base64");
    const shown = JSON.parse(body) as { readonly id: string; readonly status: string };
    received.push({
      id: header("webhook-id"),
      prediction: shown.id,
      status: shown.status,
      atMs: Date.now(),
      signed: header("webhook-signature")
        .split(" ")
        .includes(`v1,${createHmac("sha256", key).update(text).digest("base64")}`),
    });
    const status = statuses.length > 1 ? statuses.shift() : statuses[0];
    response.writeHead(status ?? 200, { location: "/elsewhere" }).end();
  };
  const server = createServer((request, response) => void receive(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
  return {
    url,
    received,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
