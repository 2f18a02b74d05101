/**
 * What is known after a request that went wrong, against servers that misbehave on real sockets; and that no layer
 * repeats a request that may spend money.
 */

import { once } from "node:events";
import type { Socket } from "node:net";
import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import type { Target } from "../../src/core/prediction.ts";
import { predictionId } from "../../src/core/prediction.ts";
import { Flight } from "../../src/providers/flight.ts";
import { ProviderAnswerError, ProviderError } from "../../src/providers/provider.ts";
import { createReplicate, type Replicate, type ReplicateSettings } from "../../src/providers/replicate.ts";
import { answer, closedPort, type Manners, startRawServer } from "./raw-server.ts";

const TOKEN = "r8_NeverToBeSeenAnywhere0123456789";
const TARGET: Target = { kind: "model", owner: "ada", name: "loom" };
const CREATE = "POST /v1/models/ada/loom/predictions";
const ACCOUNT = "GET /v1/account";
const PREDICTION = '{"id":"p1","status":"starting","output":null}';
const ID = predictionId("p1");

const never = () => new AbortController().signal;

function open(baseUrl: string, settings: Partial<ReplicateSettings> = {}): Replicate {
  return createReplicate({ baseUrl, token: TOKEN, ...settings });
}

/** What `action` throws; it must, and what it throws must not know the token. */
async function failureOf(action: Promise<unknown>): Promise<ProviderError> {
  const error = await action.then(
    (value) => new Error(`succeeded with ${inspect(value)}`),
    (thrown: unknown) => thrown,
  );
  expect(inspect(error, { depth: Infinity, showHidden: true, getters: true })).not.toContain(TOKEN);
  if (!(error instanceof ProviderError)) throw error;
  return error;
}

/** One create against a server with these manners; then a sentinel, to see whether anything came in between. */
async function createAgainst(
  manners: Manners,
  {
    settings = {},
    input = { prompt: "x" },
  }: { settings?: Partial<ReplicateSettings>; input?: Record<string, unknown> } = {},
): Promise<{ error: ProviderError; lines: readonly string[] }> {
  await using server = await startRawServer(manners);
  await using provider = open(server.baseUrl, settings);
  const error = await failureOf(provider.create({ target: TARGET, input }, never()));
  await provider.check(never());
  return { error, lines: [...server.lines] };
}

describe("a create whose connection fails before a byte is written was not sent:", () => {
  test("nobody listens", async () => {
    await using provider = open(`http://127.0.0.1:${await closedPort()}/v1`);
    expect(await failureOf(provider.create({ target: TARGET, input: {} }, never()))).toMatchObject({
      kind: "not-sent",
      status: null,
    });
  });

  test("the name leads nowhere", async () => {
    await using provider = open("http://nowhere.invalid/v1");
    expect(await failureOf(provider.create({ target: TARGET, input: {} }, never()))).toMatchObject({
      kind: "not-sent",
    });
  });

  test("the server hangs up in the TLS handshake", async () => {
    await using server = await startRawServer({
      onConnection: (socket) => socket.once("data", () => socket.destroy()),
    });
    await using provider = open(`https://127.0.0.1:${server.port}/v1`);
    expect(await failureOf(provider.create({ target: TARGET, input: {} }, never()))).toMatchObject({
      kind: "not-sent",
    });
    expect(server.connections).toHaveLength(1);
  });

  test("the server is silent in the TLS handshake until the deadline", async () => {
    await using server = await startRawServer({});
    await using provider = open(`https://127.0.0.1:${server.port}/v1`, { createDeadlineMs: 100 });
    const error = await failureOf(provider.create({ target: TARGET, input: {} }, never()));
    expect(error).toMatchObject({ kind: "not-sent", detail: "no whole answer within 100 ms" });
    await expect.poll(() => server.connections[0]?.destroyed ?? server.connections[0]?.readableEnded).toBe(true);
  });

  test("the caller aborts in the TLS handshake", async () => {
    await using server = await startRawServer({});
    await using provider = open(`https://127.0.0.1:${server.port}/v1`);
    const aborting = new AbortController();
    const failure = failureOf(provider.create({ target: TARGET, input: {} }, aborting.signal));
    await expect.poll(() => server.received().length).toBeGreaterThan(0);
    aborting.abort();
    expect(await failure).toMatchObject({ kind: "not-sent", detail: "aborted by the caller" });
  });

  test("the caller aborted before", async () => {
    await using server = await startRawServer({});
    await using provider = open(server.baseUrl);
    const error = await failureOf(provider.create({ target: TARGET, input: {} }, AbortSignal.abort()));
    expect(error).toMatchObject({ kind: "not-sent" });
    expect(server.connections).toHaveLength(0);
  });

  test("the provider was closed", async () => {
    await using server = await startRawServer({});
    const provider = open(server.baseUrl);
    await provider[Symbol.asyncDispose]();
    expect(await failureOf(provider.create({ target: TARGET, input: {} }, never()))).toMatchObject({
      kind: "not-sent",
    });
    expect(server.connections).toHaveLength(0);
  });
});

