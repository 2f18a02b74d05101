/**
 * Replicate's routes for predictions: create in three forms, get, list, cancel. A program that uses an official client
 * gets durable, kept, paid-once predictions by changing its base URL.
 *
 * What Replicate lacks: `Idempotency-Key`, with which a repeated POST is the same prediction.
 */

import type { FastifyReply, FastifyRequest } from "fastify";
import type { FastifyPluginAsyncZod } from "fastify-type-provider-zod";
import type { z } from "zod";
import type { Admission } from "../batches/admit-single.ts";
import { type CancelDeps, cancelItem } from "../batches/cancel-item.ts";
import { listSingles, type SinglesCursor, type SinglesDeps } from "../batches/list-singles.ts";
import type { FoundPrediction, Predictions } from "../batches/read-predictions.ts";
import { type AdmittingAccount, chooseAccount, type SingleInput } from "../batches/single-input.ts";
import { type HostRule, judgeUrl } from "../bucket/addresses.ts";
import { isEnd } from "../core/item.ts";
import { type BatchId, parseBatchId, parseItemId } from "../core/naming.ts";
import type { Target, WebhookEvent } from "../core/prediction.ts";
import { asUnfinished, type PredictionView } from "../core/prediction-view.ts";
import { readRow } from "../core/rows.ts";
import { SECOND } from "../core/time.ts";
import { readCancelAfter, readIdempotencyKey, readPrefer } from "./headers.ts";
import type { Holds } from "./holds.ts";
import { askerGone } from "./leaving.ts";
import type { Links } from "./links.ts";
import { HttpProblem, invalidInput } from "./problems.ts";
import * as schemas from "./schemas.ts";

export type PredictionsDeps = {
  readonly accounts: readonly AdmittingAccount[];
  readonly admission: Admission;
  readonly predictions: Predictions;
  readonly listing: SinglesDeps;
  readonly canceling: CancelDeps;
  readonly holds: Holds;
  readonly links: Links;
  /** Hosts that clients' webhooks may be on. */
  readonly webhookHosts: readonly HostRule[];
};

/** What is asked of a request beside what its route reads. */
type Asker = Pick<FastifyRequest, "client" | "headers" | "protocol" | "host">;

type Created = {
  readonly code: 201 | 202;
  readonly headers: Readonly<Record<string, string>>;
  readonly view: PredictionView;
};

type CreateBody = z.output<typeof schemas.createOfPathBody>;

const PAGE = 100;
const READS_AT_ONCE = 20;
/** A cancel usually takes effect within a poll; whoever asked for it gets to see that. */
const CANCEL_WAIT_MS = 3 * SECOND;

const created = { 201: schemas.prediction, 202: schemas.prediction };
const found = { 200: schemas.prediction };

