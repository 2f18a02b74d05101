/** Errors as the API's description has them: what each means, and to which of them an operation can come. */

import { z } from "zod";
import { answersWith, type ResponseHeader } from "./openapi-headers.ts";
import * as schemas from "./schemas.ts";

type ErrorAnswer = {
  readonly status: number;
  readonly description: string;
  readonly headers?: readonly ResponseHeader[];
  readonly schema?: z.ZodType;
};

const ERRORS = {
  Unreadable: {
    status: 400,
    description: "The body broke off, or isn't JSON in UTF-8; or the address holds what no URL can.",
  },
  NoKey: {
    status: 401,
    description: "There is no API key, or none that is known here.",
    headers: ["WWW-Authenticate"],
  },
  Unsigned: { status: 401, description: "There is no API key, and no signature, or one that holds no more." },
  Forbidden: {
    status: 403,
    description: "The key is a viewer's, which may look and not change anything; or another site's page sent this.",
  },
  NotFound: { status: 404, description: "There is none such, or it is another tenant's." },
  TooSlow: { status: 408, description: "The body took too long to arrive." },
  Conflict: { status: 409, description: "This can't be done to the batch as it stands; `detail` says why." },
  TooLarge: {
    status: 413,
    description: "The body, or a piece of it, is larger than it may be; `detail` says how large that is.",
  },
  WrongType: { status: 415, description: "The body has another `Content-Type`, none, or a `Content-Encoding`." },
  NoSuchRange: {
    status: 416,
    description: "The range begins behind the file's end.",
    headers: ["Content-Range"],
  },
  Invalid: {
    status: 422,
    description: `What was asked can't be taken, and nothing has come of it: \`invalid_fields\` says why field by field,
\`invalid_rows\` line by line. Or the \`Idempotency-Key\` stands for another input.`,
    schema: schemas.invalid,
  },
  LimitReached: {
    status: 429,
    description:
      "The key's requests, bytes or rows of this minute are used up, or it has too many streams of events open.",
    headers: ["Retry-After"],
  },
  Unavailable: {
    status: 503,
    description: `Redis or the bucket can't be used at the moment, or the server is closing. Ask again; what creates something, under the
\`Idempotency-Key\` it had.`,
    headers: ["Retry-After"],
  },
} as const satisfies Readonly<Record<string, ErrorAnswer>>;

export type ErrorName = keyof typeof ERRORS;

/** What decides to which errors an operation can come. */
export type Asked = {
  /** It is open to whoever brings a signature, and decides by itself. */
  readonly open: boolean;
  readonly writes: boolean;
  readonly body: boolean;
  readonly path: boolean;
  readonly query: boolean;
};

/** The document's `components.responses`. */
export const ERROR_COMPONENTS = Object.fromEntries(
  Object.entries<ErrorAnswer>(ERRORS).map(([name, { description, headers = [], schema = schemas.problem }]) => [
    name,
    {
      description,
      ...(headers.length > 0 && { headers: answersWith(headers) }),
      content: { "application/problem+json": { schema: schemaRef(schema) } },
    },
  ]),
);

/** `own`: those that only this operation's doing can come to. */
export function errorAnswers(
  asked: Asked,
  own: readonly ErrorName[],
): Readonly<Record<number, { readonly $ref: string }>> {
  const names: readonly ErrorName[] = [
    ...(asked.body || asked.path ? (["Unreadable"] as const) : []),
    asked.open ? "Unsigned" : "NoKey",
    ...(asked.writes ? (["Forbidden"] as const) : []),
    ...(asked.body ? (["TooSlow", "TooLarge", "WrongType"] as const) : []),
    ...(asked.body || asked.path || asked.query ? (["Invalid"] as const) : []),
    ...(asked.open ? [] : (["LimitReached"] as const)),
    "Unavailable",
    ...own,
  ];
  return Object.fromEntries(names.map((name) => [ERRORS[name].status, { $ref: `#/components/responses/${name}` }]));
}

/** Where the document has a schema that has a name. */
export function schemaRef(schema: z.ZodType): { readonly $ref: string } {
  const id = z.globalRegistry.get(schema)?.id;
  if (id === undefined) throw new TypeError("only a schema with an id can be referred to");
  return { $ref: `#/components/schemas/${id}` };
}
