/** Addresses that answers lead to: this server, as whoever asks can reach it, and the kept files. */

import type { FastifyRequest } from "fastify";
import { fileUrls, isSignedFor, signedFileUrl } from "../batches/file-links.ts";
import type { LinksOfADay } from "../batches/read-predictions.ts";
import type { ItemId } from "../core/naming.ts";
import { DAY } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";

export type Links = {
  /** Without a slash at its end. */
  readonly baseUrlOf: (request: Pick<FastifyRequest, "protocol" | "host">) => string;
  readonly of: (request: Pick<FastifyRequest, "protocol" | "host">) => Promise<LinksOfADay>;
  /** Kept files on this server, from its root: what a page may show, which has pictures of its own host alone. */
  readonly paths: () => Promise<(item: ItemId, key: string) => string>;
  readonly opens: (
    item: ItemId,
    name: string,
    query: { readonly expires?: string | undefined; readonly signature?: string | undefined },
  ) => Promise<boolean>;
};

export function openLinks(deps: {
  readonly ledger: Pick<Ledger, "secretFor">;
  /** Null: clients reach the server where they say they did. */
  readonly publicUrl: string | null;
  /** Null: kept files are had from this server. */
  readonly publicBucketUrl: string | null;
  readonly clock: () => number;
}): Links {
  let secret: Promise<Buffer> | null = null;
  const secretOnce = () => {
    secret ??= deps.ledger.secretFor("files").catch((error: unknown) => {
      secret = null; // Redis was away: the next request asks again
      throw error;
    });
    return secret;
  };
  const baseUrlOf = (request: Pick<FastifyRequest, "protocol" | "host">) =>
    deps.publicUrl ?? `${request.protocol}://${request.host}`;

  return {
    baseUrlOf,
    async of(request) {
      const secret = await secretOnce();
      const baseUrl = baseUrlOf(request);
      const nowMs = deps.clock();
      return { baseUrl, day: Math.floor(nowMs / DAY), fileUrl: fileUrls({ ...deps, secret, baseUrl, nowMs }) };
    },
    async paths() {
      const secret = await secretOnce();
      return (item, key) => signedFileUrl(secret, "", item, key, deps.clock());
    },
    opens: async (item, name, query) => isSignedFor(await secretOnce(), item, name, query, deps.clock()),
  };
}