test("a connection reset at once is called not-sent only if the server received nothing", async () => {
  const { error, lines } = await createAgainst({
    onConnection: (() => {
      let isFirst = true;
      return (socket) => {
        if (isFirst) socket.resetAndDestroy();
        isFirst = false;
      };
    })(),
  });
  expect(["not-sent", "unknown"]).toContain(error.kind);
  expect(lines).toEqual([ACCOUNT]);
});

describe("a create whose bytes may have arrived is unknown, and reaches the server exactly once:", () => {
  const half = answer(201, PREDICTION).slice(0, -20);
  const cases: readonly (readonly [name: string, manners: Manners, status: number | null])[] = [
    ["closed after the first bytes", { onFirstBytes: (socket) => socket.destroy() }, null],
    ["reset after the first bytes", { onFirstBytes: (socket) => socket.resetAndDestroy() }, null],
    ["closed after the whole request", { onRequest: (socket) => socket.destroy() }, null],
    ["ended after the whole request", { onRequest: (socket) => socket.end() }, null],
    ["reset after the whole request", { onRequest: (socket) => socket.resetAndDestroy() }, null],
    ["half a head", { onRequest: (socket) => socket.end("HTTP/1.1 201 Created\r\ncontent-le") }, null],
    ["half a body, then closed", { onRequest: (socket) => socket.end(half) }, 201],
    ["half a body, then reset", { onRequest: (socket) => socket.write(half, () => socket.resetAndDestroy()) }, null],
    [
      "a chunked body without its end",
      { onRequest: (socket) => socket.end(`HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"id"\r\n`) },
      201,
    ],
    ["silence", { onRequest: () => {} }, null],
    ["half a body, then silence", { onRequest: (socket) => socket.write(half) }, 201],
    [
      "an answer after the deadline",
      { onRequest: (socket) => socket.once("end", () => socket.end(answer(201, PREDICTION))) },
      null,
    ],
    ["a body that drips", { onRequest: drip }, 201],
    ["words that aren't HTTP", { onRequest: (socket) => socket.end("220 mail.example ESMTP\r\n") }, null],
    [
      "100 Continue, unasked",
      { onRequest: (socket) => socket.write(`HTTP/1.1 100 Continue\r\n\r\n${answer(201, PREDICTION)}`) },
      null,
    ],
    [
      "an upgrade, unasked",
      { onRequest: (socket) => socket.write("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n") },
      null,
    ],
    ["wrong JSON", { onRequest: (socket) => socket.write(answer(201, '{"id":"p1",')) }, 201],
    ["JSON that is no prediction", { onRequest: (socket) => socket.write(answer(200, '{"ok":true}')) }, 200],
    [
      "an id that is none",
      { onRequest: (socket) => socket.write(answer(201, '{"id":"a/../b","status":"starting"}')) },
      201,
    ],
    [
      "a page in place of a prediction",
      { onRequest: (socket) => socket.write(answer(202, "<html><h1>Welcome</h1></html>")) },
      202,
    ],
    ["success without a body", { onRequest: (socket) => socket.write("HTTP/1.1 204 No Content\r\n\r\n") }, 204],
    ["a redirect", { onRequest: (socket) => socket.write(answer(301, "", ["location: /v1/elsewhere"])) }, 301],
  ];

  test.each(cases)("%s", async (_name, manners, status) => {
    const { error, lines } = await createAgainst(manners, { settings: { createDeadlineMs: 300 } });
    expect(error).toMatchObject({ kind: "unknown" });
    if (status !== null) expect(error.status).toBe(status);
    expect(lines).toEqual([CREATE, ACCOUNT]);
  });

  test("a body longer than allowed", async () => {
    const { error, lines } = await createAgainst({
      onRequest: (socket) => socket.write(answer(201, `"${"x".repeat(17 << 20)}"`)),
    });
    expect(error).toMatchObject({ kind: "unknown", status: 201, detail: "the answer is longer than 16777216 bytes" });
    expect(lines).toEqual([CREATE, ACCOUNT]);
  });

  test("closed while a long request is still being written", async () => {
    const { error, lines } = await createAgainst(
      { onFirstBytes: (socket) => socket.resetAndDestroy() },
      { input: { image: "x".repeat(20 << 20) } },
    );
    expect(error).toMatchObject({ kind: "unknown", status: null });
    expect(lines).toEqual([CREATE, ACCOUNT]);
  });

  test("the caller aborts after the server has it", async () => {
    const aborting = new AbortController();
    await using server = await startRawServer({ onRequest: () => aborting.abort() });
    await using provider = open(server.baseUrl);
    const error = await failureOf(provider.create({ target: TARGET, input: {} }, aborting.signal));
    expect(error).toMatchObject({ kind: "unknown", detail: "aborted by the caller" });
    await provider.check(never());
    expect(server.lines).toEqual([CREATE, ACCOUNT]);
  });
});

