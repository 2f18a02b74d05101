/**
 * Reads what a provider says when it says no, in whatever shape: problem+json (Replicate), an OpenAI-like envelope
 * (CometAPI), a list of validation errors (cog), an HTML page (a proxy in between), or nothing.
 *
 * Shapes as of 2026-11, from the providers' pages and recorded answers. Never throws: an error about an error helps nobody.
 */

import { z } from "zod";

export type Problem = {
  /** The provider's own words, at most 2,000 characters; empty if it said nothing. */
  readonly detail: string;
  readonly code: string | null;
  readonly retryAfterSeconds: number | null;
};

const LONGEST_DETAIL = 2_000;
const LONGEST_PAGE_EXCERPT = 200;

const word = z.union([z.string(), z.number()]).transform(String).nullish().catch(null);
const digits = z
  .string()
  .regex(/^\d{1,9}(\.\d{1,9})?$/)
  .transform(Number);
const seconds = z.union([z.number(), digits]).nullish().catch(null);

const envelope = z.looseObject({
  title: word,
  detail: z.unknown().optional(),
  message: word,
  code: word,
  retry_after: seconds,
  error: z.unknown().optional(),
});
const inner = z.looseObject({ message: word, code: word, type: word, retry_after: seconds });
const complaint = z.looseObject({ msg: z.string(), loc: z.array(z.union([z.string(), z.number()])).catch([]) });

export function readProblem(text: string): Problem {
  const body = envelope.safeParse(asJson(text)).data;
  if (body === undefined) return { detail: firstWords(text), code: null, retryAfterSeconds: null };

  const error = inner.safeParse(body.error).data;
  const sentence =
    sentences(body.detail) ?? error?.message ?? (typeof body.error === "string" ? body.error : null) ?? body.message;
  const detail = [body.title, sentence].filter((part) => typeof part === "string" && part !== "").join(": ");
  return {
    detail: (detail || firstWords(text)).slice(0, LONGEST_DETAIL),
    code: error?.code ?? error?.type ?? body.code ?? null,
    retryAfterSeconds: body.retry_after ?? error?.retry_after ?? null,
  };
}

/** `detail` is a sentence, or cog's list of complaints. */
function sentences(detail: unknown): string | null {
  if (typeof detail === "string") return detail;
  const complaints = z.array(complaint).safeParse(detail).data;
  return complaints?.map(({ loc, msg }) => [loc.join("."), msg].filter(Boolean).join(": ")).join("; ") || null;
}

export function asJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The readable beginning of anything, markup left out. */
export function firstWords(text: string): string {
  return text
    .slice(0, 10 * LONGEST_DETAIL)
    .replace(/<(script|style)\b[^]*?(?:<\/\1\s*>|$)/gi, " ")
    .replace(/<[^<>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, LONGEST_PAGE_EXCERPT);
}
