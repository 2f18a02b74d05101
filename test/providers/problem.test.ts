import fc from "fast-check";
import { expect, test } from "vitest";
import { readProblem } from "../../src/providers/problem.ts";

test.each<[name: string, body: unknown, expected: Partial<ReturnType<typeof readProblem>>]>([
  [
    "problem+json",
    { title: "Insufficient credit", detail: "Buy some.", status: 402 },
    { detail: "Insufficient credit: Buy some.", code: null },
  ],
  [
    "detail alone",
    { detail: "The requested resource could not be found.", status: 404 },
    { detail: "The requested resource could not be found." },
  ],
  ["title alone", { title: "Unauthenticated" }, { detail: "Unauthenticated" }],
  ["the wait as a number", { detail: "Throttled", status: 429, retry_after: 5 }, { retryAfterSeconds: 5 }],
  ["the wait as digits", { detail: "Throttled", retry_after: "5.5" }, { retryAfterSeconds: 5.5 }],
  ["the wait as nonsense", { detail: "Throttled", retry_after: [] }, { detail: "Throttled", retryAfterSeconds: null }],
  [
    "OpenAI's envelope",
    { error: { message: "No such model (request id: 2026)", code: "invalid_request", type: "x" } },
    { detail: "No such model (request id: 2026)", code: "invalid_request" },
  ],
  [
    "its type for want of a code",
    { error: { message: "No", type: "rate_limit_error", code: null } },
    { detail: "No", code: "rate_limit_error" },
  ],
  ["an error that is a sentence", { error: "prediction is busy", status: "failed" }, { detail: "prediction is busy" }],
  [
    "a wrapper's code and message",
    { code: "task_not_exist", message: "no task", data: null },
    { detail: "no task", code: "task_not_exist" },
  ],
  ["a code that is a number", { code: 1042, message: "no" }, { code: "1042" }],
  [
    "cog's complaints",
    { detail: [{ loc: ["body", "input", "seed"], msg: "not an integer", type: "int" }, { msg: "too long" }] },
    { detail: "body.input.seed: not an integer; too long" },
  ],
  ["unknown fields only", { weather: "fine" }, { detail: '{"weather":"fine"}' }],
  ["a list", ["x"], { detail: '["x"]' }],
])("%s is read", (_name, body, expected) => {
  expect(readProblem(JSON.stringify(body))).toMatchObject(expected);
});

test("a page gives its first words, without markup, scripts and styles", () => {
  const page = `<!doctype html><html><head><style>h1 { color: red }</style><script>let x = "<p>";</script><title>413</title></head>
    <body><h1>Request Entity\n Too Large</h1>${"<p>more</p>".repeat(1_000)}`;
  expect(readProblem(page).detail).toMatch(/^413 Request Entity Too Large more/);
  expect(readProblem(page).detail.length).toBeLessThanOrEqual(200);
});

test("any body gives words of bounded length", () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string(), fc.string({ unit: "binary", maxLength: 5_000 })), (body) => {
      expect(readProblem(body).detail.length).toBeLessThanOrEqual(2_000);
    }),
  );
});

test("a page that is all beginnings is read in no time", () => {
  const beginMs = performance.now();
  readProblem("<script".repeat(1_000_000));
  readProblem("<".repeat(5_000_000));
  expect(performance.now() - beginMs).toBeLessThan(1_000);
});
