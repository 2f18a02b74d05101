/**
 * The one way to send a request to a provider: HTTP/1.1 by undici, a deadline on the whole of it, a cap on what is
 * read, no redirects, and every failure told as ProviderError (`provider.ts` says what its kinds mean).
 *
 * A request that may spend money has a connection of its own, made for it and thrown away after it; the connector
 * refuses to make a second one. So no layer can repeat it: undici 8.12.4 sends a request again only if the connection
 * dies with its own `UND_ERR_INFO` while others are pipelined behind, or over HTTP/2 after GOAWAY, and here there is
 * one request, one socket and no HTTP/2. Reads and cancels share a bounded pool of kept-alive connections. Nothing
 * here tries anything twice; whoever asked knows best whether and when.
 *
 * What happens on failure, in the order in which it is decided:
 *   aborted, closed or impossible before anything was made     not-sent
 *   the provider's status is known (even if its body was cut)  refused for the listed statuses, else unknown
 *   no status, no byte of the request written (`flight.ts`)    not-sent
 *   no status, else                                            unknown
 *   success, but not the expected answer                       unknown if it may have spent, else ProviderAnswerError
 *
 * The token is in the Authorization header of requests to the configured base, and nowhere else: errors are built
 * from cleaned words, never from undici's objects, and what a provider echoes is starred out.
 */

import { Socket } from "node:net";
import { buildConnector, Client, type Dispatcher, Pool } from "undici";
import { z } from "zod";
import { retryAfterMs } from "../core/retry-after.ts";
import { SECOND } from "../core/time.ts";
import { Flight } from "./flight.ts";
import { asJson, firstWords, readProblem } from "./problem.ts";
import { ProviderAnswerError, ProviderError, type ProviderErrorKind } from "./provider.ts";

export type HttpSettings = {
  /** `https://host/v1`; everything is asked below it. */
  readonly baseUrl: string;
  readonly token: string;
  /** Kept-alive connections for reads; default 16. Creates have their own, as many as are under way. */
  readonly connections?: number;
};

export type ProviderRequest = {
  /** For messages: "get prediction abc". Never holds a secret. */
  readonly what: string;
  readonly method: "GET" | "POST";
  /** Below the base, with its query: `/predictions/abc`. */
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** What of it must not be told, should the provider quote it. */
  readonly secret?: string;
  /** Whether the provider may charge for it: then nothing may ever send it twice. */
  readonly spends: boolean;
  /** From the call to the last byte of the answer. */
  readonly deadlineMs: number;
  /** Of the answer's body; default 16 MiB. */
  readonly longestAnswerBytes?: number;
};

export type Answer<T> = {
  readonly value: T;
  /** The provider's clock, from the `Date` header. */
  readonly serverDate: Date | null;
};

const SURELY_NOT_ACCEPTED: ReadonlySet<number> = new Set([400, 401, 402, 403, 404, 413, 422, 429]);

const CONNECT_TIMEOUT_MS = 10 * SECOND;
/** Shorter than what servers and balancers usually keep an idle connection, so that ours rarely dies in their hands. */
const KEEP_ALIVE_MS = 4 * SECOND;
const LONGEST_ANSWER_BYTES = 16 * 1024 * 1024;

/** A request whose body is text already. */
type Written = ProviderRequest & { readonly body: string | null };

/** What is known of the answer so far; filled in while it comes. */
type Arrived = { status?: number; headers?: Readonly<Record<string, string | string[] | undefined>>; text?: string };

export class ProviderHttp implements AsyncDisposable {
  readonly #base: URL;
  readonly #basePath: string;
  readonly #token: string;
  readonly #connect = buildConnector({ allowH2: false, timeout: CONNECT_TIMEOUT_MS });
  readonly #pool: Pool;

