/** Requests as no library would send them, on bare sockets: each gets an answer, and the server serves on. */

import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, vi } from "vitest";
import { closeWithin } from "../../src/server/leaving.ts";
import { expectProblem } from "./expect-problem.ts";
import { head, openRawClient, type RawAnswer } from "./raw-client.ts";
import { bearer, KEYS, post, rows, test, WITH_KEYS } from "./serving.ts";

const MIB = 1024 * 1024;
const JSON_TYPE = "Content-Type: application/json";
const NDJSON_TYPE = "Content-Type: application/x-ndjson";
const CHUNKED = "Transfer-Encoding: chunked";
const AUTHORIZED = `Authorization: ${bearer(KEYS.producer).authorization}`;

const problemIn = ({ status, headers, body }: RawAnswer, wanted: number) =>
  expectProblem({ statusCode: status, headers, body }, wanted);

const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;

describe("what isn't HTTP", () => {
  const cases: readonly (readonly [what: string, bytes: string, status: number])[] = [
    ["a greeting", "hello\r\n\r\n", 400],
    ["TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400],
    ["a method that is none", head("BREW /v1/predictions"), 400],
    ["another version", "GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", 400],
    ["a NUL in the URL", head("GET /v1/\0"), 400],
    ["a NUL in a header", head("GET /health", "X: a\0b"), 400],
    ["a header without a colon", head("GET /health", "nothing"), 400],
    ["a space in a header's name", head("GET /health", "X Y: 1"), 400],
    ["a length that is none", head("POST /v1/predictions", JSON_TYPE, "Content-Length: abc"), 400],
    ["a length below nothing", head("POST /v1/predictions", JSON_TYPE, "Content-Length: -1"), 400],
    ["two lengths", head("POST /v1/predictions", JSON_TYPE, "Content-Length: 2", "Content-Length: 3"), 400],
    ["a length beside chunks", head("POST /v1/predictions", JSON_TYPE, "Content-Length: 2", CHUNKED), 400],
    ["chunks that are none", `${head("POST /v1/predictions", JSON_TYPE, CHUNKED)}zz\r\n`, 400],
    ["rows in chunks that are none", `${head("POST /v1/batches", NDJSON_TYPE, CHUNKED)}${chunk(rows(1))}zz\r\n`, 400],
    ["a header of 32 kB", head("GET /health", `X: ${"a".repeat(32_000)}`), 431],
    ["5,000 headers", head("GET /health", ...Array.from({ length: 5_000 }, (_, n) => `X-${n}: 1`)), 431],
    ["a URL of 20 kB", head(`GET /v1/predictions?cursor=${"a".repeat(20_000)}`), 431],
  ];
  test.for(cases)("%s", async ([, bytes, status], { serve }) => {
    const port = await (await serve()).listen();
    using client = await openRawClient(port);
    await client.send(bytes);
    const [answer] = await client.answers(1);
    problemIn(answer as RawAnswer, status);
    expect(await client.ended()).toBe("in order");
    await expectServing(port);
  });
});

describe("HTTP that is unusual", () => {
  const cases: readonly (readonly [what: string, bytes: string, status: number])[] = [
    ["HTTP/1.0", "GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", 200],
    ["HTTP/1.0 without a Host", "GET /health HTTP/1.0\r\n\r\n", 421],
    ["a path upwards", head("GET /v1/../health"), 404],
    [
      "a path upwards in disguise",
      head("POST /v1/deployments/%2e%2e/c/predictions", JSON_TYPE, "Content-Length: 0"),
      422,
    ],
    ["a whole URL", head("GET http://localhost/health"), 200],
    ["no path", head("OPTIONS *"), 405],
    ["a method that nothing here knows", head("PROPFIND /v1/predictions"), 404],
    ["a wish for another protocol", head("GET /health", "Connection: Upgrade", "Upgrade: websocket"), 200],
    ["an expectation that is met", head("GET /health", "Expect: 100-continue"), 200],
  ];
  test.for(cases)("%s", async ([, bytes, status], { serve }) => {
    const port = await (await serve()).listen();
    using client = await openRawClient(port);
    await client.send(bytes);
    const [answer] = await client.answers(1);
    if (status < 400) expect(answer?.status).toBe(status);
    else problemIn(answer as RawAnswer, status);
    await expectServing(port);
  });

  test("what Node refuses by itself is refused shortly", async ({ serve }) => {
    const port = await (await serve()).listen();
    for (const [bytes, status] of [
      ["GET /health HTTP/1.1\r\n\r\n", 400],
      [head("GET /health", "Expect: the-unexpected"), 417],
    ] as const) {
      using client = await openRawClient(port);
      await client.send(bytes);
      expect((await client.answers(1)).map((answer) => answer.status)).toEqual([status]);
    }
    using tunnel = await openRawClient(port);
    await tunnel.send(head("CONNECT example.com:443"));
    await tunnel.ended();
    await expectServing(port);
  });

  test("requests in one piece are answered in their order", async ({ serve }) => {
    const port = await (await serve()).listen();
    using client = await openRawClient(port);
    const body = '{"version":"outlast/text","input":{}}';
    await client.send(
      head("GET /ready") +
        head("POST /v1/predictions", JSON_TYPE, `Content-Length: ${body.length}`) +
        body +
        head("GET /v1/nothing") +
        head("GET /health"),
    );
    expect((await client.answers(4)).map(({ status }) => status)).toEqual([200, 201, 404, 200]);
  });
});

test("what isn't HTTP in the middle of an answer breaks it off, and isn't answered into it", async ({ serve }) => {
  const { app, listen } = await serve();
  const id = await post(app, rows(3));
  using client = await openRawClient(await listen());
  await client.send(head(`GET /v1/batches/${id}/events`));
  await client.shows(/event: batch/);
  await client.send("hello\r\n\r\n");
  await client.ended();
  expect(client.received().match(/HTTP\/1\.1/g)).toHaveLength(1);
});

describe("slowness", () => {
  const timeouts = { headersMs: 200, idleMs: 200, totalMs: 400, paceMs: 400, restMs: 200 };
  const cases: readonly (readonly [what: string, begin: string, drip: string])[] = [
    ["nothing at all", "", ""],
    ["half a header", "GET /health HTTP/1.1\r\nHos", ""],
    ["headers that drip", "GET /health HTTP/1.1\r\n", "X: 1\r\n"],
    ["half a body", `${head("POST /v1/predictions", JSON_TYPE, "Content-Length: 100")}{"version"`, ""],
    ["a body that drips", `${head("POST /v1/predictions", JSON_TYPE, "Content-Length: 100000")}{"version"`, " "],
    ["a body in chunks that drips", head("POST /v1/predictions", JSON_TYPE, CHUNKED), chunk(" ")],
    ["rows that drip", `${head("POST /v1/batches", NDJSON_TYPE, CHUNKED)}${chunk(rows(10))}`, chunk(" ")],
    ["rows that stop", `${head("POST /v1/batches", NDJSON_TYPE, CHUNKED)}${chunk(rows(10))}`, ""],
  ];
  test.for(cases)("%s: 408, and the end", async ([, begin, drip], { serve }) => {
    const port = await (await serve({ timeouts })).listen();
    using client = await openRawClient(port);
    await client.send(begin);
    const dripping = setInterval(() => void client.send(drip), 50);
    const [answer] = await client.answers(1).finally(() => clearInterval(dripping));
    expect(problemIn(answer as RawAnswer, 408).detail).toMatch(/took too long to arrive/);
    expect(await client.ended()).toBe("in order");
    await expectServing(port);
  });

  test("rows needn't all have come by any time, as long as they come", async ({ serve }) => {
    const port = await (await serve({ timeouts: { ...timeouts, totalMs: 100, paceMs: 10_000 } })).listen();
    using client = await openRawClient(port);
    await client.send(head("POST /v1/batches", NDJSON_TYPE, CHUNKED));
    const lines = rows(10).split(/(?<=\n)/);
    await new Promise<void>((resolve) => {
      const dripping = setInterval(() => {
        void client.send(chunk(lines.shift() ?? ""));
        if (lines.length > 0) return;
        clearInterval(dripping);
        resolve();
      }, 60);
    });
    await client.send("0\r\n\r\n");
    const [answer] = await client.answers(1);
    expect([answer?.status, JSON.parse(answer?.body ?? "")]).toMatchObject([201, { items: 10 }]);
  });

  test("a body that nobody asked for harms no answer, and is waited for only so long", async ({ serve }) => {
    const { app, listen } = await serve({ timeouts });
    const id = await post(app, rows(3));
    const port = await listen();
    using client = await openRawClient(port);
    await client.send(head(`GET /v1/batches/${id}/events`, "Content-Length: 10"));
    await client.shows(/event: batch/);
    using other = await openRawClient(port);
    await other.send(head("GET /health", "Content-Length: 10"));
    expect((await other.answers(1)).map(({ status }) => status)).toEqual([200]);
    await other.ended();
    await app.inject({ method: "POST", url: `/v1/batches/${id}/pause` });
    await client.shows(/"paused":"paused by a person/);
  });
});

describe("a body that still comes when its answer has gone out", () => {
  const upload = (url: string, ...headers: readonly string[]) => head(`POST ${url}`, ...headers);
  const length = (bytes: number) => `Content-Length: ${bytes}`;
  const cases: readonly (readonly [what: string, head: string, first: string, status: number])[] = [
    ["without a key", upload("/v1/batches", NDJSON_TYPE, length(50 * MIB)), rows(1), 401],
    [
      "with a viewer's key",
      upload("/v1/batches", NDJSON_TYPE, `Authorization: Bearer ${KEYS.viewer}`, length(50 * MIB)),
      rows(1),
      403,
    ],
    ["too large", upload("/v1/predictions", JSON_TYPE, AUTHORIZED, length(50 * MIB)), "{", 413],
    ["of another type", upload("/v1/predictions", NDJSON_TYPE, AUTHORIZED, length(50 * MIB)), rows(1), 415],
    ["of JSON where rows are taken", upload("/v1/batches", JSON_TYPE, AUTHORIZED, length(50 * MIB)), "{", 415],
    [
      "of rows for no account",
      upload("/v1/batches?account=none", NDJSON_TYPE, AUTHORIZED, length(50 * MIB)),
      rows(1),
      422,
    ],
    ["for what isn't there", upload("/v1/nothing", NDJSON_TYPE, AUTHORIZED, length(50 * MIB)), rows(1), 404],
    [
      "of a hundred bad rows",
      upload("/v1/batches", NDJSON_TYPE, AUTHORIZED, length(50 * MIB)),
      "{}\n".repeat(100),
      422,
    ],
  ];
  test.for(cases)(
    "%s: who sends 50 MB first and reads then can read it, and go on",
    async ([, begin, first, status], { serve }) => {
      const port = await (await serve({ env: WITH_KEYS })).listen();
      using client = await openRawClient(port);
      await client.send(begin + first);
      const [early] = await client.answers(1);
      const piece = Buffer.alloc(MIB, "\n");
      for (let left = 50 * MIB - Buffer.byteLength(first); left > 0; left -= piece.length) {
        await client.send(piece.subarray(0, left));
      }
      await client.send(head("GET /health"));
      const [answer, next] = await client.answers(2);
      expect([answer, next?.status]).toEqual([early, 200]);
      problemIn(answer as RawAnswer, status);
    },
  );

  test("in chunks, too large: the same", async ({ serve }) => {
    const port = await (await serve()).listen();
    using client = await openRawClient(port);
    await client.send(head("POST /v1/predictions", JSON_TYPE, CHUNKED));
    for (let sent = 0; sent < 20; sent++) await client.send(chunk(" ".repeat(MIB)));
    await client.send(`0\r\n\r\n${head("GET /health")}`);
    const [answer, next] = await client.answers(2);
    problemIn(answer as RawAnswer, 413);
    expect(next?.status).toBe(200);
  });

  test("for ever: it is cut off", async ({ serve }) => {
    const port = await (await serve({ timeouts: { restMs: 200 } })).listen();
    using client = await openRawClient(port);
    await client.send(head("POST /v1/nothing", JSON_TYPE, length(1_000_000)));
    const dripping = setInterval(() => void client.send(" "), 20);
    const [answer] = await client.answers(1);
    problemIn(answer as RawAnswer, 404);
    await client.ended().finally(() => clearInterval(dripping));
  });
});

test("an upload that never ends doesn't keep a server from closing", async ({ serve }) => {
  const { app, listen } = await serve();
  using client = await openRawClient(await listen());
  await client.send(head("POST /v1/batches", NDJSON_TYPE, CHUNKED, "Expect: 100-continue"));
  await client.shows(/^HTTP\/1\.1 100 /);
  const dripping = setInterval(() => void client.send(chunk(rows(50))), 20);
  const cutting = vi.fn();
  await closeWithin(app, 300, cutting).finally(() => clearInterval(dripping));
  expect(cutting).toHaveBeenCalledOnce();
  await client.ended();
});

describe("an upload that breaks off", () => {
  for (const how of ["end", "reset"] as const) {
    test(`by ${how} submits nothing and leaves nothing behind`, async ({ serve }) => {
      const temporary = await mkdtemp(path.join(tmpdir(), "outlast-uploads-"));
      vi.stubEnv("TMPDIR", temporary);
      try {
        const { app, folder, listen } = await serve();
        const client = await openRawClient(await listen());
        await client.send(head("POST /v1/batches", NDJSON_TYPE, CHUNKED) + chunk(rows(5_000)));
        await expect.poll(() => readdir(temporary)).toHaveLength(1);
        client[how]();
        await expect.poll(() => readdir(temporary)).toEqual([]);
        expect((await app.inject("/v1/batches")).json()).toMatchObject({ results: [] });
        expect(await readdir(folder)).toEqual([".outlast-tmp"]);
      } finally {
        vi.unstubAllEnvs();
        await rm(temporary, { recursive: true });
      }
    });
  }
});

async function expectServing(port: number): Promise<void> {
  using client = await openRawClient(port);
  await client.send(head("GET /health"));
  expect((await client.answers(1)).map(({ status }) => status)).toEqual([200]);
}