export function predictionRoutes(deps: PredictionsDeps): FastifyPluginAsyncZod {
  return async (app) => {
    app.post(
      "/predictions",
      {
        config: { writes: true },
        schema: {
          operationId: "predictions.create",
          summary: "Create a prediction",
          tags: ["predictions"],
          body: schemas.createBody,
          response: created,
        },
      },
      async (request, reply) => {
        const { version, ...body } = request.body;
        // `owner/name` alone stands for what the model runs now; with an id behind it, for that version.
        const kind = version.includes("/") && !version.includes(":") ? "model" : "version";
        const { code, headers, view } = await create({ kind, text: version, body }, request, reply);
        return reply.code(code).headers(headers).send(view);
      },
    );
    for (const [kind, path] of [
      ["model", "/models/:owner/:name/predictions"],
      ["deployment", "/deployments/:owner/:name/predictions"],
    ] as const) {
      app.post(
        path,
        {
          config: { writes: true },
          schema: {
            operationId: `${kind}s.predictions.create`,
            summary: `Create a prediction of a ${kind}`,
            tags: ["predictions"],
            params: schemas.ownerAndName,
            body: schemas.createOfPathBody,
            response: created,
          },
        },
        async (request, reply) => {
          const { owner, name } = request.params;
          const asked = { kind, text: `${owner}/${name}`, body: request.body };
          const { code, headers, view } = await create(asked, request, reply);
          return reply.code(code).headers(headers).send(view);
        },
      );
    }

    app.get(
      "/predictions",
      {
        schema: {
          operationId: "predictions.list",
          summary: "List single predictions, newest first, 100 a page",
          tags: ["predictions"],
          querystring: schemas.predictionsQuery,
          response: { 200: schemas.predictionsPage },
        },
      },
      async (request) => list(request.query, request),
    );

    app.get(
      "/predictions/:id",
      {
        schema: {
          operationId: "predictions.get",
          summary: "Get a prediction",
          tags: ["predictions"],
          params: schemas.predictionParams,
          response: found,
        },
      },
      async (request, reply) => {
        const prediction = await find(request.params.id, request);
        return sendJson(reply, await deps.predictions.json(prediction, await deps.links.of(request)));
      },
    );

    app.post(
      "/predictions/:id/cancel",
      {
        config: { writes: true },
        schema: {
          operationId: "predictions.cancel",
          summary: "Cancel a prediction",
          tags: ["predictions"],
          params: schemas.predictionParams,
          body: schemas.noBody,
          response: found,
        },
      },
      async (request, reply) => {
        const prediction = await find(request.params.id, request);
        const state = await cancelItem(prediction, prediction.row, deps.canceling);
        if (!isEnd(state)) await deps.holds.untilEnded(prediction, CANCEL_WAIT_MS, askerGone(reply));
        return deps.predictions.view(await find(prediction.id, request), await deps.links.of(request));
      },
    );
  };

  async function find(id: string, { client }: Pick<Asker, "client">): Promise<FoundPrediction> {
    const prediction = await deps.predictions.find(id, client.tenant);
    if (prediction === null) throw new HttpProblem(404, `there is no prediction ${JSON.stringify(id.slice(0, 40))}`);
    return prediction;
  }

  async function create(
    asked: { readonly kind: Target["kind"]; readonly text: string; readonly body: CreateBody },
    request: Asker,
    reply: FastifyReply,
  ): Promise<Created> {
    const { client, headers } = request;
    const hold = readPrefer(headers["prefer"]);
    const single = readSingle(asked, request);
    const links = await deps.links.of(request); // before anything has happened: it may fail
    const { item, row } = await deps.admission.admit(single);
    const fresh = row === null ? null : deps.predictions.remember(item, client.tenant, single.account, row);

    const place = parseItemId(item);
    if (place === null) throw new TypeError(`admission answered no item: ${item}`);
    const ended =
      hold !== null &&
      (await deps.holds.untilEnded({ account: single.account, ...place }, hold.seconds * SECOND, askerGone(reply)));
    const found = fresh !== null && hold === null ? fresh : await find(item, request).catch(orElse(fresh));
    const view = await deps.predictions.view(found, links);

    return {
      code: hold === null || ended ? 201 : 202,
      headers: {
        location: view.urls.get,
        ...(hold !== null && { "preference-applied": hold.applied }),
      },
      view: asUnfinished(view),
    };
  }

  function readSingle(
    { kind, text, body }: { readonly kind: Target["kind"]; readonly text: string; readonly body: CreateBody },
    request: Asker,
  ): SingleInput {
    const { client, headers } = request;
    const account = chooseAccount(client.account ?? undefined, deps.accounts);
    const read = readRow({ input: body.input, [kind]: text }, {});
    const reason = read.ok
      ? read.row.target !== undefined && !account.targets.has(read.row.target.kind)
        ? `account ${account.name} can't run a ${read.row.target.kind}; it takes ${[...account.targets].join(", ")}`
        : null
      : read.reason;
    if (!read.ok || read.row.target === undefined || reason !== null) {
      throw invalidInput([{ type: "invalid_input", field: "", description: reason ?? "names no model" }]);
    }
    const key = readIdempotencyKey(headers["idempotency-key"]);
    return {
      tenant: client.tenant,
      account: account.name,
      identity: key === null ? null : `key:${key}`,
      row: { input: read.row.input, target: read.row.target },
      replyTo: null,
      cancelAfterMs: readCancelAfter(headers["cancel-after"]),
      webhook: readWebhook(body, request),
    };
  }

  function readWebhook(body: CreateBody, request: Asker): SingleInput["webhook"] {
    if (body.webhook === undefined) return null;
    const verdict = judgeUrl(new URL(body.webhook), deps.webhookHosts, "OUTLAST_WEBHOOK_HOSTS");
    if (verdict.kind === "refused") {
      const description = `${verdict.told}: webhooks are called over https, on public hosts`;
      throw invalidInput([{ type: "invalid_webhook", field: "webhook", description }]);
    }
    const events = new Set<WebhookEvent>(body.webhook_events_filter ?? ["output", "completed"]);
    return { url: body.webhook, events: [...events], base_url: deps.links.baseUrlOf(request) };
  }

  async function list(query: z.output<typeof schemas.predictionsQuery>, request: Asker) {
    const links = await deps.links.of(request);
    const page = await listSingles(
      {
        tenant: request.client.tenant,
        limit: PAGE,
        createdAfterMs: momentOf(query.created_after),
        createdBeforeMs: momentOf(query.created_before),
        cursor: query.cursor === undefined ? null : readCursor(query.cursor),
      },
      deps.listing,
    );
    const results: PredictionView[] = [];
    for (let at = 0; at < page.items.length; at += READS_AT_ONCE) {
      const views = page.items.slice(at, at + READS_AT_ONCE).map(async (item) => {
        const found = await find(item, request);
        return (await deps.predictions.isVoid(found)) ? [] : [await deps.predictions.view(found, links)];
      });
      results.push(...(await Promise.all(views)).flat());
    }
    return { previous: null, next: page.next === null ? null : nextUrl(links.baseUrl, query, page.next), results };
  }
}

