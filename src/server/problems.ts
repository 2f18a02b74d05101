/**
 * Every error leaves as problem+json (RFC 9457): a title, the status, and what can be told without secrets. A body that
 * can't be read as what it should be is told in the shape of Replicate's API: `invalid_fields`, a line for each.
 */

import { STATUS_CODES } from "node:http";
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest, FastifyServerOptions } from "fastify";
import { CannotHold } from "../batches/hold-batch.ts";
import { AdmissionBusy, IdentityTaken, InputRefused } from "../batches/single-input.ts";
import { BadRows } from "../batches/submit-batch.ts";
import { BucketError } from "../bucket/bucket.ts";
import { RowsError } from "../rows/rows-error.ts";
import { REQUIRED } from "./schemas.ts";

export type InvalidField = { readonly type: string; readonly field: string; readonly description: string };

type Problem = {
  readonly status: number;
  readonly detail: string;
  readonly title?: string;
  readonly retryAfterSeconds?: number;
  readonly more?: Readonly<Record<string, unknown>>;
};

/** Thrown by whoever handles a request; the message is for the asker. */
export class HttpProblem extends Error {
  override readonly name = "HttpProblem";
  readonly problem: Problem;

  constructor(status: number, detail: string, more: Omit<Problem, "status" | "detail"> = {}) {
    super(detail);
    this.problem = { status, detail, ...more };
  }
}

const INVALID = "Input validation failed";
/** A body of 2 MB has room for a hundred thousand. */
const MAX_FIELDS = 100;
const LONGEST_NAME = 100;
const NO_BODY: InvalidField = { type: "required", field: "", description: "body is required" };
/** Soon enough to go on by itself, rare enough to let what is down come up. */
const RETRY_AFTER_SECONDS = 5;

export function sendProblem(reply: FastifyReply, status: number, detail: string): FastifyReply {
  return send(reply, { status, detail });
}

/** For what is out of reach, and will be back. */
export function sendOutage(reply: FastifyReply, detail: string): FastifyReply {
  return send(reply, outage(detail));
}

export function typeNotTaken({ headers, routeOptions }: Pick<FastifyRequest, "headers" | "routeOptions">): HttpProblem {
  const type = headers["content-type"];
  const given = type === undefined ? "a body without a Content-Type" : JSON.stringify(type.slice(0, 100));
  const taken = routeOptions.config.rows
    ? "rows, a line of JSON each, as application/x-ndjson"
    : "JSON, as application/json";
  return new HttpProblem(415, `${given} isn't taken here: this takes ${taken}`);
}

export function invalidInput(all: readonly InvalidField[]): HttpProblem {
  const fields = all.slice(0, MAX_FIELDS);
  const lines = fields.map(({ field, description }) => `- ${field === "" ? "" : `${field}: `}${description}\n`);
  const left = all.length - fields.length;
  if (left > 0) lines.push(`- and ${left} more\n`);
  const more = { invalid_fields: fields, ...(left > 0 && { more_invalid_fields: left }) };
  return new HttpProblem(422, lines.join(""), { title: INVALID, more });
}

/** For what no route handles, and for what a route throws. The cause of a 5xx goes to the log, not to the asker. */
export function answerProblems(app: FastifyInstance): void {
  app.setNotFoundHandler((request, reply) =>
    sendProblem(reply, 404, `there is nothing at ${request.method} ${pathOf(request)}`),
  );
  app.setErrorHandler((error: FastifyError, request, reply) => {
    const problem = problemOf(error, request);
    const path = pathOf(request);
    if (problem.status === 503) request.log.warn({ path, reason: error.message }, "a request can't be answered now");
    else if (problem.status >= 500) request.log.error({ err: error, path }, "a request failed");
    return send(reply, problem);
  });
}

/** For addresses that no route can be looked up by. */
export const answerBadUrls: NonNullable<FastifyServerOptions["frameworkErrors"]> = (error, _request, reply) => {
  const isLong = error.code === "FST_ERR_MAX_PARAM_LENGTH";
  const detail = isLong ? "a part of the URL is too long" : "the URL holds what no URL can: is a % in it meant as %25?";
  void sendProblem(reply, isLong ? 414 : 400, detail);
};

