/** The API's own description: that it is OpenAPI, and tells of every route whatever a client needs. */

import { Validator } from "@seriousme/openapi-schema-validator";
import type { FastifyInstance } from "fastify";
import { describe, expect } from "vitest";
import { launchChromium, missingChromium } from "../dashboard/chromium.ts";
import { type Described, type Document, describedBy } from "./described.ts";
import { test, WITH_KEYS } from "./serving.ts";

const PROBLEM = ["application/problem+json"];
const CREATES = ["predictions.create", "models.predictions.create", "deployments.predictions.create"];

/** Routes under /v1 that are nobody's to call by the description: for the provider, for other servers, for old clients. */
const NOT_TOLD = [
  "GET /v1/openapi.json",
  "POST /v1/files",
  "POST /v1/webhooks/self",
  "POST /v1/webhooks/{account}/{errand}/{nonce}",
];

/** Every route under /v1 but the page's own, by what the router has, and what it says of methods that it hasn't. */
async function routesOf(app: FastifyInstance): Promise<readonly string[]> {
  const routes: string[] = [];
  const above: string[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split("\n")) {
    const [, indent, part] = /^((?:│ {3}| {4})*[├└]── )(\S+)/.exec(line) ?? [];
    if (indent === undefined || part === undefined) continue;
    const depth = indent.length / 4 - 1;
    above.splice(depth, Infinity, part);
    const url = above.slice(0, depth + 1).join("");
    if (!url.startsWith("/v1/") || url.startsWith("/v1/docs")) continue;
    const { headers } = await app.inject({ method: "DELETE", url: url.replaceAll(":", "") });
    const methods = String(headers["allow"])
      .split(", ")
      .filter((method) => method !== "HEAD");
    routes.push(...methods.map((method) => `${method} ${url.replaceAll(/:(\w+)/g, "{$1}")}`));
  }
  return routes;
}