function drip(socket: Socket): void {
  socket.write(`HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\n`);
  const timer = setInterval(() => socket.write("{"), 5);
  socket.once("close", () => clearInterval(timer));
}

describe("the status decides:", () => {
  const problem = '{"title":"Nope","detail":"because"}';

  test.each([400, 401, 402, 403, 404, 413, 422, 429])("%i to a create is refused", async (status) => {
    const { error, lines } = await createAgainst({ onRequest: (socket) => socket.write(answer(status, problem)) });
    expect(error).toMatchObject({ kind: "refused", status, detail: "Nope: because" });
    expect(lines).toEqual([CREATE, ACCOUNT]);
  });

  test.each([303, 405, 408, 409, 410, 418, 425, 451, 499, 500, 502, 503, 504, 524, 599])(
    "%i to a create is unknown",
    async (status) => {
      const { error, lines } = await createAgainst({ onRequest: (socket) => socket.write(answer(status, problem)) });
      expect(error).toMatchObject({ kind: "unknown", status, detail: "Nope: because" });
      expect(lines).toEqual([CREATE, ACCOUNT]);
    },
  );

  test("a refusal stays one when its body is cut", async () => {
    const { error } = await createAgainst({ onRequest: (socket) => socket.end(answer(422, problem).slice(0, -5)) });
    expect(error).toMatchObject({ kind: "refused", status: 422 });
  });

  test("a refusal stays one when its body never ends", async () => {
    const manners: Manners = { onRequest: (socket) => socket.write(answer(402, problem).slice(0, -5)) };
    const { error } = await createAgainst(manners, { settings: { createDeadlineMs: 300 } });
    expect(error).toMatchObject({ kind: "refused", status: 402 });
  });

  test("429 carries the wait that the provider asked for, by the provider's own clock", async () => {
    const headers = ["retry-after: Wed, 21 Oct 2026 07:28:30 GMT", "date: Wed, 21 Oct 2026 07:28:00 GMT"];
    const { error } = await createAgainst({ onRequest: (socket) => socket.write(answer(429, problem, headers)) });
    expect(error).toMatchObject({ kind: "refused", status: 429, retryAfterMs: 30_000 });
  });

  test("429 with the wait in its body, as Replicate was seen to say it", async () => {
    const detail = "Request was throttled. Your rate limit resets in ~7s.";
    const body = JSON.stringify({ detail, status: 429, retry_after: 7 });
    const { error } = await createAgainst({ onRequest: (socket) => socket.write(answer(429, body)) });
    expect(error).toMatchObject({ retryAfterMs: 7_000, detail });
  });
});

