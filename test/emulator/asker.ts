/** How the tests of the emulator ask it things: plain fetch, so that nothing of ours stands in between. */

import { readFile } from "node:fs/promises";
import { expect } from "vitest";
import type { Emulator } from "../../src/emulator/emulator.ts";

/** Ends within milliseconds. */
export const QUICK = { queueMs: { medianMs: 5, spread: 0 }, runMs: { medianMs: 10, spread: 0 } } as const;
/** Never starts while a test runs. */
export const STUCK = { queueMs: { medianMs: 3_600_000, spread: 0 }, runMs: { medianMs: 1_000, spread: 0 } } as const;
export const UNLIMITED = { createsPerMinute: Infinity, readsPerMinute: Infinity } as const;

export type Shown = {
  readonly id: string;
  readonly status: string;
  readonly output: unknown;
  readonly error: string | null;
  readonly created_at: string;
  readonly started_at?: string;
  readonly completed_at?: string;
  readonly deadline?: string;
  readonly data_removed: boolean;
  readonly input: Record<string, unknown>;
  readonly metrics?: Record<string, number>;
  readonly urls: Record<string, string>;
  readonly version: string;
};

export type ListShown = { readonly next: string | null; readonly previous: string | null; readonly results: Shown[] };

const AUTH = { authorization: "Bearer r8_emulator", "content-type": "application/json" };
export const COMET_AUTH = { authorization: "Bearer sk-emulator", "content-type": "application/json" };

export async function post(url: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    headers: { ...AUTH, ...headers },
    body: JSON.stringify(body),
    redirect: "manual",
  });
}

export async function ask(url: string, headers: Record<string, string> = {}): Promise<Response> {
  return fetch(url, { headers: { ...AUTH, ...headers }, redirect: "manual" });
}

export async function shown(response: Response): Promise<Shown> {
  return (await response.json()) as Shown;
}

export async function create(
  emulator: Emulator,
  model: string,
  input: unknown,
  more: Record<string, unknown> = {},
  headers: Record<string, string> = {},
): Promise<Shown> {
  const response = await post(
    `${emulator.apiUrl}/predictions`,
    { version: `outlast/${model}`, input, ...more },
    headers,
  );
  expect([201, 202]).toContain(response.status);
  return shown(response);
}

export async function get(emulator: Emulator, id: string): Promise<Shown> {
  const response = await ask(`${emulator.apiUrl}/predictions/${id}`);
  expect(response.status).toBe(200);
  return shown(response);
}

/** The prediction as it is once it has ended. */
export async function ended(emulator: Emulator, id: string): Promise<Shown> {
  await expect.poll(() => get(emulator, id), { timeout: 25_000, interval: 20 }).toHaveProperty("completed_at");
  return get(emulator, id);
}

export async function run(emulator: Emulator, model: string, input: unknown): Promise<Shown> {
  return ended(emulator, (await create(emulator, model, input)).id);
}

export async function fixture(name: string): Promise<unknown> {
  return JSON.parse(await readFile(new URL(`../fixtures/${name}.json`, import.meta.url), "utf8"));
}

/** What a JSON value is made of: names and kinds, without the values. */
export function shapeOf(value: unknown): unknown {
  if (value === null) return "null";
  if (Array.isArray(value)) return value.map(shapeOf);
  if (typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, shapeOf(member)]));
  }
  if (typeof value !== "string") return typeof value;
  if (/^[0-9a-z]{26}$/.test(value)) return "id";
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,9}Z$/.test(value)) return "date-time";
  if (/^https?:/.test(value)) return "url";
  return "string";
}
