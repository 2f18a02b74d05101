/**
 * What a route says, as a value: status, headers, body. Handlers return it and touch no socket; `serve.ts` sends it,
 * or does something worse with it. Also the bodies of errors, as they were captured from Replicate.
 */

export type Answer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Body;
};

export type Body =
  | { readonly kind: "whole"; readonly bytes: Buffer }
  /** `sizeBytes` is null where the length isn't known before. */
  | {
      readonly kind: "stream";
      readonly sizeBytes: number | null;
      readonly chunks: Iterable<Buffer> | AsyncIterable<Buffer>;
    };

export function whole(status: number, contentType: string, text: string, headers: Answer["headers"] = {}): Answer {
  return {
    status,
    headers: { "content-type": contentType, ...headers },
    body: { kind: "whole", bytes: Buffer.from(text) },
  };
}

export function json(status: number, value: unknown, headers?: Answer["headers"]): Answer {
  return whole(status, "application/json", JSON.stringify(value), headers);
}

/** In the manner of RFC 7807; `title` is missing from some captured ones. */
export type Problem = { readonly title?: string; readonly detail: string; readonly status: number } & Readonly<
  Record<string, unknown>
>;

export function problem(body: Problem, headers?: Answer["headers"]): Answer {
  return whole(body.status, "application/problem+json", JSON.stringify(body), headers);
}

/** What stands before an API answers like this when the API itself doesn't. */
export function html(status: number, text: string, headers?: Answer["headers"]): Answer {
  const page = `<html>\r\n<head><title>${status} ${text}</title></head>\r\n<body>\r\n<center><h1>${status} ${text}</h1></center>\r\n</body>\r\n</html>\r\n`;
  return whole(status, "text/html", page, headers);
}

export function throttled(waitMs: number, perMinute: number, withHeader: boolean): Answer {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  const problemBody = {
    title: "Request was throttled",
    detail: `Request was throttled. This account may send ${perMinute} such requests per minute. Your rate limit resets in ~${seconds}s.`,
    status: 429,
    retry_after: seconds,
  };
  return problem(problemBody, withHeader ? { "retry-after": String(seconds) } : {});
}

/** Replicate's answer of a status, in the shape documented or captured for it: what an armed fault gives. */
export function refusal(status: number, retryAfterHeader: boolean): Answer {
  switch (status) {
    case 401:
      return problem({ title: "Unauthenticated", detail: "You did not pass a valid authentication token", status });
    case 402:
      return problem({
        title: "Insufficient credit",
        detail: "You have insufficient credit to run this model. Top up your account and try again.",
        status,
      });
    case 404:
      return problem({ detail: "The requested resource could not be found.", status });
    case 413:
      return html(413, "Request Entity Too Large");
    case 422:
      return problem({ title: "Input validation failed", detail: "- input: refused\n", status, invalid_fields: [] });
    case 429:
      return throttled(1_000, 600, retryAfterHeader);
    case 500:
      // 41 bytes of JSON, no rate-limit headers: replicate-python#379.
      return json(500, { detail: "An unexpected error occurred" });
    default:
      return status >= 500 ? html(status, "Server Error") : problem({ detail: `Refused with ${status}.`, status });
  }
}