describe("a create has a connection of its own:", () => {
  test("early hints before the answer are passed over", async () => {
    await using server = await startRawServer({
      onRequest: (socket) => socket.write(`HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n${answer(201, PREDICTION)}`),
    });
    await using provider = open(server.baseUrl);
    expect(await provider.create({ target: TARGET, input: {} }, never())).toMatchObject({ id: "p1" });
  });

  test("a server that keeps alive and then closes never meets a second create on that connection", async () => {
    await using server = await startRawServer({
      onRequest: (socket) => {
        socket.write(answer(201, PREDICTION, ["connection: keep-alive", "keep-alive: timeout=60"]));
        setImmediate(() => socket.resetAndDestroy());
      },
    });
    await using provider = open(server.baseUrl);
    for (let n = 0; n < 5; n++) await provider.create({ target: TARGET, input: { n } }, never());
    await provider.check(never());
    expect(server.connections).toHaveLength(6);
    expect(server.lines).toEqual([CREATE, CREATE, CREATE, CREATE, CREATE, ACCOUNT]);
    expect(server.heads[0]).toContain("connection: close");
  });

  test("its TLS hello offers HTTP/1.1 and not HTTP/2", async () => {
    await using server = await startRawServer({
      onConnection: (socket) => socket.once("data", () => socket.destroy()),
    });
    await using provider = open(`https://127.0.0.1:${server.port}/v1`);
    await failureOf(provider.create({ target: TARGET, input: {} }, never()));
    await failureOf(provider.get(ID, never()));
    expect(
      server
        .received()
        .toString("latin1")
        .match(/http\/1\.1/g),
    ).toHaveLength(2);
    expect(server.received().includes("\x02h2")).toBe(false);
  });

  test("many at once each arrive once", async () => {
    await using server = await startRawServer({
      onRequest: (socket, _head, body) => {
        const { n } = (JSON.parse(body) as { input: { n: number } }).input;
        if (n % 2 === 0) socket.resetAndDestroy();
        else socket.write(answer(201, PREDICTION));
      },
    });
    await using provider = open(server.baseUrl);
    const creates = Array.from({ length: 40 }, (_, n) => provider.create({ target: TARGET, input: { n } }, never()));
    const ends = await Promise.allSettled(creates);
    await provider.check(never());
    expect(ends.filter(({ status }) => status === "fulfilled")).toHaveLength(20);
    expect(server.lines).toHaveLength(41);
  });
});

