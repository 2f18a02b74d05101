/** What every error that leaves the server has in common. */

import type { LightMyRequestResponse } from "fastify";
import { expect } from "vitest";
import type { InvalidField } from "../../src/server/problems.ts";

export type ProblemBody = {
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly invalid_fields?: readonly InvalidField[];
};

type Answer = Pick<LightMyRequestResponse, "statusCode" | "headers" | "body">;

/** problem+json with the status, and nothing of how the server is made. */
export function expectProblem(answer: Answer, status: number): ProblemBody {
  expect([answer.statusCode, answer.headers["content-type"]], answer.body).toEqual([
    status,
    "application/problem+json",
  ]);
  expect(answer.body).not.toMatch(/\bat \S+ \(|node_modules|\.ts\b|\.js\b|file:\/\/|FST_|Error:/);
  const body = JSON.parse(answer.body) as ProblemBody;
  expect(body).toMatchObject({ title: expect.stringMatching(/./), status, detail: expect.stringMatching(/./) });
  return body;
}
