/** A client's receiver of webhooks on loopback: keeps what it was told, in order, and answers as it is told to. */

import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { validateWebhook } from "replicate";
import type { PredictionView } from "../../src/core/prediction-view.ts";

export type ReceivedCall = {
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
};

export type Receiver = AsyncDisposable & {
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** `127.0.0.1:PORT`: what `OUTLAST_WEBHOOK_HOSTS` must name for it to be called. */
  readonly host: string;
  readonly calls: ReceivedCall[];
};

export type Answer = (response: http.ServerResponse, call: ReceivedCall) => void;

/** Answers by these statuses in turn, by the last one for ever; or however a function does. */
export async function openReceiver(...answers: readonly (number | Answer)[]): Promise<Receiver> {
  const calls: ReceivedCall[] = [];
  const left = [...answers];
  async function receive(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = "", url = "", headers } = request;
    const call = { method, path: url, headers, body: await text(request) };
    calls.push(call);
    const answer = (left.length > 1 ? left.shift() : left[0]) ?? 200;
    if (typeof answer === "function") answer(response, call);
    else response.writeHead(answer, { location: "/elsewhere" }).end("an answer that nobody reads");
  }
  const server = http.createServer((request, response) => {
    receive(request, response).catch(() => response.destroy()); // a caller that hangs up is part of many tests
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    url: `http://${host}`,
    host,
    calls,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** Whether the official client takes the call for one that was signed with this secret (`whsec_…`). */
export async function isValid({ headers, body }: Pick<ReceivedCall, "headers" | "body">, secret: string) {
  return validateWebhook({
    id: idOf({ headers }),
    timestamp: String(headers["webhook-timestamp"]),
    signature: String(headers["webhook-signature"]),
    body,
    secret,
  });
}

export function idOf({ headers }: Pick<ReceivedCall, "headers">): string {
  return String(headers["webhook-id"]);
}

export function predictionIn({ body }: Pick<ReceivedCall, "body">): PredictionView {
  return JSON.parse(body) as PredictionView;
}