describe("a read", () => {
  test("uses its connection again", async () => {
    await using server = await startRawServer({ onRequest: (socket) => socket.write(answer(200, PREDICTION)) });
    await using provider = open(server.baseUrl, { connections: 1 });
    for (let n = 0; n < 5; n++) await provider.get(ID, never());
    expect(server.connections).toHaveLength(1);
    expect(server.lines).toHaveLength(5);
  });

  test("waits for one of a bounded number of connections", async () => {
    await using server = await startRawServer({
      onRequest: (socket) => setImmediate(() => socket.write(answer(200, PREDICTION))),
    });
    await using provider = open(server.baseUrl, { connections: 2 });
    await Promise.all(Array.from({ length: 20 }, () => provider.get(ID, never())));
    expect(server.lines).toHaveLength(20);
    expect(server.connections.length).toBeLessThanOrEqual(2);
  });

  test("that got no connection before it was aborted never reaches the server", async () => {
    const waiting: Socket[] = [];
    await using server = await startRawServer({ onRequest: (socket) => waiting.push(socket) });
    await using provider = open(server.baseUrl, { connections: 1 });
    const first = provider.get(ID, never());
    await expect.poll(() => waiting).toHaveLength(1);
    const aborting = new AbortController();
    const second = failureOf(provider.get(predictionId("p2"), aborting.signal));
    aborting.abort();
    expect(await second).toMatchObject({ detail: "aborted by the caller" });
    waiting[0]?.write(answer(200, PREDICTION));
    await first;
    await provider.check(never());
    expect(server.lines).toEqual(["GET /v1/predictions/p1", ACCOUNT]);
  });

  test("on a connection that the server has closed meanwhile finds another, or says so", async () => {
    await using server = await startRawServer({ onRequest: (socket) => socket.write(answer(200, PREDICTION)) });
    await using provider = open(server.baseUrl);
    await provider.get(ID, never());
    const [idle] = server.connections;
    idle?.destroy();
    await once(idle ?? expect.unreachable("no connection"), "close");
    await provider.get(ID, never()).catch((error: unknown) => expect(error).toMatchObject({ kind: "unknown" }));
    expect(await provider.get(ID, never())).toMatchObject({ id: "p1" });
  });

  test("of a page that isn't JSON, or JSON that is no prediction, is loud and no transport trouble", async () => {
    const bodies = [
      "<html><body>Sign in to the hotel's network</body></html>",
      '{"id":7,"status":"starting"}',
      "[]",
      "",
    ];
    await using server = await startRawServer({
      onRequest: (socket) => socket.write(answer(200, bodies.shift() ?? "")),
    });
    await using provider = open(server.baseUrl);
    await expect(provider.get(ID, never())).rejects.toThrow(
      /answered 200, but not as documented.*Sign in to the hotel/,
    );
    await expect(provider.get(ID, never())).rejects.toThrow(/id: Invalid input/);
    await expect(provider.get(ID, never())).rejects.toBeInstanceOf(ProviderAnswerError);
    await expect(provider.get(ID, never())).rejects.toThrow(/an empty body/);
  });

  test("that is redirected goes nowhere", async () => {
    await using server = await startRawServer({
      onRequest: (socket) => socket.write(answer(302, "", ["location: /v1/account"])),
    });
    await using provider = open(server.baseUrl);
    expect(await failureOf(provider.get(ID, never()))).toMatchObject({ kind: "unknown", status: 302 });
    expect(server.lines).toEqual(["GET /v1/predictions/p1"]);
  });
});

// It holds the attempt's nonce.
describe("where a webhook is asked for", () => {
  const NONCE = "NonceThatNobodyIsToSee0123456789";
  const webhookUrl = `https://here.example/v1/webhooks/replicate/batch-0-1/${NONCE}`;
  const problem = (body: object) => (status: number) => answer(status, JSON.stringify(body));
  const cases: readonly (readonly [
    name: string,
    status: number,
    told: (sent: string) => (status: number) => string,
  ])[] = [
    ["a 422 that quotes it", 422, () => problem({ detail: `webhook: ${webhookUrl} isn't reachable` })],
    ["a 422 that quotes the whole request", 422, (sent) => problem({ detail: `can't take ${sent}` })],
    [
      "a 422 that quotes it at the edge of what is kept",
      422,
      () => problem({ detail: "x".repeat(1_920) + webhookUrl }),
    ],
    ["complaints about it", 422, () => problem({ detail: [{ loc: ["body", webhookUrl], msg: `no: ${webhookUrl}` }] })],
    ["an error whose code it is", 400, () => problem({ error: { code: webhookUrl, message: webhookUrl } })],
    [
      "an error that spells it otherwise",
      422,
      () => (status) => {
        const body = JSON.stringify({ detail: webhookUrl, error: { code: webhookUrl } });
        return answer(status, body.replaceAll("https:", String.raw`https\u003a`));
      },
    ],
    ["a refused token that quotes it", 401, () => problem({ title: webhookUrl, detail: webhookUrl })],
    ["a page that quotes it", 502, () => (status) => answer(status, `<p>${"y".repeat(120)} ${webhookUrl}</p>`)],
    ["a success that quotes it and nothing else", 201, (sent) => (status) => answer(status, sent)],
    [
      "a page that quotes it as JSON may be spelled",
      502,
      () => (status) => answer(status, `<p>${webhookUrl.replaceAll("/", String.raw`\/`)}</p>`),
    ],
  ];

  test.each(cases)("is in no error after %s", async (_name, status, told) => {
    let sent = "";
    await using server = await startRawServer({
      onRequest: (socket, _head, body) => {
        sent = body;
        socket.end(told(body)(status));
      },
    });
    await using provider = open(server.baseUrl);
    const error = await failureOf(provider.create({ target: TARGET, input: { prompt: "x" }, webhookUrl }, never()));
    expect(sent, "it was asked for").toContain(NONCE);
    expect(error.status).toBe(status);
    expect(deepText(error)).not.toContain(NONCE.slice(0, 12));
  });
});

