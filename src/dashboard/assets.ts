/** What the pages load beside themselves: a stylesheet, a script, an icon. Their addresses change with what is in them. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { FastifyPluginAsync } from "fastify";

const TYPES = { "page.css": "text/css", "live.js": "text/javascript", "icon.svg": "image/svg+xml" } as const;
type AssetName = keyof typeof TYPES;

type Asset = { readonly body: Buffer; readonly type: string; readonly version: string };

const ASSETS: ReadonlyMap<string, Asset> = new Map(
  Object.entries(TYPES).map(([name, type]) => {
    const body = readFileSync(new URL(`assets/${name}`, import.meta.url));
    const version = createHash("sha256").update(body).digest("base64url").slice(0, 12);
    return [name, { body, type: `${type}; charset=utf-8`, version }];
  }),
);

export function assetUrl(name: AssetName): string {
  return `/assets/${name}?v=${ASSETS.get(name)?.version ?? ""}`;
}

export const assetRoutes: FastifyPluginAsync = async (app) => {
  for (const [name, { body, type }] of ASSETS) {
    app.get(`/assets/${name}`, async (_request, reply) =>
      reply
        .header("cache-control", "private, max-age=31536000, immutable")
        .header("x-content-type-options", "nosniff")
        .type(type)
        .send(body),
    );
  }
};
