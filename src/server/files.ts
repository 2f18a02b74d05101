/**
 * `/v1/files/<item>/<name>`: a kept output, as it lies in the bucket; with ranges and an ETag, which is its SHA-256. It is
 * opened by the tenant's key or by the signature in its address. Models write what is in it: it never runs as a page.
 */

import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import fresh from "fresh";
import { parse as parseRange } from "range-parser";
import type { z } from "zod";
import { fileNameOf } from "../batches/file-links.ts";
import { type FindDeps, findItem } from "../batches/find-item.ts";
import type { Predictions } from "../batches/read-predictions.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { isEnd } from "../core/item.ts";
import { itemId, parseItemId } from "../core/naming.ts";
import type { KeptOutput } from "../core/receipt.ts";
import type { Clients } from "./clients.ts";
import type { Links } from "./links.ts";
import { HttpProblem, sendProblem } from "./problems.ts";
import * as schemas from "./schemas.ts";

export type FilesDeps = {
  readonly bucket: Bucket;
  readonly finding: FindDeps;
  readonly predictions: Pick<Predictions, "receiptOf">;
  readonly clients: Clients;
  readonly links: Links;
};

/** An address leads to the same bytes for ever. */
const CACHE = "private, max-age=604800, immutable";
const POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:";
/** What a browser may show by itself. */
const SHOWN = /^(?:image\/(?:png|jpeg|gif|webp|avif)|video\/|audio\/|text\/plain|application\/json)/;

export function fileRoutes(deps: FilesDeps): FastifyPluginAsyncZod {
  return async (app) => {
    app.get(
      "/files/:item/:name",
      {
        config: { open: true },
        schema: {
          operationId: "files.get",
          summary: "A kept output",
          tags: ["files"],
          security: [{ bearer: [] }, { basic: [] }, { signature: [] }],
          params: schemas.fileParams,
          querystring: schemas.fileQuery,
        },
      },
      async (request, reply) => {
        const output = await find(request.params, request.query, request);
        if (output === null) return sendProblem(reply, 404, "there is no such file");
        return sendFile(output, request, reply);
      },
    );
  };

  /** Null also where it is another tenant's: nobody learns what there is. */
  async function find(
    { item, name }: z.output<typeof schemas.fileParams>,
    query: z.output<typeof schemas.fileQuery>,
    { headers }: FastifyRequest,
  ): Promise<KeptOutput | null> {
    const place = parseItemId(item);
    if (place === null) return null;
    const client = deps.clients.identify(headers.authorization);
    const signed = await deps.links.opens(itemId(place.batch, place.index), name, query);
    if (!signed && client === null) throw new HttpProblem(401, "this address isn't signed, or not any more");

    const found = await findItem(deps.finding, item);
    if (found === null || !isEnd(found.state)) return null;
    if (!signed && client?.tenant !== found.of.tenant) return null;
    const receipt = await deps.predictions.receiptOf(found);
    return receipt?.outputs.find(({ key }) => fileNameOf(key) === name) ?? null;
  }

  async function sendFile(output: KeptOutput, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
    const { key, bytes, sha256, content_type: contentType } = output;
    const etag = `"${sha256}"`;
    // Of the file alone: an error that is kept for a week would outlive what it says.
    const headers = {
      "accept-ranges": "bytes",
      etag,
      "cache-control": CACHE,
      "content-security-policy": POLICY,
      "x-content-type-options": "nosniff",
      "content-disposition": `${SHOWN.test(contentType) ? "inline" : "attachment"}; filename="${fileNameOf(key)}"`,
    };
    if (fresh(request.headers, { etag })) return reply.code(304).headers(headers).type(contentType).send();

    const range = rangeOf(request, bytes, etag);
    if (range === "unsatisfiable") {
      return sendProblem(reply.header("content-range", `bytes */${bytes}`), 416, `the file has ${bytes} bytes`);
    }
    const { start, end } = range ?? { start: 0, end: bytes - 1 };
    const length = end - start + 1;
    // Of nothing, Fastify would say that it has no bytes.
    const body = request.method === "HEAD" ? Readable.from([]) : await deps.bucket.getStream(key, { start, length });
    if (body === null) return sendProblem(reply, 404, "the file is gone from the bucket");
    if (range !== null) reply.code(206).header("content-range", `bytes ${start}-${end}/${bytes}`);
    return reply
      .headers({ ...headers, "content-length": length })
      .type(contentType)
      .send(body);
  }
}

/** One range; several at once are answered with the whole file, as RFC 9110 allows. Null: the whole file. */
function rangeOf(
  { headers }: FastifyRequest,
  bytes: number,
  etag: string,
): { readonly start: number; readonly end: number } | "unsatisfiable" | null {
  const { range: header } = headers;
  const condition = headers["if-range"];
  if (header === undefined || (condition !== undefined && condition !== etag)) return null;
  const { code, type, ranges } = parseRange(bytes, header);
  const [range, second] = ranges;
  // A range that can't be read is no range.
  if (type !== "bytes" || (code & 1) === 1 || second !== undefined) return null;
  return range ?? "unsatisfiable";
}
