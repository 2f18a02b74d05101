/**
 * The API's own description: `/v1/openapi.json`, and a page to read at `/v1/docs`. It is made from the routes' schemas and
 * from what `openapi-operations.ts` tells beyond them.
 */

import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyContextConfig, FastifyInstance } from "fastify";
import { createJsonSchemaTransform, createJsonSchemaTransformObject } from "fastify-type-provider-zod";
import type { Links } from "./links.ts";
import { ERROR_COMPONENTS } from "./openapi-errors.ts";
import { HEADER_COMPONENTS } from "./openapi-headers.ts";
import { completeOperation, type Operation } from "./openapi-operations.ts";

const DESCRIPTION = `The routes of Replicate's API for predictions, on your own queue: each prediction is durable, paid for once, and its
output files are kept in your bucket. An official client works with \`baseUrl\` set to this server's \`/v1\`.

Beyond it: an \`Idempotency-Key\` header makes a repeated POST the same prediction, and \`/v1/batches\` takes files of a
million rows.

Errors are \`application/problem+json\` (RFC 9457). Beside those of its operation any request may come to 405 (with \`Allow\`), 414 or
431 (address or headers too long), 421 (without keys the server answers to the names of loopback only) and 500.`;

const TAGS = [
  {
    name: "predictions",
    description: "Single predictions, as Replicate's API has them; they go before rows of batches.",
  },
  { name: "batches", description: "Rows by the million: submitted as a stream, watched, paused, resumed, canceled." },
  { name: "files", description: "Outputs, as they are kept in the bucket." },
  { name: "account", description: "What a key may know of itself." },
];

const SECURITY_SCHEMES = {
  bearer: {
    type: "http",
    scheme: "bearer",
    description: "An API key. Without any in its settings the server listens on loopback alone, and asks for none.",
  },
  basic: {
    type: "http",
    scheme: "basic",
    description: "The same key as the password, as browsers send it; the name is free.",
  },
  signature: {
    type: "apiKey",
    in: "query",
    name: "signature",
    description: "Made for one file and a week; it comes, with `expires`, in the file's address.",
  },
} as const;

/** The page has no viewport of its own: a phone would lay it out as wide as a desk's screen. */
const VIEWPORT = `const meta = document.createElement("meta");
meta.name = "viewport";
meta.content = "width=device-width, initial-scale=1";
document.head.append(meta);
`;

const AS_JSON_SCHEMA = {
  zodToJsonConfig: {
    unrepresentable: "any",
    // Zod writes the format out as a long pattern, too.
    override({ jsonSchema }) {
      if (jsonSchema.format === "date-time") delete jsonSchema.pattern;
    },
  },
} satisfies Parameters<typeof createJsonSchemaTransform>[0];

const describeRoute = createJsonSchemaTransform(AS_JSON_SCHEMA);
const describeSchemas = createJsonSchemaTransformObject(AS_JSON_SCHEMA);

/** Before any route, so that it hears of them. */
export async function describeApi(app: FastifyInstance, { baseUrlOf }: Pick<Links, "baseUrlOf">): Promise<void> {
  const configs = new Map<string, FastifyContextConfig>();
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "Outlast", version: "1", description: DESCRIPTION },
      servers: [{ url: "/" }],
      tags: TAGS,
      components: { securitySchemes: SECURITY_SCHEMES },
      security: [{ bearer: [] }, { basic: [] }],
    },
    // Pages and the board are no part of the API.
    transform: (document) => {
      const { url, schema, route } = document;
      if (!url.startsWith("/v1/")) return { url, schema: { hide: true } };
      if (schema?.operationId !== undefined) configs.set(schema.operationId, route.config ?? {});
      return describeRoute(document);
    },
    transformObject: (bare) => {
      const document = describeSchemas(bare);
      return { ...document, ...completed(document as Described, configs) } as typeof document;
    },
  });
  await app.register(swaggerUi, {
    routePrefix: "/v1/docs",
    staticCSP: true,
    theme: { title: "Outlast: the API", js: [{ filename: "viewport.js", content: VIEWPORT }] },
    uiConfig: { deepLinking: true, tryItOutEnabled: false },
  });
  // Kept as a file it has to say where the server is.
  app.get("/v1/openapi.json", { schema: { hide: true } }, async (request) => ({
    ...app.swagger(),
    servers: [{ url: baseUrlOf(request) }],
  }));
}

type Described = {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, unknown>> };
};

function completed(
  { paths: bare, components: { schemas, ...rest } }: Described,
  configs: ReadonlyMap<string, FastifyContextConfig>,
): object {
  const complete = (operation: Operation) =>
    completeOperation(operation, configs.get(operation.operationId ?? "") ?? {});
  const paths = mapped(bare, (operations) => mapped(operations, complete));
  const components = { ...rest, ...HEADER_COMPONENTS, responses: ERROR_COMPONENTS };
  return { paths, components: { ...components, schemas: usedOf(schemas, { paths, components }) } };
}

function mapped<From, To>(values: Readonly<Record<string, From>>, map: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(value)]));
}

/** Each schema comes in two forms, for what is sent and what is answered; mostly only one is used. */
function usedOf(schemas: Readonly<Record<string, unknown>>, by: object): Readonly<Record<string, unknown>> {
  const used = new Set<string>();
  const look = (where: unknown) => {
    for (const [, name = ""] of JSON.stringify(where).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      if (used.has(name)) continue;
      used.add(name);
      look(schemas[name] ?? null);
    }
  };
  look(by);
  return Object.fromEntries(Object.entries(schemas).filter(([name]) => used.has(name)));
}
