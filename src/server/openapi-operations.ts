/**
 * What the API's description says of an operation beyond its route's schemas, by the operation's id: headers that are read
 * by hand, bodies that aren't JSON, what each answer means. Ids are those of Replicate's own description, where it has
 * the operation, and made like them where it hasn't: clients that are generated from either have the same names.
 */

import { type Asked, type ErrorName, errorAnswers } from "./openapi-errors.ts";
import { answersWith, asksWith, type RequestHeader, type ResponseHeader } from "./openapi-headers.ts";
import { EVENTS_OUT, FILE_OUT, RESULTS_OUT, ROWS_IN } from "./openapi-streams.ts";

type Answer = {
  readonly description: string;
  readonly headers?: readonly ResponseHeader[];
  /** Where it isn't JSON by the route's schema. */
  readonly content?: object;
};

type Told = {
  readonly description?: string;
  readonly headers?: readonly RequestHeader[];
  readonly rows?: typeof ROWS_IN;
  /** Its route's schema only refuses what somebody may send all the same. */
  readonly takesNothing?: true;
  readonly answers: Readonly<Record<number, Answer>>;
  readonly errors?: readonly ErrorName[];
};

/** An operation as the route's schemas make it. */
export type Operation = {
  readonly operationId?: string;
  readonly parameters?: readonly { readonly in?: string }[];
  readonly requestBody?: object;
  readonly responses?: Readonly<Record<string, object>>;
};

const CREATE: Told = {
  description: `It is durable once this is answered, and bought at most once under one \`Idempotency-Key\`. Files go into the input as
URLs, or small as data URLs.`,
  headers: ["Idempotency-Key", "Prefer", "Cancel-After"],
  answers: {
    201: {
      description: "It is admitted, or was under this key before. With `Prefer: wait`: it has ended.",
      headers: ["Location", "Preference-Applied"],
    },
    202: {
      description:
        "It is admitted, and hadn't ended when the time that `Prefer: wait` gives it was over: ask for it again.",
      headers: ["Location", "Preference-Applied"],
    },
  },
};

const standsSo = (description: string): Told => ({
  takesNothing: true,
  answers: { 200: { description } },
  errors: ["NotFound", "Conflict"],
});

const FILE_HEADERS = ["ETag", "Accept-Ranges", "Cache-Control", "Content-Disposition"] as const;

const OPERATIONS: Readonly<Record<string, Told>> = {
  "predictions.create": CREATE,
  "models.predictions.create": CREATE,
  "deployments.predictions.create": CREATE,
  "predictions.list": {
    description: "Those that were created one by one; a batch's are in its results.",
    answers: { 200: { description: "A page; `next` is the address of the one that follows, or null." } },
  },
  "predictions.get": {
    description: "Any item's, also a batch's.",
    answers: { 200: { description: "The prediction as it stands." } },
    errors: ["NotFound"],
  },
  "predictions.cancel": {
    takesNothing: true,
    description: "One that has ended stays as it is.",
    answers: { 200: { description: "The prediction as it stands; a cancel may take a while longer to show." } },
    errors: ["NotFound"],
  },
  "batches.create": {
    description: `Every row is validated before any is taken. The same rows under the same name are the same batch, so sending them again
buys nothing again.`,
    rows: ROWS_IN,
    answers: {
      200: { description: "These rows are a batch already: this one.", headers: ["Location"] },
      201: { description: "The batch is made.", headers: ["Location"] },
    },
  },
  "batches.list": {
    answers: { 200: { description: "A page; `next` is the address of the one that follows, or null." } },
  },
  "batches.get": { answers: { 200: { description: "The batch as it stands." } }, errors: ["NotFound"] },
  "batches.results.list": {
    answers: {
      200: { description: "All items.", headers: ["Content-Disposition"], content: RESULTS_OUT },
    },
    errors: ["NotFound"],
  },
  "batches.events.follow": {
    description: "It tells how the batch stands, and again after every change, and ends when the batch has finished.",
    headers: ["Last-Event-ID"],
    answers: {
      200: { description: "Events named `batch`, as they happen.", content: EVENTS_OUT },
      204: { description: "The batch has finished, and `Last-Event-ID` has seen that: there is no more to come." },
    },
    errors: ["NotFound"],
  },
  "batches.pause": standsSo("The batch, paused. What is bought goes on."),
  "batches.resume": standsSo("The batch, which goes on."),
  "batches.cancel": standsSo("The batch, canceled. What succeeded anyway is saved."),
  "files.get": {
    description: `The addresses in a prediction's output lead here and are signed: for a week their \`expires\` and \`signature\` stand in
for a key. Read the prediction again for fresh ones.`,
    headers: ["Range", "If-Range", "If-None-Match"],
    answers: {
      200: { description: "The whole file, in its own type.", headers: FILE_HEADERS, content: FILE_OUT },
      206: {
        description: "The range that was asked for.",
        headers: [...FILE_HEADERS, "Content-Range"],
        content: FILE_OUT,
      },
      304: { description: "The file is one that is had already, by `If-None-Match`.", headers: FILE_HEADERS },
    },
    errors: ["NotFound", "NoSuchRange"],
  },
  "account.get": { answers: { 200: { description: "The key's tenant, in the form of an account at Replicate." } } },
  "webhooks.default.secret.get": {
    description: "Calls of a prediction's `webhook` are signed as Standard Webhooks has it. A viewer's key isn't told.",
    answers: { 200: { description: "The secret, with its prefix `whsec_`." } },
  },
};

/** `config`: its route's. Throws where nothing is told of it. */
export function completeOperation(
  operation: Operation,
  config: { readonly open?: boolean; readonly writes?: boolean },
): object {
  const told = OPERATIONS[operation.operationId ?? ""];
  if (told === undefined) throw new TypeError(`nothing is told of the operation ${operation.operationId}`);
  const { requestBody: taken, ...described } = operation;
  const { parameters = [], responses = {} } = described;
  const ofRoute = told.takesNothing === true ? undefined : taken;
  const requestBody = told.rows === undefined ? ofRoute : { required: true, content: told.rows };
  const asked: Asked = {
    open: config.open === true,
    writes: config.writes === true,
    body: requestBody !== undefined,
    path: parameters.some((parameter) => parameter.in === "path"),
    query: parameters.some((parameter) => parameter.in === "query"),
  };
  const answers = Object.entries(told.answers).map(([status, { description, headers = [], content }]) => [
    status,
    {
      ...responses[status],
      description,
      ...(headers.length > 0 && { headers: answersWith(headers) }),
      ...(content !== undefined && { content }),
    },
  ]);
  const { description, headers = [], errors = [] } = told;
  return {
    ...described,
    ...(description !== undefined && { description }),
    parameters: [...parameters, ...headers.map(asksWith)],
    ...(requestBody !== undefined && { requestBody }),
    responses: { ...responses, ...Object.fromEntries(answers), ...errorAnswers(asked, errors) },
  };
}