function sendJson(reply: FastifyReply, text: string): FastifyReply {
  return reply.type("application/json").send(text);
}

/** What was admitted is told, also where Redis has gone away since. */
function orElse<T>(fresh: T | null): (error: unknown) => T {
  return (error) => {
    if (fresh === null) throw error;
    return fresh;
  };
}

function momentOf(text: string | undefined): number | null {
  return text === undefined ? null : Date.parse(text);
}

function nextUrl(baseUrl: string, query: z.output<typeof schemas.predictionsQuery>, cursor: SinglesCursor): string {
  const search = new URLSearchParams({ cursor: writeCursor(cursor) });
  if (query.created_after !== undefined) search.set("created_after", query.created_after);
  if (query.created_before !== undefined) search.set("created_before", query.created_before);
  return `${baseUrl}/v1/predictions?${search.toString()}`;
}

function writeCursor({ day, left }: SinglesCursor): string {
  const text = [day, ...Array.from(left, ([batch, count]) => `${batch}.${count}`)].join("/");
  return Buffer.from(text).toString("base64url");
}

function readCursor(text: string): SinglesCursor {
  const [day = "", ...entries] = Buffer.from(text, "base64url").toString("latin1").split("/");
  const left = new Map<BatchId, number>();
  for (const entry of entries) {
    const [, id = "", count] = /^(\w{20})\.(\d{1,9})$/.exec(entry) ?? [];
    const batch = parseBatchId(id);
    if (batch === null) throw notOurs();
    left.set(batch, Number(count));
  }
  if (!/^\d{1,6}$/.test(day)) throw notOurs();
  return { day: Number(day), left };
}

function notOurs(): Error {
  return invalidInput([{ type: "invalid_cursor", field: "querystring.cursor", description: "is no cursor of ours" }]);
}
