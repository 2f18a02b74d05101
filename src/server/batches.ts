/**
 * Batches over HTTP: rows as a stream of any length, how they stand, what became of them, and a person's three words:
 * pause, resume, cancel.
 */

import { Readable } from "node:stream";
import type { FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { z } from "zod";
import { type HoldDeps, holdBatch } from "../batches/hold-batch.ts";
import { type ResultsSource, readResults } from "../batches/read-results.ts";
import { type BatchReport, reportOf } from "../batches/report-batch.ts";
import { type AdmittingAccount, chooseAccount } from "../batches/single-input.ts";
import { type RowReading, type SubmitDeps, submitBatch } from "../batches/submit-batch.ts";
import { type BatchId, itemId, parseBatchId } from "../core/naming.ts";
import type { Target } from "../core/prediction.ts";
import type { ResultLine } from "../core/receipt.ts";
import { readTargetChoice } from "../core/rows.ts";
import type { BatchStanding, Ledger } from "../ledger/ledger.ts";
import { readRows } from "../rows/read-rows.ts";
import { type BatchWatch, versionOf } from "./batch-watch.ts";
import type { Client } from "./clients.ts";
import { askerGone } from "./leaving.ts";
import type { Limits } from "./limits.ts";
import type { Links } from "./links.ts";
import { HttpProblem, invalidInput, typeNotTaken } from "./problems.ts";
import * as schemas from "./schemas.ts";
import { type ServerSentEvent, sendEvents } from "./server-sent-events.ts";
import type { Streams } from "./streams.ts";

export type BatchesDeps = {
  readonly accounts: readonly AdmittingAccount[];
  readonly submitting: SubmitDeps;
  readonly holding: HoldDeps;
  readonly results: ResultsSource;
  readonly ledger: Pick<Ledger, "accountOf" | "standing" | "accountHolds" | "failuresOf" | "listTenantBatches">;
  readonly watch: BatchWatch;
  /** Between two signs of life of a stream of events. */
  readonly heartbeatMs: number;
  readonly limits: Limits;
  readonly streams: Streams;
  readonly links: Links;
};

const PAGE = 100;
const ROWS_AT_ONCE = 1_000;

export function batchRoutes(deps: BatchesDeps): FastifyPluginAsyncZod {
  return async (app) => {
    app.post(
      "/batches",
      {
        config: { writes: true, rows: true },
        schema: {
          operationId: "batches.create",
          summary: "Create a batch from rows: a line of JSON each, as application/x-ndjson",
          tags: ["batches"],
          querystring: schemas.createBatchQuery,
          response: { 200: schemas.batch, 201: schemas.batch },
        },
      },
      async (request, reply) => {
        const { batch, fresh } = await submit(rowsIn(request), request.query, request);
        const { standing, report } = await find(batch, request);
        reply.header("location", `${deps.links.baseUrlOf(request)}/v1/batches/${standing.batch.id}`);
        return reply.code(fresh ? 201 : 200).send(report);
      },
    );

    app.get(
      "/batches",
      {
        schema: {
          operationId: "batches.list",
          summary: "List batches, newest first, 100 a page",
          tags: ["batches"],
          querystring: schemas.batchesQuery,
          response: { 200: schemas.batchesPage },
        },
      },
      async (request) => {
        const after = request.query.cursor === undefined ? null : readCursor(request.query.cursor);
        const ids = await deps.ledger.listTenantBatches(
          request.client.tenant,
          PAGE + 1,
          after === null ? {} : { after },
        );
        const results = (await Promise.all(ids.slice(0, PAGE).map(readReport))).filter((report) => report !== null);
        const last = ids.length > PAGE ? ids[PAGE - 1] : undefined;
        const next = last === undefined ? null : `${deps.links.baseUrlOf(request)}/v1/batches?cursor=${last}`;
        return { previous: null, next, results };
      },
    );

    app.get(
      "/batches/:id",
      {
        schema: {
          operationId: "batches.get",
          summary: "How a batch stands, and what went wrong in it",
          tags: ["batches"],
          params: schemas.batchParams,
          response: { 200: schemas.batchWithFailures },
        },
      },
      async (request) => {
        const { standing, report } = await find(request.params.id, request);
        const { id, account } = standing.batch;
        const failures = await deps.ledger.failuresOf(account, id);
        return {
          ...report,
          failures: failures.map(({ example, ...group }) => ({ ...group, example: itemId(id, example) })),
        };
      },
    );

    app.get(
      "/batches/:id/results",
      {
        exposeHeadRoute: false, // all of it would be read, to be dropped
        schema: {
          operationId: "batches.results.list",
          summary: "What became of each item, a line of JSON each, in input order; also while the batch runs",
          tags: ["batches"],
          params: schemas.batchParams,
        },
      },
      async (request, reply) => {
        const { standing } = await find(request.params.id, request);
        const { fileUrl } = await deps.links.of(request);
        // The bucket's own address of a file leads nowhere for whoever has nothing but a key of ours.
        const reachable = ({ index, outputs }: ResultLine) =>
          outputs.map((output) => ({ ...output, url: fileUrl(itemId(standing.batch.id, index), output.key) }));
        async function* lines() {
          for await (const line of readResults(deps.results, standing.batch)) {
            yield `${JSON.stringify({ ...line, outputs: reachable(line) })}\n`;
          }
        }
        return reply
          .type("application/x-ndjson")
          .header("content-disposition", `inline; filename="${standing.batch.id}.jsonl"`)
          .send(Readable.from(lines(), { objectMode: false }));
      },
    );

    app.get(
      "/batches/:id/events",
      {
        exposeHeadRoute: false,
        schema: {
          operationId: "batches.events.follow",
          summary: "The batch as it changes, as server-sent events; Last-Event-ID resumes",
          tags: ["batches"],
          params: schemas.batchParams,
        },
      },
      async (request, reply) => {
        const { standing, report } = await find(request.params.id, request);
        const seen = String(request.headers["last-event-id"] ?? "");
        // Where a stream has ended a browser comes back by itself, unless it is told so that there is no more.
        if (report.finished_at !== null && seen === versionOf(report)) return reply.code(204).send();
        const gone = askerGone(reply);
        deps.streams.take(request.client, gone);
        return sendEvents(reply, eventsOf(standing.batch.id, gone, seen), deps.heartbeatMs);
      },
    );

    for (const [act, summary] of [
      ["pause", "Buy nothing more of a batch until it is resumed"],
      ["resume", "Let a paused batch go on"],
      ["cancel", "End a batch: what waits is never bought, what runs is canceled at the provider"],
    ] as const) {
      app.post(
        `/batches/:id/${act}`,
        {
          config: { writes: true },
          schema: {
            operationId: `batches.${act}`,
            summary,
            tags: ["batches"],
            params: schemas.batchParams,
            body: schemas.noBody,
            response: { 200: schemas.batch },
          },
        },
        async (request) => {
          const { standing } = await find(request.params.id, request);
          await holdBatch(standing, act, deps.holding);
          return (await find(request.params.id, request)).report;
        },
      );
    }
  };

  async function readReport(id: BatchId): Promise<BatchReport | null> {
    const account = await deps.ledger.accountOf(id);
    if (account === null) return null;
    const [standing, holds] = await Promise.all([deps.ledger.standing(account, id), deps.ledger.accountHolds(account)]);
    return standing === null ? null : reportOf(standing, holds);
  }

  /** Another tenant's batch isn't there either. */
  async function find(
    text: string,
    { client }: Pick<FastifyRequest, "client">,
  ): Promise<{ readonly standing: BatchStanding; readonly report: BatchReport }> {
    const id = parseBatchId(text);
    const account = id === null ? null : await deps.ledger.accountOf(id);
    const standing = id === null || account === null ? null : await deps.ledger.standing(account, id);
    if (standing === null || account === null || standing.batch.tenant !== client.tenant) {
      throw new HttpProblem(404, `there is no batch ${JSON.stringify(text.slice(0, 40))}`);
    }
    return { standing, report: reportOf(standing, await deps.ledger.accountHolds(account)) };
  }

  async function submit(
    body: AsyncIterable<Buffer>,
    { name, account: wanted, again, retry_failed: retryFailed, ...choice }: z.output<typeof schemas.createBatchQuery>,
    { client }: Pick<FastifyRequest, "client">,
  ): Promise<{ readonly batch: BatchId; readonly fresh: boolean }> {
    if (wanted !== undefined && client.account !== null && wanted !== client.account) {
      const description = `this key's batches go to the account ${client.account}`;
      throw invalidInput([{ type: "invalid_account", field: "querystring.account", description }]);
    }
    const account = chooseAccount(wanted ?? client.account ?? undefined, deps.accounts);
    const target = targetOf(choice);
    const source = Readable.from(counted(body, client, deps.limits), { objectMode: false });
    const rows = readRows(source, { format: "jsonl", ...(target !== undefined && { target }) });
    const options = { name, tenant: client.tenant, account, again, retryFailed };
    return submitBatch(limited(rows, client, deps.limits), options, deps.submitting);
  }

  async function* eventsOf(id: BatchId, signal: AbortSignal, seen: string): AsyncGenerator<ServerSentEvent> {
    for await (const { version, report } of deps.watch.follow(id, signal, seen)) {
      yield { event: "batch", id: version, data: JSON.stringify(report) };
      if (report.finished_at !== null) return;
    }
  }
}

function rowsIn(request: FastifyRequest): AsyncIterable<Buffer> {
  if (request.body === undefined) throw typeNotTaken(request);
  return request.body as AsyncIterable<Buffer>; // what `bodies.ts` makes of rows, which are all that this route takes
}

async function* counted(body: AsyncIterable<Buffer>, client: Client, limits: Limits): AsyncGenerator<Buffer> {
  const take = limits.meter(client, "bytes");
  for await (const chunk of body) {
    await take(chunk.length);
    yield chunk;
  }
}

async function* limited(rows: AsyncIterable<RowReading>, client: Client, limits: Limits): AsyncGenerator<RowReading> {
  const take = limits.meter(client, "rows");
  let untaken = 0;
  for await (const row of rows) {
    if (++untaken === ROWS_AT_ONCE) {
      await take(untaken);
      untaken = 0;
    }
    yield row;
  }
  if (untaken > 0) await take(untaken); // nothing is submitted before this has ended
}

function targetOf(choice: { readonly [Kind in Target["kind"]]?: string | undefined }): Target | undefined {
  const read = readTargetChoice(choice);
  if (read?.ok === false) {
    throw invalidInput([{ type: "invalid_input", field: "querystring", description: read.reason }]);
  }
  return read?.target;
}

function readCursor(text: string): BatchId {
  const id = parseBatchId(text);
  if (id !== null) return id;
  throw invalidInput([{ type: "invalid_cursor", field: "querystring.cursor", description: "is no cursor of ours" }]);
}
