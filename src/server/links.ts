/** Addresses that answers lead to: this server, as whoever asks can reach it, and the kept files. */

import { createHash } from "node:crypto";
import type { FastifyRequest } from "fastify";
import { fileUrls, isSignedFor, signedFileUrl } from "../batches/file-links.ts";
import type { StandingLinks } from "../batches/read-predictions.ts";
import type { ItemId } from "../core/naming.ts";
import { DAY, SECOND } from "../core/time.ts";
import type { Ledger } from "../ledger/ledger.ts";

export type Links = {
  /** Without a slash at its end. */
  readonly baseUrlOf: (request: Pick<FastifyRequest, "protocol" | "host">) => string;
  readonly of: (request: Pick<FastifyRequest, "protocol" | "host">) => Promise<StandingLinks>;
  /** Kept files on this server, from its root: what a page may show, which has pictures of its own host alone. */
  readonly paths: () => Promise<(item: ItemId, key: string) => string>;
  readonly opens: (
    item: ItemId,
    name: string,
    query: { readonly expires?: string | undefined; readonly signature?: string | undefined },
  ) => Promise<boolean>;
};

/** `mark`: what tells the secret from another, and tells nobody the secret. */
type Signer = { readonly secret: Buffer; readonly mark: string };

/** A Redis that was lost brings another secret (`ledger/secrets.ts`), and other processes sign with it. */
const SECRET_FOR_MS = 10 * SECOND;

export function openLinks(deps: {
  readonly ledger: Pick<Ledger, "secretFor">;
  /** Null: clients reach the server where they say they did. */
  readonly publicUrl: string | null;
  /** Null: kept files are had from this server. */
  readonly publicBucketUrl: string | null;
  readonly clock: () => number;
}): Links {
  let read: Signer | null = null;
  let asked: { readonly atMs: number; readonly signer: Promise<Signer> } | null = null;
  function signerNow(): Promise<Signer> {
    const nowMs = deps.clock();
    if (asked !== null && Math.abs(nowMs - asked.atMs) < SECRET_FOR_MS) return asked.signer;
    const signer = deps.ledger.secretFor("files").then(
      (secret) => (read = { secret, mark: createHash("sha256").update(secret).digest("hex").slice(0, 16) }),
      (error: unknown) => {
        if (read !== null) return read; // Redis is away: its word stands until it has another
        asked = null;
        throw error;
      },
    );
    asked = { atMs: nowMs, signer };
    return signer;
  }
  const baseUrlOf = (request: Pick<FastifyRequest, "protocol" | "host">) =>
    deps.publicUrl ?? `${request.protocol}://${request.host}`;

  return {
    baseUrlOf,
    async of(request) {
      const { secret, mark } = await signerNow();
      const baseUrl = baseUrlOf(request);
      const nowMs = deps.clock();
      const sameWhile = `${Math.floor(nowMs / DAY)} ${mark} ${baseUrl}`;
      return { baseUrl, sameWhile, fileUrl: fileUrls({ ...deps, secret, baseUrl, nowMs }) };
    },
    async paths() {
      const { secret } = await signerNow();
      return (item, key) => signedFileUrl(secret, "", item, key, deps.clock());
    },
    opens: async (item, name, query) => isSignedFor((await signerNow()).secret, item, name, query, deps.clock()),
  };
}