function send(reply: FastifyReply, { status, detail, title, retryAfterSeconds, more }: Problem): FastifyReply {
  if (retryAfterSeconds !== undefined) reply.header("retry-after", Math.max(Math.ceil(retryAfterSeconds), 1));
  const body = { title: title ?? STATUS_CODES[status] ?? "Error", status, detail, ...more };
  return reply
    .code(status)
    .type("application/problem+json")
    .send(Buffer.from(JSON.stringify(body))); // JSON has no charset
}

/** What can be told of an error, whoever threw it. */
export function problemOf(error: FastifyError, request: FastifyRequest): Problem {
  if (error instanceof HttpProblem) return error.problem;
  if (error.code === "FST_ERR_CTP_INVALID_MEDIA_TYPE") return typeNotTaken(request).problem;
  if (error.validationContext === "body" && request.body === undefined) return invalidInput([NO_BODY]).problem;
  if (error.validation !== undefined) return invalidInput(fieldsOf(error)).problem;
  if (error instanceof IdentityTaken) return { status: 422, title: "Idempotency-Key taken", detail: error.message };
  if (error instanceof InputRefused || error instanceof RowsError) {
    return invalidInput([{ type: "invalid_input", field: "", description: error.message }]).problem;
  }
  if (error instanceof BadRows) return badRows(error);
  if (error instanceof CannotHold) return { status: 409, detail: error.message };
  const down = outageOf(error);
  if (down !== null) return outage(down);
  const status = error.statusCode ?? 500;
  if (status < 500) return { status, detail: error.message };
  return { status, detail: "the server failed to answer this; its log says why" };
}

function outage(detail: string): Problem {
  return { status: 503, detail, retryAfterSeconds: RETRY_AFTER_SECONDS };
}

function badRows({ rows, more, message }: BadRows): Problem {
  const shown = rows.map(({ line, reason }) => `- line ${line}: ${reason}\n`).join("");
  return {
    status: 422,
    title: INVALID,
    detail: `${message}\n${shown}`,
    more: { invalid_rows: rows, more_invalid_rows: more },
  };
}

/** What doesn't answer and will again, by the errors of those who asked it. */
function outageOf(error: Error): string | null {
  if (error instanceof AdmissionBusy) return `${error.message}: the server is too busy at the moment`;
  if (error instanceof BucketError && error.code !== "bad-key" && error.code !== "too-large") {
    return `the bucket can't be used at the moment (${error.code}); nothing was lost, try again`;
  }
  const { code, name, message } = error as NodeJS.ErrnoException;
  const isRedis =
    name === "MaxRetriesPerRequestError" ||
    (name === "ReplyError" && /^(LOADING|OOM|READONLY|MISCONF|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY) /.test(message)) ||
    /^(Connection is closed|Command timed out|Stream isn't writeable)/.test(message);
  if (isRedis || code === "ECONNREFUSED") return "Redis doesn't answer at the moment; nothing was lost, try again";
  if (code === "ENOSPC" || code === "EDQUOT") return "no space is left on the server; try again";
  return null;
}

function fieldsOf({ validation = [], validationContext }: FastifyError): readonly InvalidField[] {
  return validation.flatMap((entry) => {
    const { keyword: type, params, message = "is invalid" } = entry;
    const field = fieldName(entry.instancePath, validationContext);
    // What fastify-type-provider-zod makes of zod's issues: the code is the keyword, the rest are the parameters.
    if (type === "unrecognized_keys" && Array.isArray(params["keys"])) {
      return params["keys"].map((key: unknown) => ({
        type: "additional_property_not_allowed",
        field,
        description: `Additional property ${cut(String(key))} is not allowed`,
      }));
    }
    if (message === REQUIRED || (type === "invalid_type" && message.endsWith("received undefined"))) {
      const path = field.split(".");
      const missing = path.at(-1) || (validationContext ?? "it");
      return [{ type: "required", field: path.slice(0, -1).join("."), description: `${missing} is required` }];
    }
    return [{ type, field, description: message }];
  });
}

function cut(name: string): string {
  return name.length > LONGEST_NAME ? `${name.slice(0, LONGEST_NAME - 3)}...` : name;
}

function fieldName(instancePath: string, context: string | undefined): string {
  const path = instancePath.split("/").filter((part) => part !== "");
  return [...(context === "body" || context === undefined ? [] : [context]), ...path].join(".");
}

/** Without its query, which may hold what shouldn't be repeated. */
export function pathOf(request: FastifyRequest): string {
  return request.url.split("?", 1)[0]?.slice(0, 200) ?? "/";
}
