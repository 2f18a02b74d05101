/** The server around its routes: health, what isn't there, who may reach it and where it listens. */

import { once } from "node:events";
import { createServer } from "node:net";
import type { InjectOptions } from "fastify";
import { pino } from "pino";
import { describe, expect, vi } from "vitest";
import { BucketError } from "../../src/bucket/bucket.ts";
import { openS3Bucket } from "../../src/bucket/s3-bucket.ts";
import { readConfig } from "../../src/config.ts";
import { ListenError } from "../../src/server/listen-error.ts";
import { listen, requireKeysBeyondLoopback } from "../../src/server/server.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { outlast } from "../cli/outlast.ts";
import { startS3Server } from "../support/s3-server.ts";
import { expectProblem } from "./expect-problem.ts";
import { bucketWith, KEYS, test, WITH_KEYS } from "./serving.ts";

describe("health", () => {
  test("it is alive, and ready while Redis and bucket answer", async ({ serve }) => {
    const { app } = await serve();
    expect((await app.inject("/health")).json()).toMatchObject({ status: "alive" });
    const ready = await app.inject("/ready");
    expect([ready.statusCode, ready.json()]).toEqual([200, { status: "ready" }]);
  });

  test("nobody needs a key to ask, and nobody is told more than that", async ({ serve }) => {
    const { app, folder } = await serve({ env: WITH_KEYS });
    for (const url of ["/health", "/ready"]) {
      const answer = await app.inject(url);
      expect(answer.statusCode).toBe(200);
      expect(answer.body).not.toContain(folder);
    }
  });

  test("what isn't there is named with a code, and why stands in the log alone", async ({ serve }) => {
    const lines: string[] = [];
    const log = pino({ level: "warn" }, { write: (line) => lines.push(line) });
    const getRange = () => Promise.reject(new BucketError("denied", "no way into /srv/outputs"));
    const over = ({ bucket }: CommandServices) => ({ bucket: bucketWith(bucket, { getRange }) });
    const { app, services } = await serve({ log, over });
    vi.spyOn(services.redis, "ping").mockRejectedValue(new Error("connect ECONNREFUSED 10.1.2.3:6379"));
    expect(expectProblem(await app.inject("/ready"), 503).detail).toBe(
      "Redis can't be used at the moment (unreachable); the bucket can't be used at the moment (denied)",
    );
    expect(lines).toHaveLength(2);
    expect(lines.join("")).toMatch(/ECONNREFUSED 10\.1\.2\.3/);
    expect(lines.join("")).toContain("no way into /srv/outputs");
  });

  test("it isn't ready where the S3 bucket was deleted", async ({ serve }) => {
    const s3 = await startS3Server();
    try {
      const bucket = await openS3Bucket({ ...s3.settings, bucket: "deleted" });
      const { app } = await serve({ over: () => ({ bucket }) });
      expect(expectProblem(await app.inject("/ready"), 503).detail).toBe(
        "the bucket can't be used at the moment (missing-bucket)",
      );
      await bucket.close();
    } finally {
      await s3.stop();
    }
  });
});

describe("answers", () => {
  test("the root leads to the batches", async ({ serve }) => {
    const { app } = await serve();
    const { statusCode, headers } = await app.inject("/");
    expect([statusCode, headers.location]).toEqual([302, "/batches"]);
  });

  test("what isn't there is a problem, told without the query", async ({ serve }) => {
    const { app } = await serve();
    const problem = expectProblem(await app.inject("/v1/nothing?token=r8_secret"), 404);
    expect(problem).toEqual({ title: "Not Found", status: 404, detail: "there is nothing at GET /v1/nothing" });
  });
});

