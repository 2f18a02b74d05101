/** The list of predictions over HTTP: its pages, its moments, and cursors that lead nowhere else. */

import { describe, expect } from "vitest";
import { openAdmission } from "../../src/batches/admit-single.ts";
import { HOUR, MINUTE } from "../../src/core/time.ts";
import { ACCOUNT, NOON } from "../support/stages.ts";
import { expectProblem } from "./expect-problem.ts";
import { bearer, bucketWith, KEYS, type Served, test, WITH_KEYS } from "./serving.ts";

type Page = {
  readonly previous: null;
  readonly next: string | null;
  readonly results: readonly { readonly id: string; readonly created_at: string }[];
};

/** So many predictions of a tenant, one a minute from noon on; answers their ids, newest first. */
async function admit({ services }: Served, count: number, tenant = "default"): Promise<readonly string[]> {
  let nowMs = NOON;
  const admission = openAdmission({ ...services, clock: () => nowMs });
  const ids: string[] = [];
  for (let n = 0; n < count; n++) {
    nowMs = NOON + n * MINUTE;
    const { item } = await admission.admit({
      tenant,
      account: ACCOUNT,
      identity: null,
      row: { input: { n }, target: { kind: "model", owner: "outlast", name: "text" } },
      replyTo: null,
      cancelAfterMs: null,
      webhook: null,
    });
    ids.unshift(item);
  }
  return ids;
}

async function get({ app }: Served, url: string, key?: string): Promise<Page> {
  const answer = await app.inject({ url, ...(key !== undefined && { headers: bearer(key) }) });
  expect([answer.statusCode, answer.json()]).toMatchObject([200, { previous: null }]);
  return answer.json<Page>();
}

/** Every page from this one on. */
async function walk(served: Served, url: string): Promise<readonly (readonly string[])[]> {
  const pages: string[][] = [];
  for (let next: string | null = url; next !== null && pages.length < 10; ) {
    const page = await get(served, next);
    pages.push(page.results.map(({ id }) => id));
    next = page.next;
  }
  return pages;
}

const iso = (ms: number) => encodeURIComponent(new Date(ms).toISOString());

test("a hundred a page, newest first, each by the address that the page before named", async ({ serve }) => {
  const served = await serve();
  const ids = await admit(served, 205);
  const pages = await walk(served, "/v1/predictions");
  expect(pages.map((page) => page.length)).toEqual([100, 100, 5]);
  expect(pages.flat()).toEqual(ids);
});

test("from one moment, inclusive, to another, exclusive, on every page", async ({ serve }) => {
  const served = await serve();
  const ids = await admit(served, 205);
  const [from, to] = [NOON + 40 * MINUTE, NOON + 3 * HOUR];
  const pages = await walk(served, `/v1/predictions?created_after=${iso(from)}&created_before=${iso(to)}`);
  // The newest stands first; number 179 is the last before three o'clock.
  expect(pages.map((page) => page.length)).toEqual([100, 40]);
  expect(pages.flat()).toEqual(ids.slice(205 - 180, 205 - 40));
  const inParis = encodeURIComponent(new Date(from + HOUR).toISOString().replace("Z", "+01:00"));
  expect((await walk(served, `/v1/predictions?created_after=${inParis}`)).flat()).toEqual(ids.slice(0, 205 - 40));
});

test("who was admitted meanwhile doesn't shift the pages behind", async ({ serve }) => {
  const served = await serve();
  const ids = await admit(served, 105);
  const { next } = await get(served, "/v1/predictions");
  const answer = await served.app.inject({
    method: "POST",
    url: "/v1/predictions",
    payload: { version: "outlast/text", input: {} },
  });
  expect(answer.statusCode).toBe(201);
  expect((await walk(served, next ?? "")).flat()).toEqual(ids.slice(100));
});

test("a row that lost the race for its key isn't one of them", async ({ serve }) => {
  const served = await serve();
  const single = {
    tenant: "default",
    account: ACCOUNT,
    identity: "key:the-same",
    row: { input: {}, target: { kind: "model", owner: "outlast", name: "text" } },
    replyTo: null,
    cancelAfterMs: null,
    webhook: null,
  } as const;
  const { bucket } = served.services;
  const first = openAdmission({ ...served.services, clock: () => NOON });
  // Looks for the key a moment before the other one notes it.
  let won: { readonly item: string } | null = null;
  const early = bucketWith(bucket, {
    async get(key, options) {
      if (won !== null || !key.startsWith("keys/")) return bucket.get(key, options);
      won = await first.admit(single);
      return null;
    },
  });
  const late = await openAdmission({ ...served.services, bucket: early, clock: () => NOON }).admit(single);
  expect(late).toMatchObject({ item: (won as { readonly item: string } | null)?.item, row: null });
  const [batch] = (await served.app.inject("/v1/batches")).json<{ results: { items: number }[] }>().results;
  expect(batch?.items, "both wrote a row").toBe(2);
  expect((await walk(served, "/v1/predictions")).flat()).toEqual([late.item]);
});

describe("what can't be asked", () => {
  const of = (text: string) => `cursor=${Buffer.from(text).toString("base64url")}`;
  const queries: readonly (readonly [query: string, field: string])[] = [
    ["cursor=", "querystring.cursor"],
    ["cursor=nothing", "querystring.cursor"],
    ["cursor=%00%ff", "querystring.cursor"],
    [of("20000/nothing.1"), "querystring.cursor"],
    [of("20000/0123456789abcdefghjk.-1"), "querystring.cursor"],
    [of("20000/0123456789abcdefghjk.1/"), "querystring.cursor"],
    [of("9999999/0123456789abcdefghjk.1"), "querystring.cursor"],
    [`cursor=${"a".repeat(4_001)}`, "querystring.cursor"],
    ["cursor=a&cursor=b", "querystring.cursor"],
    ["created_after=yesterday", "querystring.created_after"],
    ["created_after=2026-11-20", "querystring.created_after"],
    ["created_after=2026-11-20T12:00:00", "querystring.created_after"],
    ["created_before=2026-13-40T12:00:00Z", "querystring.created_before"],
    ["created_before=", "querystring.created_before"],
    ["limit=5", "querystring"],
  ];
  test.for(queries)("%s", async ([query, field], { serve }) => {
    const { app } = await serve();
    const problem = expectProblem(await app.inject(`/v1/predictions?${query}`), 422);
    expect(problem.invalid_fields).toMatchObject([{ field }]);
  });

  test("a cursor of one's own making, or of another tenant, shows nothing that isn't one's own", async ({ serve }) => {
    const served = await serve({ env: WITH_KEYS });
    const ids = await admit(served, 105, "acme");
    const theirs = await get(served, "/v1/predictions", KEYS.producer);
    expect(theirs.next).not.toBe(null);
    expect(await get(served, theirs.next ?? "", KEYS.stranger)).toEqual({ previous: null, next: null, results: [] });
    const batch = ids[0]?.slice(0, 20);
    const day = Math.floor(NOON / (24 * HOUR));
    const everything = await get(served, `/v1/predictions?${of(`${day}/${batch}.999999999`)}`, KEYS.viewer);
    expect(everything.results.map(({ id }) => id)).toEqual(ids.slice(0, 100));
    expect((await get(served, `/v1/predictions?${of("0")}`, KEYS.viewer)).results).toEqual([]);
  });
});