describe("the document", () => {
  test("is OpenAPI 3.1, and its references lead somewhere", async ({ serve }) => {
    const { document } = await describedBy((await serve()).app);
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document));
    expect([valid, errors, validator.version]).toEqual([true, undefined, "3.1"]);

    const text = JSON.stringify(document);
    const used = new Set(
      Array.from(text.matchAll(/"\$ref":"#\/components\/(\w+)\/([^"]+)"/g), ([, k, n]) => `${k}/${n}`),
    );
    const { securitySchemes: _, ...components } = document.components;
    const there = Object.entries(components).flatMap(([kind, all]) =>
      Object.keys(all).map((name) => `${kind}/${name}`),
    );
    expect([...used].sort()).toEqual(there.sort());
  });

  test("has every route, each by a name that stays", async ({ serve }) => {
    const { app } = await serve();
    const { operations } = await describedBy(app);
    const told = operations.map(({ method, path }) => `${method} ${path}`);
    const routes = (await routesOf(app)).filter((route) => !NOT_TOLD.includes(route));
    expect(told.sort()).toEqual([...routes].sort());
    expect(operations.map(({ operationId }) => operationId).sort()).toEqual([
      "account.get",
      "batches.cancel",
      "batches.create",
      "batches.events.follow",
      "batches.get",
      "batches.list",
      "batches.pause",
      "batches.results.list",
      "batches.resume",
      "deployments.predictions.create",
      "files.get",
      "models.predictions.create",
      "predictions.cancel",
      "predictions.create",
      "predictions.get",
      "predictions.list",
      "webhooks.default.secret.get",
    ]);
  });

  test("says of every operation what it is, what it answers and how it refuses", async ({ serve }) => {
    const { document, operations, responsesOf, parametersOf } = await describedBy((await serve()).app);
    const tags = document.tags.map(({ name, description }) => (description === "" ? "" : name));
    for (const operation of operations) {
      const { operationId, summary } = operation;
      expect([operationId, summary]).toEqual([operationId, expect.stringMatching(/\w/)]);
      expect(tags).toEqual(expect.arrayContaining([...operation.tags]));
      const responses = responsesOf(operation);
      for (const { status, description, content } of responses) {
        const at = [operationId, status];
        expect([...at, description]).toEqual([...at, expect.stringMatching(/^(?!Default Response)\w.*\.$/s)]);
        if (status >= 400) expect([...at, Object.keys(content ?? {})]).toEqual([...at, PROBLEM]);
        else if (status !== 204 && status !== 304) expect([...at, content]).not.toEqual([...at, undefined]);
      }
      const statuses = responses.map(({ status }) => status);
      expect([operationId, statuses]).toEqual([
        operationId,
        expect.arrayContaining([200, 401, 503].slice(CREATES.includes(operationId) ? 1 : 0)),
      ]);
      const headersOf = (wanted: number) =>
        Object.keys(responses.find(({ status }) => status === wanted)?.headers ?? {});
      expect(headersOf(503)).toContain("Retry-After");
      if (operationId !== "files.get") {
        expect(headersOf(401)).toContain("WWW-Authenticate");
        expect(headersOf(429)).toContain("Retry-After");
      }
      expect([operationId, statuses.includes(403)]).toEqual([
        operationId,
        operation.method === "POST" || operationId === "webhooks.default.secret.get",
      ]);
      for (const { name, description } of parametersOf(operation)) {
        expect([operationId, name, description]).toEqual([operationId, name, expect.stringMatching(/\w/)]);
      }
    }
  });

  test("tells of the headers that are read by hand", async ({ serve }) => {
    const { operations, parametersOf, faultsOf } = await describedBy((await serve()).app);
    const headers = Object.fromEntries(
      operations.flatMap((operation) => {
        const own = parametersOf(operation).filter(({ in: where }) => where === "header");
        return own.length === 0 ? [] : [[operation.operationId, own]];
      }),
    );
    const create = ["Idempotency-Key", "Prefer", "Cancel-After"];
    const names = Object.entries(headers).map(([id, own]) => [id, own.map(({ name }) => name)]);
    expect(Object.fromEntries(names)).toEqual({
      ...Object.fromEntries(CREATES.map((id) => [id, create])),
      "batches.events.follow": ["Last-Event-ID"],
      "files.get": ["Range", "If-Range", "If-None-Match"],
    });
    const key = headers["predictions.create"]?.find(({ name }) => name === "Idempotency-Key")?.schema ?? {};
    for (const good of ["fog-1", "a".repeat(255)]) expect(faultsOf(key, good)).toEqual([]);
    for (const bad of ["", "a b", "a".repeat(256)]) expect(faultsOf(key, bad)).not.toEqual([]);
  });

  test("tells of rows, results, events and files, which are no JSON", async ({ serve }) => {
    const { operations, document, faultsOf, responsesOf } = await describedBy((await serve()).app);
    const by = (id: string) =>
      operations.find(({ operationId }) => operationId === id) as Described["operations"][number];
    const types = (id: string, status: number) =>
      Object.keys(responsesOf(by(id)).find((one) => one.status === status)?.content ?? {});
    expect(types("batches.results.list", 200)).toEqual(["application/x-ndjson"]);
    expect(types("batches.events.follow", 200)).toEqual(["text/event-stream"]);
    expect([types("files.get", 200), types("files.get", 206)]).toEqual([["*/*"], ["*/*"]]);

    const { required, content } = by("batches.create").requestBody ?? {};
    expect([required, Object.keys(content ?? {})]).toEqual([true, ["application/x-ndjson", "application/jsonl"]]);
    const { example } = content?.["application/x-ndjson"] ?? {};
    const row = document.components["schemas"]?.["BatchRow"] ?? {};
    for (const line of String(example).trim().split("\n")) expect(faultsOf(row, JSON.parse(line))).toEqual([]);
    expect(faultsOf(row, { input: {}, seed: 1 })).not.toEqual([]);
  });

  test("asks for a key in the two ways that there are; a signature opens a file", async ({ serve }) => {
    const { document, operations } = await describedBy((await serve()).app);
    expect(document.security).toEqual([{ bearer: [] }, { basic: [] }]);
    expect(document.components["securitySchemes"]).toMatchObject({
      bearer: { type: "http", scheme: "bearer" },
      basic: { type: "http", scheme: "basic" },
      signature: { type: "apiKey", in: "query", name: "signature" },
    });
    const own = operations.flatMap(({ operationId, security }) =>
      security === undefined ? [] : [[operationId, security]],
    );
    expect(own).toEqual([["files.get", [{ bearer: [] }, { basic: [] }, { signature: [] }]]]);
  });

  test("says where the server is, as clients reach it", async ({ serve }) => {
    const { app } = await serve({ env: { ...WITH_KEYS, OUTLAST_PUBLIC_URL: "https://outlast.example/queue" } });
    const { document } = await describedBy(app);
    expect(document.servers).toEqual([{ url: "https://outlast.example/queue" }]);
    const other = await (await serve()).app.inject({ url: "/v1/openapi.json", headers: { host: "localhost:7700" } });
    expect(other.json<Document>().servers).toEqual([{ url: "http://localhost:7700" }]);
  });
});

test.skipIf(missingChromium() !== null)("the page is as wide as a phone", async ({ serve }) => {
  const port = await (await serve()).listen();
  await using browser = await launchChromium();
  const page = await browser.newPage({ viewport: { width: 390, height: 800 }, isMobile: true });
  await page.goto(`http://127.0.0.1:${port}/v1/docs/`);
  await page.locator(".opblock").first().waitFor();
  expect(await page.evaluate("[innerWidth, document.documentElement.scrollWidth]")).toEqual([390, 390]);
});
