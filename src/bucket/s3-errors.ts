/** What an S3 store's refusals mean, and how they are told to a person: one line, the address, the remedy, no secret. */

import { BucketError } from "./bucket.ts";
import { codeOf } from "./file-errors.ts";

type Asked = {
  /** "writing", "reading", … */
  readonly doing: string;
  /** `s3://bucket/key` */
  readonly where: string;
  readonly bucket: string;
  /** Null on AWS. */
  readonly endpoint: string | null;
};

/** The object isn't there. (A missing bucket answers 404 too, but says so, except to HEAD.) */
export function namesNoKey(error: unknown): boolean {
  return statusOf(error) === 404 && nameOf(error) !== "NoSuchBucket";
}

/** How a conditional put was refused: the key is taken, or another write to it is in progress. */
export function wasRefusedAsTaken(error: unknown): "taken" | "conflict" | "no" {
  const status = statusOf(error);
  if (status === 412) return "taken";
  return status === 409 && nameOf(error) !== "OperationAborted" ? "conflict" : "no";
}

export function translated(error: unknown, asked: Asked): unknown {
  if (error instanceof BucketError) return error;
  if (!(error instanceof Error)) return error;
  const at = asked.endpoint === null ? "" : ` at ${asked.endpoint}`;
  const failed = `${asked.doing} ${asked.where}${at} failed`;
  const name = nameOf(error);
  const status = statusOf(error);
  // HEAD's refusals have no body to name them.
  const told = status === undefined ? name : name === "Unknown" ? `HTTP ${status}` : `${name}, HTTP ${status}`;
  const make = (code: BucketError["code"], came: string, remedy: string): BucketError =>
    new BucketError(code, `${failed}: ${came}; ${remedy}`, withoutRequest(error));

  if (name === "NoSuchBucket") {
    return make("missing-bucket", `there is no bucket ${asked.bucket}`, "create it or correct OUTLAST_BUCKET");
  }
  if (name === "CredentialsProviderError" || /credential/i.test(name)) {
    return make(
      "denied",
      "no usable credentials were found",
      "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    );
  }
  if (name === "RequestTimeTooSkewed") {
    return make("denied", "this machine's clock differs too much from the store's", "set the clock");
  }
  if (status === 401 || status === 403) {
    return make(
      "denied",
      `the store refused (${told})`,
      "check the credentials and that they may read, write, list and delete there",
    );
  }
  if (status === 301 || name === "PermanentRedirect" || name === "AuthorizationHeaderMalformed") {
    return make("denied", `the bucket is in another region (${told})`, "set AWS_REGION to the bucket's region");
  }
  if (status === 501) {
    return make(
      "failed",
      `the store doesn't know this operation (${told})`,
      "use a store that passes `outlast doctor`",
    );
  }
  if (status === undefined || status >= 500) {
    const remedy =
      asked.endpoint === null
        ? "check the network, and try again"
        : "check that the store runs and that OUTLAST_S3_ENDPOINT names it";
    return make("unreachable", status === undefined ? silence(error) : `the store is in trouble (${told})`, remedy);
  }
  return make("failed", `the store refused (${told})`, "check the bucket's settings with `outlast doctor`");
}

/** What a request without an answer met. */
function silence(error: Error): string {
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  const cause = error instanceof AggregateError ? error.errors.map(codeOf).find((inner) => inner !== "") : undefined;
  if (code !== "" || cause !== undefined) return `no answer (${code === "" ? cause : code})`;
  return error.name === "AbortError" || error.name === "TimeoutError"
    ? "no answer in time"
    : `no answer (${error.name})`;
}

/** The SDK's errors carry the response and what the store echoed of our request; only name and words are kept. */
function withoutRequest(error: Error): Error {
  const kept = new Error(oneLine(error.message));
  kept.name = error.name;
  if (error.stack !== undefined)
    kept.stack = `${kept.name}: ${kept.message}\n${error.stack
      .split("\n")
      .filter((line) => /^\s+at /.test(line))
      .join("\n")}`;
  return kept;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").slice(0, 500);
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : "";
}

/** The HTTP status that the SDK noted in its error, if there was an answer. */
export function statusOf(error: unknown): number | undefined {
  return (error as { $metadata?: { httpStatusCode?: number } } | undefined)?.$metadata?.httpStatusCode;
}
