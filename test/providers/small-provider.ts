/**
 * A provider of the tests' own, with Replicate's routes on a real port: small, well-behaved, and with books.
 *
 * It is written from the providers' pages, as the client is, but by its own schema, so that the two don't share
 * mistakes. A prediction runs for two reads and then succeeds. A page of the list holds three.
 */

import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";

export type SmallProvider = AsyncDisposable & {
  readonly baseUrl: string;
  readonly token: string;
  /** Each create that was accepted, as it arrived. */
  readonly books: readonly Booked[];
  /** Each request, whatever became of it. */
  readonly requests: readonly { readonly line: string; readonly headers: IncomingMessage["headers"] }[];
  /** Answers every next request with this instead; null ends that. */
  answerWith(answer: { readonly status: number; readonly body: unknown } | null): void;
};

type Booked = {
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: { readonly input: unknown; readonly [key: string]: unknown };
};

type Held = { id: string; status: string; output: unknown; input: unknown; created_at: string; reads: number };

const PAGE = 3;

export async function startSmallProvider(prefix = "/v1"): Promise<SmallProvider> {
  const token = "r8_small";
  const books: Booked[] = [];
  const requests: { line: string; headers: IncomingMessage["headers"] }[] = [];
  const held: Held[] = [];
  let instead: { status: number; body: unknown } | null = null;

  const server = createServer((request, response) => {
    const say = (status: number, body: unknown) => {
      response.writeHead(status, { "content-type": status < 400 ? "application/json" : "application/problem+json" });
      response.end(JSON.stringify(body));
    };
    let text = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => {
      text += chunk;
    });
    request.on("end", () => {
      const url = new URL(request.url ?? "/", baseUrl);
      requests.push({ line: `${request.method} ${request.url}`, headers: request.headers });
      if (instead !== null) return say(instead.status, instead.body);
      if (request.headers.authorization !== `Bearer ${token}`) {
        return say(401, { title: "Unauthenticated", detail: "You did not pass a valid token", status: 401 });
      }
      if (!url.pathname.startsWith(`${prefix}/`)) return say(301, {});
      const path = url.pathname.slice(prefix.length);
      const [, id = "", verb] = /^\/predictions\/(\w+)(?:\/(cancel))?$/.exec(path) ?? [];

      if (request.method === "POST" && /^(?:\/(?:models|deployments)\/[^/]+\/[^/]+)?\/predictions$/.test(path)) {
        const body = JSON.parse(text) as Booked["body"];
        const createdAt = new Date(Date.UTC(2025, 10, 21, 12, 0, held.length)).toISOString();
        const prediction = {
          id: `p${held.length}`,
          status: "starting",
          output: null,
          input: body.input,
          created_at: createdAt,
          reads: 0,
        };
        held.push(prediction);
        books.push({ path, headers: request.headers, body });
        return say(201, shown(prediction));
      }
      const found = held.find((prediction) => prediction.id === id);
      if (found !== undefined && verb === "cancel") {
        if (found.status !== "succeeded") found.status = "canceled";
        return say(200, shown(found));
      }
      if (found !== undefined) {
        found.reads++;
        if (found.status === "starting") found.status = "processing";
        else if (found.status === "processing")
          Object.assign(found, { status: "succeeded", output: ["https://files.example/1.png"] });
        return say(200, shown(found));
      }
      if (path === "/webhooks/default/secret") return say(200, { key: "whsec_c21hbGwgcHJvdmlkZXIncyBzZWNyZXQ=" });
      if (path === "/account") return say(200, { type: "organization", username: "acme", name: "Acme Corp" });
      if (path === "/predictions") {
        const after = url.searchParams.get("created_after") ?? "";
        const before = url.searchParams.get("created_before") ?? "~";
        const skip = Number(url.searchParams.get("cursor") ?? 0);
        const all = held.filter(({ created_at: at }) => at >= after && at < before).toReversed();
        const next = new URL(url);
        next.searchParams.set("cursor", String(skip + PAGE));
        return say(200, {
          previous: null,
          next: skip + PAGE < all.length ? next.href : null,
          results: all.slice(skip, skip + PAGE).map(shown),
        });
      }
      return say(404, { detail: "The requested resource could not be found.", status: 404 });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const baseUrl = `http://127.0.0.1:${address.port}${prefix}`;

  return {
    baseUrl,
    token,
    books,
    requests,
    answerWith(answer) {
      instead = answer;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

function shown({ reads, ...prediction }: Held): object {
  const elsewhere = `https://api.elsewhere.example/v1/predictions/${prediction.id}`;
  return {
    ...prediction,
    model: "ada/loom",
    version: "hidden",
    error: null,
    logs: `read ${reads} times`,
    data_removed: false,
    metrics: prediction.status === "succeeded" ? { predict_time: 1.25 } : {},
    urls: { get: elsewhere, cancel: `${elsewhere}/cancel` },
  };
}