  /** Throws TypeError for a base or token that can't be used; its message doesn't hold the token. */
  constructor({ baseUrl, token, connections = 16 }: HttpSettings) {
    this.#base = readBase(baseUrl);
    this.#basePath = this.#base.pathname.replace(/\/+$/, "");
    if (!/^[\x21-\x7e]+$/.test(token)) throw new TypeError("a provider's token must be visible ASCII without spaces");
    this.#token = token;
    this.#pool = new Pool(this.#base.origin, {
      connections,
      connect: this.#connect,
      allowH2: false,
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
    });
  }

  /** Sends one request and reads its answer by `schema`. Throws ProviderError or ProviderAnswerError, nothing else. */
  async send<T>(request: ProviderRequest, schema: z.ZodType<T>, signal: AbortSignal): Promise<Answer<T>> {
    if (signal.aborted) throw this.#unsent(request, "aborted before it began");
    if (this.#pool.closed || this.#pool.destroyed) throw this.#unsent(request, "the connections are closed");
    const body = this.#bodyOf(request);

    const arrived: Arrived = {};
    const flight = new Flight();
    try {
      await this.#exchange({ ...request, body }, flight, arrived, signal);
    } catch (error) {
      throw this.#failure(request, flight, arrived, error);
    }
    if (arrived.status === undefined || arrived.status < 200 || arrived.status > 299) {
      throw this.#failure(request, flight, arrived, undefined);
    }
    const serverDate = dateOf(arrived);
    const parsed = schema.safeParse(asJson(arrived.text ?? ""));
    if (parsed.success) return { value: parsed.data, serverDate };
    throw this.#unreadable(request, arrived.status, arrived.text ?? "", parsed.error);
  }

  /**
   * The path below the base of a link that the provider gave, or null if it leads elsewhere: another host, scheme or
   * port, or out of the base. The link itself is never requested, so the token can't follow it.
   */
  pathOfLink(link: string): string | null {
    const url = URL.parse(link);
    if (url === null || url.origin !== this.#base.origin || url.username !== "" || url.password !== "") return null;
    if (!url.pathname.startsWith(`${this.#basePath}/`)) return null;
    return url.pathname.slice(this.#basePath.length) + url.search;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.destroy();
  }

  /** Fills `arrived`; returns when the whole answer is in it, throws a reason of any kind if that doesn't happen. */
  async #exchange(request: Written, flight: Flight, arrived: Arrived, signal: AbortSignal): Promise<void> {
    const own = request.spends ? this.#ownConnection() : undefined;
    const stopping = new AbortController();
    const stopped = Promise.withResolvers<never>();
    // One synchronous run: undici marks the request as aborted, so if it wasn't written by now, it never will be.
    const stop = (reason: string) => {
      const error = new Stopped(reason);
      stopped.reject(error);
      stopping.abort(error);
    };
    const onAbort = () => stop("aborted by the caller");
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => stop(`no whole answer within ${request.deadlineMs} ms`), request.deadlineMs);
    try {
      const answered = flight.run(() => this.#roundTrip(own?.client ?? this.#pool, request, arrived, stopping.signal));
      await Promise.race([answered, stopped.promise]);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      own?.destroy();
    }
  }

  async #roundTrip(over: Dispatcher, request: Written, arrived: Arrived, signal: AbortSignal): Promise<void> {
    const { statusCode, headers, body } = await over.request({
      origin: this.#base.origin,
      path: this.#basePath + request.path,
      method: request.method,
      headers: {
        authorization: `Bearer ${this.#token}`,
        accept: "application/json",
        "user-agent": "outlast",
        ...(request.body === null ? {} : { "content-type": "application/json" }),
        ...request.headers,
      },
      body: request.body,
      signal,
      headersTimeout: 0, // the deadline covers both, by one timer that the tests can rely on
      bodyTimeout: 0,
    });
    arrived.status = statusCode;
    arrived.headers = headers;

    const limit = request.longestAnswerBytes ?? LONGEST_ANSWER_BYTES;
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      if (bytes > limit) throw new Stopped(`the answer is longer than ${limit} bytes`); // leaving the loop destroys the body
      chunks.push(chunk);
    }
    arrived.text = Buffer.concat(chunks).toString("utf8");
  }

  /** A client for one request: one connection, closed after it (`pipelining: 0`), never made a second time. */
  #ownConnection(): { readonly client: Client; readonly destroy: () => void } {
    let socket: unknown = null;
    const client = new Client(this.#base.origin, {
      allowH2: false,
      pipelining: 0,
      connect: (options, done) => {
        if (socket !== null) {
          done(new Stopped("the connection was lost before the request could be written"), null);
          return;
        }
        socket = this.#connect(options, done);
      },
    });
    const destroy = () => {
      void client.destroy();
      if (socket instanceof Socket) socket.destroy(); // also one that is still connecting, which the client doesn't know
    };
    return { client, destroy };
  }

  #bodyOf({ what, body }: ProviderRequest): string | null {
    try {
      return body === undefined ? null : JSON.stringify(body);
    } catch (error) {
      const detail = `its input isn't JSON: ${this.#clean(error).message}`;
      throw new ProviderError(`could not ${what}: ${detail}; nothing was sent`, { kind: "refused", detail });
    }
  }

  #unsent({ what }: ProviderRequest, reason: string): ProviderError {
    return new ProviderError(`could not ${what}: ${reason}; nothing was sent`, { kind: "not-sent", detail: reason });
  }

  #failure(request: ProviderRequest, flight: Flight, arrived: Arrived, error: unknown): ProviderError {
    const { status } = arrived;
    const tried = `could not ${request.what} at ${this.#base.origin}`;
    const cause = error === undefined ? undefined : this.#clean(error);
    if (status === undefined) {
      const kind = flight.mayHaveBeenWritten ? "unknown" : "not-sent";
      const detail = cause?.message ?? "no answer";
      return new ProviderError(`${tried}: ${detail}; ${consequence(kind, request)}`, { kind, detail, cause });
    }
    const problem = readProblem(this.#starred(arrived.text ?? "", request));
    const kind = SURELY_NOT_ACCEPTED.has(status) ? "refused" : "unknown";
    const detail = this.#starred(problem.detail, request) || cause?.message || `HTTP ${status} without a word`;
    const nowMs = dateOf(arrived)?.getTime() ?? Date.now();
    return new ProviderError(`${tried}: answered ${status}, ${detail}; ${consequence(kind, request)}`, {
      kind,
      status,
      detail,
      code: problem.code === null ? null : this.#starred(problem.code, request),
      retryAfterMs: retryAfterMs(
        { header: headerOf(arrived, "retry-after"), seconds: problem.retryAfterSeconds, detail: problem.detail },
        nowMs,
      ),
      cause,
    });
  }

  #unreadable(request: ProviderRequest, status: number, text: string, error: z.ZodError): Error {
    const faults = error.issues.slice(0, 3).map(({ path, message }) => `${path.join(".") || "answer"}: ${message}`);
    const words = firstWords(this.#starred(text.slice(0, 20_000), request)) || "an empty body";
    const message = this.#starred(
      `could not ${request.what} at ${this.#base.origin}: answered ${status}, but not as documented ` +
        `(${faults.join("; ")}), beginning with: ${words}`,
    );
    if (!request.spends) return new ProviderAnswerError(message, { status });
    const consequences = `${message}; ${consequence("unknown", request)}`;
    return new ProviderError(consequences, { kind: "unknown", status, detail: `unreadable answer: ${words}` });
  }

  /**
   * A failure of the transport in words. undici's own objects stay here: theirs hold sockets, and pieces of the answer.
   */
  #clean(error: unknown): Error {
    const inner = error instanceof AggregateError && error.errors.length > 0 ? error.errors : [error];
    const words = inner.map((one: unknown) => {
      if (!(one instanceof Error)) return String(one);
      const code = "code" in one && typeof one.code === "string" ? one.code : "";
      return code === "" || one.message.includes(code) ? one.message : `${code}: ${one.message}`;
    });
    const cause = new Error(this.#starred(words.join("; ")));
    cause.name = "TransportError";
    return cause;
  }

  #starred(text: string, { secret }: Pick<ProviderRequest, "secret"> = {}): string {
    const starred = text.replaceAll(this.#token, "***");
    if (secret === undefined) return starred;
    // As it is, and as JSON may spell it.
    return starred.replaceAll(secret, "***").replaceAll(secret.replaceAll("/", "\\/"), "***");
  }
}

/** Our own reason for giving up, as against the network's. */
class Stopped extends Error {}

function consequence(kind: ProviderErrorKind, { spends }: ProviderRequest): string {
  switch (kind) {
    case "not-sent":
      return "nothing was sent";
    case "refused":
      return spends ? "nothing was accepted" : "it was refused";
    case "unknown":
      return spends
        ? "IT MAY HAVE BEEN ACCEPTED and may cost: look for it before it is sent again"
        : "it may be repeated";
    default:
      return kind satisfies never;
  }
}

function readBase(baseUrl: string): URL {
  const url = URL.parse(baseUrl);
  if (url === null || (url.protocol !== "https:" && url.protocol !== "http:")) {
    throw new TypeError("a provider's base URL must begin with https:// or http://");
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new TypeError(`a provider's base URL holds no user, query or fragment: ${url.origin}${url.pathname}`);
  }
  return url;
}

function headerOf({ headers }: Arrived, name: string): string | null {
  const value = headers?.[name];
  return (Array.isArray(value) ? value[0] : value) ?? null;
}

function dateOf(arrived: Arrived): Date | null {
  const date = new Date(headerOf(arrived, "date") ?? NaN);
  return Number.isNaN(date.getTime()) ? null : date;
}
