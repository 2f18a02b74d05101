/**
 * The host of output files, in the manner of replicate.delivery: no auth, unguessable addresses, ranges (RFC 9110),
 * gone when the prediction's data is. Files are made from the input while they are sent. What an expired or unknown
 * address gives isn't documented; here it is the 404 of the object store that such hosts usually stand on.
 */

import { createHash } from "node:crypto";
import { tokenIn } from "./accounts.ts";
import { type Answer, html, whole } from "./answer.ts";
import type { Books } from "./books.ts";
import { drawName } from "./chance.ts";
import type { OutputFile } from "./model.ts";
import { isTerminal } from "./prediction.ts";
import type { Predictions } from "./predictions.ts";
import type { Call, Exchange } from "./serve.ts";
import type { StrayTokens } from "./stray-tokens.ts";

const ID_LENGTH = 26;
const ADDRESS = new RegExp(`^/xezq/([0-9a-z]{${ID_LENGTH}})([0-9a-z]{18})/([^/]+)$`);

export type FileHostDeps = {
  readonly seed: string;
  readonly predictions: Predictions;
  readonly books: Books;
  readonly strays: StrayTokens;
};

/** The path of a file's address; nobody without the seed can make one. */
export function filePath(seed: string, predictionId: string, index: number, name: string): string {
  return `/xezq/${predictionId}${mark(seed, predictionId, index)}/${name}`;
}

export function fileRoute(deps: FileHostDeps): Exchange {
  return { surface: "files", route: "file", refuse, answer: (call) => answerFile(call, deps) };
}

function refuse(status: number): Answer {
  if (status !== 404) return html(status, "Refused");
  const error = "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>";
  return whole(404, "application/xml; charset=UTF-8", `<?xml version="1.0" encoding="UTF-8"?>${error}`);
}

function answerFile(call: Call, deps: FileHostDeps): Answer {
  const authorization = call.header("authorization");
  if (authorization !== undefined) deps.strays.note("file host", tokenIn(authorization) ?? authorization);
  deps.strays.search("url", call.url.href);
  if (call.method !== "GET" && call.method !== "HEAD") return html(405, "Method Not Allowed", { allow: "GET, HEAD" });

  const found = findFile(call.url.pathname, deps);
  if (found === null) return refuse(404);
  const { prediction, file, index } = found;
  const source = sourceOf(file);
  const etag = `"${prediction.digest.slice(0, 30)}-${index}"`; // the bytes depend on the input alone
  const headers = { "content-type": file.contentType, etag, "accept-ranges": "bytes" };

  const ifRange = call.header("if-range");
  const range =
    ifRange === undefined || ifRange === etag ? parseRange(call.header("range"), source.sizeBytes) : "whole";
  if (range === "unsatisfiable") {
    return html(416, "Range Not Satisfiable", { "content-range": `bytes */${source.sizeBytes}` });
  }
  const { from, to } = range === "whole" ? { from: 0, to: source.sizeBytes } : range;
  const chunks = booked(source.read(from, to), call, range === "whole", (sha256) =>
    deps.books.fetched(prediction, file.name, source.sizeBytes, sha256),
  );
  return {
    status: range === "whole" ? 200 : 206,
    headers:
      range === "whole" ? headers : { ...headers, "content-range": `bytes ${from}-${to - 1}/${source.sizeBytes}` },
    body: { kind: "stream", sizeBytes: to - from, chunks },
  };
}

function findFile(pathname: string, deps: FileHostDeps) {
  const [, id = "", given, name] = ADDRESS.exec(pathname) ?? [];
  const prediction = deps.predictions.find(id);
  if (!prediction || !isTerminal(prediction.status) || prediction.dataRemoved) return null;
  const files = prediction.model.files(prediction.input, prediction.digest);
  const index = files.findIndex((file) => file.name === name);
  const file = files[index];
  return file && given === mark(deps.seed, id, index) ? { prediction, file, index } : null;
}

function mark(seed: string, predictionId: string, index: number): string {
  return drawName(seed, `file ${predictionId} ${index}`, 18);
}

type Source = { readonly sizeBytes: number; read(from: number, to: number): Iterable<Buffer> };

function sourceOf({ content }: OutputFile): Source {
  if (content.kind === "stream") return content;
  const bytes = content.make();
  return { sizeBytes: bytes.length, read: (from, to) => [bytes.subarray(from, to)] };
}

/** Runs along with the bytes; when the last has been taken, or the asker is gone, it tells the books. */
function* booked(
  chunks: Iterable<Buffer>,
  call: Call,
  isWhole: boolean,
  tell: (sha256: string | null) => void,
): Generator<Buffer> {
  const sum = isWhole ? createHash("sha256") : null;
  let taken = false;
  try {
    for (const chunk of chunks) {
      sum?.update(chunk);
      yield chunk;
    }
    taken = true;
  } finally {
    tell(taken && !call.gone.aborted ? (sum?.digest("hex") ?? null) : null);
  }
}

/** `to` is exclusive. Several ranges at once are answered by the whole, as a server may. */
function parseRange(
  header: string | undefined,
  sizeBytes: number,
): "whole" | "unsatisfiable" | { readonly from: number; readonly to: number } {
  const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(header ?? "") ?? [];
  if (first === "" && last === "") return "whole";
  if (first === "") {
    const lengthBytes = Math.min(Number(last), sizeBytes);
    return lengthBytes === 0 ? "unsatisfiable" : { from: sizeBytes - lengthBytes, to: sizeBytes };
  }
  const from = Number(first);
  if (from >= sizeBytes) return "unsatisfiable";
  const to = last === "" ? sizeBytes : Math.min(Number(last) + 1, sizeBytes);
  return to <= from ? "whole" : { from, to };
}
