/** The server apart from its dashboard: health, errors, and who may reach it. */

import { once } from "node:events";
import { createServer } from "node:net";
import { describe, expect } from "vitest";
import { ListenError, listen, requireLoopback } from "../../src/server/server.ts";
import { test } from "../dashboard/board-app.ts";

describe("health", () => {
  test("it is alive, and ready while Redis and bucket answer", async ({ app }) => {
    expect((await app.inject("/health")).json()).toMatchObject({ status: "alive" });
    const ready = await app.inject("/ready");
    expect([ready.statusCode, ready.json()]).toEqual([200, { status: "ready" }]);
  });

  test("without Redis it is alive, and says why it isn't ready", async ({ app, services }) => {
    services.redis.disconnect();
    expect((await app.inject("/health")).statusCode).toBe(200);
    const answer = await app.inject("/ready");
    expect([answer.statusCode, answer.headers["content-type"]]).toEqual([503, "application/problem+json"]);
    expect(answer.json()).toEqual({
      status: 503,
      title: "Service Unavailable",
      detail: expect.stringMatching(/^Redis: /),
    });
  });
});

describe("answers", () => {
  test("the root leads to the queues", async ({ app }) => {
    const { statusCode, headers } = await app.inject("/");
    expect([statusCode, headers.location]).toEqual([302, "/queues"]);
  });

  test("what isn't there is a problem, told without the query", async ({ app }) => {
    const answer = await app.inject("/v1/predictions?token=r8_secret");
    expect([answer.statusCode, answer.headers["content-type"]]).toEqual([404, "application/problem+json"]);
    expect(answer.json()).toEqual({
      title: "Not Found",
      status: 404,
      detail: "there is nothing at GET /v1/predictions",
    });
  });

  test("a page elsewhere can't read it under a name of its own", async ({ app }) => {
    for (const [host, status] of [
      ["evil.example", 421],
      ["127.0.0.1.evil.example", 421],
      ["10.0.0.1:7700", 421],
      ["localhost:7700", 200],
      ["127.0.0.1:7700", 200],
      ["[::1]:7700", 200],
    ] as const) {
      const { statusCode } = await app.inject({ url: "/health", headers: { host } });
      expect([host, statusCode]).toEqual([host, status]);
    }
  });
});

describe("listening", () => {
  test("only loopback will do", () => {
    for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
      expect(() => requireLoopback(host)).not.toThrow();
    for (const host of ["0.0.0.0", "::", "192.168.1.4", "example.com", ""]) {
      expect(() => requireLoopback(host)).toThrow(ListenError);
    }
  });

  test("a port in use is one line that says what to do", async ({ app }) => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const { port } = other.address() as { port: number };
    await expect(listen(app, "127.0.0.1", port)).rejects.toThrow(
      `port ${port} on 127.0.0.1 is in use: end what listens there, or set OUTLAST_PORT to another`,
    );
    other.close();
  });
});