describe("methods", () => {
  const cases: readonly (readonly [method: NonNullable<InjectOptions["method"]>, url: string, allowed: string])[] = [
    ["PUT", "/", "GET, HEAD"],
    ["PUT", "/health", "GET, HEAD"],
    ["POST", "/ready", "GET, HEAD"],
    ["DELETE", "/metrics", "GET, HEAD"],
    ["OPTIONS", "/batches", "GET, HEAD"],
    ["PATCH", `/batches/${"0".repeat(20)}`, "GET, HEAD"],
    ["HEAD", "/batches/live", "GET"],
    ["GET", `/batches/${"0".repeat(20)}/pause`, "POST"],
    ["GET", `/items/${"0".repeat(26)}/cancel`, "POST"],
    ["POST", "/jobs/1", "GET, HEAD"],
    ["POST", "/assets/page.css", "GET, HEAD"],
    ["POST", "/queues", "GET, HEAD"],
    ["PUT", "/v1/docs", "GET, HEAD"],
    ["PUT", "/v1/openapi.json", "GET, HEAD"],
  ];
  test.for(cases)("%s %s is 405, with what is taken there", async ([method, url, allowed], { serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const answer = await app.inject({ method, url });
    if (method === "HEAD") expect(answer.statusCode).toBe(405);
    else expect(expectProblem(answer, 405).detail).toBe(`${method} isn't one of ${allowed}`);
    expect(answer.headers.allow).toBe(allowed);
  });
});

describe("without keys", () => {
  const hosts: readonly (readonly [host: string, status: number])[] = [
    ["evil.example", 421],
    ["127.0.0.1.evil.example", 421],
    ["localhost.evil.example", 421],
    ["10.0.0.1:7700", 421],
    ["[::2]:7700", 421],
    ["0.0.0.0:7700", 421],
    ["localhost:7700", 200],
    ["app.localhost", 200],
    ["127.0.0.1:7700", 200],
    ["[::1]:7700", 200],
  ];
  test("a page elsewhere can't read it under a name of its own", async ({ serve }) => {
    const { app } = await serve();
    for (const url of ["/health", "/v1/predictions", "/batches", "/queues", "/v1/openapi.json"]) {
      for (const [host, status] of hosts) {
        const answer = await app.inject({ url, headers: { host } });
        if (status === 421) expectProblem(answer, 421);
        else expect([url, host, answer.statusCode]).toEqual([url, host, 200]);
      }
    }
  });

  test("only loopback will do", () => {
    for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) {
      expect(() => requireKeysBeyondLoopback({ host, apiKeys: [] })).not.toThrow();
    }
    for (const host of ["0.0.0.0", "::", "192.168.1.4", "example.com", ""]) {
      expect(() => requireKeysBeyondLoopback({ host, apiKeys: [] })).toThrow(ListenError);
    }
  });

  test("`serve` doesn't start beyond loopback, and says what to set", async () => {
    const env = { REPLICATE_API_TOKEN: "r8_not_a_token", OUTLAST_HOST: "0.0.0.0", OUTLAST_PORT: "0" };
    const { code, stdout, stderr } = await outlast(["serve"], { env });
    expect([code, stdout]).toEqual([1, ""]);
    expect(stderr).toMatch(
      /^without API keys .* set OUTLAST_API_KEYS, or OUTLAST_HOST to 127\.0\.0\.1, not 0\.0\.0\.0\n$/,
    );
  });

  test("it doesn't listen elsewhere, whoever forgot to ask first", async ({ serve }) => {
    const { app } = await serve();
    await expect(listen(app, { host: "0.0.0.0", port: 0, apiKeys: [] })).rejects.toThrow(
      "without API keys the server listens on loopback only: set OUTLAST_API_KEYS, or OUTLAST_HOST to 127.0.0.1, not 0.0.0.0",
    );
    expect(app.server.listening).toBe(false);
  });
});

describe("with keys", () => {
  test("it answers to any name, and may listen anywhere", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    const headers = { host: "outlast.example", authorization: `Bearer ${KEYS.viewer}` };
    expect((await app.inject({ url: "/v1/predictions", headers })).statusCode).toBe(200);
    expect(() => requireKeysBeyondLoopback(readConfig({ ...WITH_KEYS, OUTLAST_HOST: "0.0.0.0" }))).not.toThrow();
  });
});

test("a port in use is one line that says what to do", async ({ serve }) => {
  const { app } = await serve();
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const { port } = other.address() as { port: number };
  await expect(listen(app, { host: "127.0.0.1", port, apiKeys: [] })).rejects.toThrow(
    `port ${port} on 127.0.0.1 is in use: end what listens there, or set OUTLAST_PORT to another`,
  );
  other.close();
});
