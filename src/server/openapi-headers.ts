/**
 * Headers as the API's description has them. Those of requests are read by hand, in `headers.ts`, `files.ts` and
 * `batches.ts`: here they are only told.
 */

import { HOUR, SECOND } from "../core/time.ts";
import { LONGEST_KEY, LONGEST_RUN_MS, LONGEST_WAIT_SECONDS, SHORTEST_RUN_MS } from "./headers.ts";

type Header = {
  readonly description: string;
  readonly schema: Readonly<Record<string, unknown>>;
  readonly example?: string;
};

const text = { type: "string" } as const;

const REQUEST = {
  "Idempotency-Key": {
    description: `1 to ${LONGEST_KEY} visible ASCII characters, in double quotes or without. The same key with the same input is
the same prediction, whichever server is asked; with another input it is refused with 422. Without a key, a create that was
answered 503, or not at all, may have been admitted: sent again it can be bought twice.`,
    schema: { ...text, minLength: 1, maxLength: LONGEST_KEY, pattern: "^[!-~]+$" },
    example: "fog-1",
  },
  Prefer: {
    description: `\`wait\`, or \`wait=n\` with 1 to ${LONGEST_WAIT_SECONDS} seconds: hold the answer until the prediction has ended, at
most so long; \`wait\` alone holds for ${LONGEST_WAIT_SECONDS}. Other preferences are ignored, as RFC 7240 has it.`,
    schema: text,
    example: "wait=30",
  },
  "Cancel-After": {
    description: `End the prediction then, bought or not: a number of seconds, or a duration in hours, minutes and seconds such as
\`1h30m45s\`; ${SHORTEST_RUN_MS / SECOND} seconds to ${LONGEST_RUN_MS / HOUR} hours.`,
    schema: text,
    example: "90s",
  },
  "Last-Event-ID": {
    description: "The `id` of the last event that was seen: if the batch still stands as it told, it isn't told again.",
    schema: text,
  },
  Range: {
    description:
      "One range of bytes, answered with 206. Several, or what can't be read, are answered with the whole file.",
    schema: text,
    example: "bytes=0-1023",
  },
  "If-Range": {
    description: "The `ETag` that `Range` is meant for; with another, the whole file comes.",
    schema: text,
  },
  "If-None-Match": {
    description: "`ETag`s that are had already, separated by commas: 304 if the file's is one of them.",
    schema: text,
  },
} as const satisfies Readonly<Record<string, Header>>;

const RESPONSE = {
  Location: { description: "Where it is.", schema: { ...text, format: "uri" } },
  "Preference-Applied": {
    description: "The part of `Prefer` that was followed, as it was written.",
    schema: text,
    example: "wait=30",
  },
  "Retry-After": {
    description: "In so many seconds it is worth asking again.",
    schema: { type: "integer", minimum: 1 },
  },
  "WWW-Authenticate": {
    description: "`Bearer`; to whoever accepts `text/html` also `Basic`, on a line of its own.",
    schema: text,
    example: 'Bearer realm="outlast"',
  },
  ETag: { description: "The file's SHA-256 in hex, in double quotes.", schema: text },
  "Accept-Ranges": { description: "Always `bytes`.", schema: text },
  "Cache-Control": { description: "An address leads to the same bytes for ever.", schema: text },
  "Content-Disposition": {
    description: "The file's name; `inline` for what a browser may show by itself.",
    schema: text,
  },
  "Content-Range": {
    description: "Which bytes these are, and of how many.",
    schema: text,
    example: "bytes 0-1023/4096",
  },
} as const satisfies Readonly<Record<string, Header>>;

export type RequestHeader = keyof typeof REQUEST;
export type ResponseHeader = keyof typeof RESPONSE;

/** The document's `components` of headers, by their names. */
export const HEADER_COMPONENTS = {
  parameters: Object.fromEntries(
    Object.entries(REQUEST).map(([name, header]) => [name, { name, in: "header", required: false, ...header }]),
  ),
  headers: RESPONSE,
};

export function asksWith(name: RequestHeader): { readonly $ref: string } {
  return { $ref: `#/components/parameters/${name}` };
}

export function answersWith(names: readonly ResponseHeader[]): Readonly<Record<string, { readonly $ref: string }>> {
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}
