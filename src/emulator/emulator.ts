/**
 * An emulator of hosted predictions: Replicate's HTTP API and CometAPI's Replicate route on one port, the host of
 * output files on another. Real sockets, real files, limits that are enforced, faults on demand, and books that say
 * what was asked, made and billed. It is written from the providers' documentation and shares no code with our clients
 * of them; where the documentation is silent, the comments say what was chosen.
 *
 * This file puts it together; `serve.ts` shows the way of a request, `predictions.ts` the life of a prediction.
 */

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type Account, openAccount } from "./accounts.ts";
import { replicateRoute } from "./api.ts";
import { type Audit, Books, type FileRow, type PredictionRow } from "./books.ts";
import type { InputRow } from "./books-by-input.ts";
import { Buying, type ForeignOrder } from "./buying.ts";
import { cometRoute } from "./comet.ts";
import { type Fault, type FaultOrder, Faults } from "./faults.ts";
import { filePath, fileRoute } from "./file-host.ts";
import { type EmulatorOptions, type Settings, settle } from "./options.ts";
import { ownRoute } from "./own-routes.ts";
import type { Links } from "./prediction.ts";
import { Predictions } from "./predictions.ts";
import { type Call, type Exchange, serve } from "./serve.ts";
import { StrayTokens } from "./stray-tokens.ts";
import { Webhooks } from "./webhooks.ts";

/** Longer than any client keeps an idle connection, so that it is never we who cut one that is about to be used. */
const KEEP_ALIVE_MS = 75_000;

export interface Emulator extends AsyncDisposable {
  /** Base of Replicate's API. */
  readonly apiUrl: string;
  /** Base of CometAPI's Replicate route. */
  readonly cometUrl: string;
  /** Origin of the output files. */
  readonly filesUrl: string;
  /** Replays all chance, if given as an option. */
  readonly seed: string;
  books(): Audit;
  predictionRows(): Iterable<PredictionRow>;
  fileRows(): Iterable<FileRow>;
  inputRows(): Iterable<InputRow>;
  /** The same as POST, GET and DELETE /__faults. */
  arm(order: FaultOrder): Fault;
  armed(): ReturnType<Faults["report"]>;
  disarm(): void;
  /** The same as POST /__foreign: somebody else buys predictions on the account. Answers their ids. */
  buyForeign(order: ForeignOrder): readonly string[];
  close(): Promise<void>;
}

export async function startEmulator(options: EmulatorOptions = {}): Promise<Emulator> {
  const settings = settle(options);
  const { seed, webhookSecret, retryAfterHeader } = settings;
  const addresses = { apiUrl: "", cometUrl: "", filesUrl: "" }; // filled in below, before the first request
  const links: Links = {
    get apiUrl() {
      return addresses.apiUrl;
    },
    fileUrl: ({ id }, index, name) => addresses.filesUrl + filePath(seed, id, index, name),
  };

  const faults = new Faults(seed);
  const strays = new StrayTokens([...settings.tokens, ...settings.cometKeys]);
  const books = new Books(settings, strays, () => predictions.all());
  const webhooks = new Webhooks(settings, links, books, faults);
  const predictions = new Predictions(settings, (prediction, event) => webhooks.tell(prediction, event));

  const closing = new AbortController();
  const service = { faults, books, closing: closing.signal };
  const accounts = {
    replicate: openAccounts("replicate", settings.tokens, settings),
    comet: openAccounts("comet", settings.cometKeys, settings),
  };
  const buying = new Buying(settings, predictions, books, [...accounts.replicate.values(), ...accounts.comet.values()]);
  const shared = { predictions, buying, strays, links, webhookSecret, retryAfterHeader, seed, list: settings.list };
  const api = { ...shared, accounts: accounts.replicate };
  const comet = { ...shared, accounts: accounts.comet };
  const own = { books, faults, buying, seed, addresses };
  const files = fileRoute({ seed, predictions, books, strays });

  const findExchange = (call: Call): Exchange => {
    strays.search("url", call.url.href);
    const [first, second, ...rest] = call.path;
    if (first === "replicate" && second === "v1") return cometRoute(call.method, rest, comet);
    if (first === "v1") return replicateRoute(call.method, call.path.slice(1), api);
    return ownRoute(call.method, call.url.pathname, own) ?? replicateRoute(call.method, call.path, api);
  };

  await using opened = new AsyncDisposableStack();
  opened.defer(() => webhooks.close());
  opened.defer(() => predictions.close());
  addresses.filesUrl = await open(settings.filesPort, settings, opened, (request, response) =>
    serve(request, response, () => files, service),
  );
  const origin = await open(settings.port, settings, opened, (request, response) =>
    serve(request, response, findExchange, service),
  );
  addresses.apiUrl = `${origin}/v1`;
  addresses.cometUrl = `${origin}/replicate/v1`;
  opened.defer(() => closing.abort());

  const running = opened.move();
  return {
    ...addresses,
    seed,
    books: () => books.audit(),
    predictionRows: () => books.predictionRows(),
    fileRows: () => books.fileRows(),
    inputRows: () => books.inputRows(),
    arm: (order) => faults.arm(order),
    armed: () => faults.report(),
    disarm: () => faults.disarm(),
    buyForeign: (order) => buying.buyForeign(order).map(({ id }) => id),
    close: () => running.disposeAsync(),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

function openAccounts(
  provider: Account["provider"],
  tokens: readonly string[],
  settings: Settings,
): ReadonlyMap<string, Account> {
  const limits = {
    creates: { perMinute: settings.createsPerMinute, burst: settings.burst },
    reads: { perMinute: settings.readsPerMinute, burst: settings.readBurst },
  };
  return new Map(tokens.map((token) => [token, openAccount(provider, token, limits)]));
}

/** Listens, and answers the origin by which others reach it. */
async function open(
  port: number,
  { host, publicHost }: Settings,
  opened: AsyncDisposableStack,
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<string> {
  const server = createServer(
    { keepAliveTimeout: KEEP_ALIVE_MS },
    (request, response) => void answer(request, response),
  );
  server.listen(port, host);
  await once(server, "listening");
  opened.defer(async () => {
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  });
  const { port: bound } = server.address() as AddressInfo;
  return `http://${publicHost.includes(":") ? `[${publicHost}]` : publicHost}:${bound}`;
}