describe("the token", () => {
  const echo = `bad token ${TOKEN} ${"x".repeat(1_975)}${TOKEN}`;
  const escaped = JSON.stringify({ detail: echo, error: { code: TOKEN } }).replaceAll("r8_", "r8\\u005f");
  const cases: readonly (readonly [name: string, manners: Manners])[] = [
    [
      "a problem that echoes it",
      { onRequest: (socket) => socket.write(answer(401, JSON.stringify({ detail: echo }))) },
    ],
    ["a problem that echoes it escaped", { onRequest: (socket) => socket.write(answer(500, escaped)) }],
    [
      "a page that echoes it",
      { onRequest: (socket) => socket.write(answer(502, `<p>${"y".repeat(180)} ${TOKEN}</p>`)) },
    ],
    ["a success that echoes it", { onRequest: (socket) => socket.write(answer(201, JSON.stringify({ echo }))) }],
    ["headers that echo it, in no HTTP", { onRequest: (socket, head) => socket.end(`HTTP/1.1 x\r\n${head}\r\n\r\n`) }],
    [
      "a body that echoes it, cut",
      { onRequest: (socket, head) => socket.end(answer(201, `${head}${head}`).slice(0, -9)) },
    ],
    ["a reset", { onRequest: (socket) => socket.resetAndDestroy() }],
    ["silence", { onRequest: () => {} }],
  ];

  test.each(cases)("is in no error after %s", async (_name, manners) => {
    const { error } = await createAgainst(manners, { settings: { createDeadlineMs: 100 } });
    expect(deepText(error)).not.toContain(TOKEN.slice(0, 12));
  });

  test("is in no error of a read, and not in what the provider shows of itself", async () => {
    await using server = await startRawServer({
      onRequest: (socket) => socket.write(answer(200, JSON.stringify({ echo }))),
    });
    await using provider = open(server.baseUrl);
    const error: unknown = await provider.get(ID, never()).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ProviderAnswerError);
    expect(deepText(error)).not.toContain(TOKEN.slice(0, 12));
    expect(deepText(provider)).not.toContain(TOKEN.slice(0, 12));
  });

  test("that can't be one is refused at once, unprinted", () => {
    const wrong = `${TOKEN}\nx-injected: yes`;
    const error = (() => {
      try {
        return createReplicate({ baseUrl: "https://api.example/v1", token: wrong });
      } catch (thrown) {
        return thrown;
      }
    })();
    expect(error).toBeInstanceOf(TypeError);
    expect(deepText(error)).not.toContain(TOKEN);
  });

  test.each(["ftp://host/v1", "host", "https://ada:secret@host/v1", "https://host/v1?key=1"])(
    "isn't taken for the base %s",
    (baseUrl) => {
      expect(() => open(baseUrl)).toThrow(TypeError);
    },
  );
});

function deepText(value: unknown): string {
  return inspect(value, { depth: Infinity, showHidden: true, getters: true, maxStringLength: Infinity });
}

describe("a flight", () => {
  test("whose request undici never announced counts as written", async () => {
    const flight = new Flight();
    await flight.run(async () => {});
    expect(flight.mayHaveBeenWritten).toBe(true);
  });

  test("isn't confused by others' requests", async () => {
    await using server = await startRawServer({ onRequest: (socket) => socket.write(answer(200, PREDICTION)) });
    await using provider = open(`http://127.0.0.1:${await closedPort()}/v1`);
    const failure = failureOf(provider.create({ target: TARGET, input: {} }, never()));
    const others = await Promise.all([fetch(`${server.baseUrl}/x`), fetch(`${server.baseUrl}/y`)]);
    expect(others.map(({ status }) => status)).toEqual([200, 200]);
    expect(await failure).toMatchObject({ kind: "not-sent" });
  });
});
