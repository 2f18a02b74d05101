/** The API's own description: `/v1/openapi.json`, and a page to read at `/v1/docs`. */

import swagger from "@fastify/swagger";
import swaggerUi from "@fastify/swagger-ui";
import type { FastifyInstance } from "fastify";
import { createJsonSchemaTransform, jsonSchemaTransformObject } from "fastify-type-provider-zod";

const DESCRIPTION = `The routes of Replicate's API for predictions, on your own queue: each prediction is durable, paid for once, and its
output files are kept in your bucket. An official client works with \`baseUrl\` set to this server's \`/v1\`.

Beyond it: an \`Idempotency-Key\` header makes a repeated POST the same prediction, and \`/v1/batches\` takes files of a
million rows.`;

const describeRoute = createJsonSchemaTransform({ zodToJsonConfig: { unrepresentable: "any" } });

/** Before any route, so that it hears of them. */
export async function describeApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "Outlast", version: "1", description: DESCRIPTION },
      components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
      security: [{ key: [] }],
    },
    // Pages and the board are no part of the API.
    transform: (route) =>
      route.url.startsWith("/v1/") ? describeRoute(route) : { url: route.url, schema: { hide: true } },
    transformObject: jsonSchemaTransformObject,
  });
  await app.register(swaggerUi, {
    routePrefix: "/v1/docs",
    staticCSP: true,
    theme: { title: "Outlast: the API" },
    uiConfig: { deepLinking: true, tryItOutEnabled: false },
  });
  app.get("/v1/openapi.json", { schema: { hide: true } }, async () => app.swagger());
}
