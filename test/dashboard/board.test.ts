/** The board, asked of its server; `in-browser.test.ts` looks at it as a person does. */

import { appRoutes } from "@bull-board/api/dist/routes.js";
import type { FastifyInstance } from "fastify";
import { describe, expect } from "vitest";
import { errandId } from "../../src/core/naming.ts";
import { bearer, KEYS, test, WITH_KEYS } from "../server/serving.ts";
import { basic, predictionOf, refOf, run, submit } from "./place.ts";

type Board = {
  readonly queues: readonly {
    readonly name: string;
    readonly displayName: string;
    readonly description: string;
    readonly readOnlyMode: boolean;
    readonly jobs: readonly {
      readonly name: string;
      readonly data: unknown;
      readonly externalUrl?: { href: string };
    }[];
  }[];
};

async function board(app: FastifyInstance, queue = ""): Promise<Board["queues"]> {
  const query = new URLSearchParams({ activeQueue: queue, page: "1", jobsPerPage: "10" }).toString();
  return (await app.inject(`/queues/api/queues?${query}`)).json<Board>().queues;
}

const OUR_PAGE = { "sec-fetch-site": "same-origin" };
describe("what it shows", () => {
  test("it reads as the funnel, each queue with a sentence", async ({ serve }) => {
    const { app } = await serve();
    const queues = await board(app);
    expect(queues.map(({ displayName }) => displayName)).toEqual([
      "1 inputs",
      "2 feed",
      "3 create (replicate)",
      "4 follow (replicate)",
      "5 copy",
      "6 record",
      "7 notify",
      "8 finish",
      "9 keep",
      "9 sweep",
    ]);
    expect(queues.map(({ name }) => name)).toEqual(queues.map(({ name }) => name).toSorted());
    for (const { description } of queues) expect(description).toMatch(/^[A-Z].{20,}\.$/);
  });

  test("a job says in words what it is about, and leads to its item and to the provider", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services), 3);
    await run(services, ref);
    await services.queues.notify(ref, "start");
    const externalUrl = { href: `/jobs/${errandId(ref)}`, displayText: "this item through all stages" };
    const prediction = predictionOf(ref);
    const follow = (await board(app, "4 outlast-follow-replicate"))[3];
    expect(follow?.jobs).toMatchObject([
      {
        name: "item 3",
        data: {
          account: "replicate",
          prediction_id: prediction,
          prediction_url: `https://replicate.com/p/${prediction}`,
          started_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
        },
        externalUrl,
      },
    ]);
    const shown = {
      account: "replicate",
      prediction_id: prediction,
      prediction_url: expect.stringContaining(prediction),
    };
    await services.queues.copy(ref, Date.now(), prediction);
    await services.queues.record(ref, prediction);
    await services.queues.record(refOf(ref.batch, 4));
    const copy = (await board(app, "5 outlast-copy"))[4];
    expect(copy?.jobs).toMatchObject([{ data: { ...shown, expires_at: expect.any(String) }, externalUrl }]);
    const record = (await board(app, "6 outlast-record"))[5];
    expect(record?.jobs.find(({ name }) => name === "item 3")).toMatchObject({ data: shown, externalUrl });
    expect(record?.jobs.find(({ name }) => name === "item 4")?.data, "never bought").toEqual({ account: "replicate" });
    const notify = (await board(app, "7 outlast-notify"))[6];
    expect(notify?.jobs).toMatchObject([{ name: "item 3, start", data: { account: "replicate" }, externalUrl }]);
  });

  test("large data is trimmed, and what looks like a token is starred out", async ({ serve }) => {
    const { app, services } = await serve();
    const token = `r8_${"A1b2".repeat(9)}`;
    await services.queues.input({ input: { prompt: "x".repeat(500_000), note: token }, model: "a/b" }, "large");
    await services.queues.input({ input: { prompt: `use ${token}`, api_key: "open sesame" }, model: "a/b" }, "small");
    const jobs = (await board(app, "1 outlast-inputs"))[0]?.jobs ?? [];
    const text = JSON.stringify(jobs);
    expect(jobs).toHaveLength(2);
    expect(text.length).toBeLessThan(6_000);
    expect(text).not.toContain(token);
    expect(text).not.toContain("open sesame");
    expect(text).toContain('"prompt":"use ***"');
  });

  test("its page asks no other host for anything", async ({ serve }) => {
    const { app } = await serve();
    const { headers } = await app.inject("/queues");
    expect(headers["content-security-policy"]).toContain("default-src 'self'");
  });
});

describe("who may", () => {
  test("write: nobody", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const ref = refOf(await submit(services), 3);
    await run(services, ref);
    const headers = { ...basic(KEYS.operator), ...OUR_PAGE };
    const writes = appRoutes.api.filter(({ method }) => method !== "get");
    expect(writes.length).toBeGreaterThan(20);
    for (const { method, route } of writes) {
      const path = String(route)
        .replace(":queueName", encodeURIComponent("4 outlast-follow-replicate"))
        .replace(":jobId", errandId(ref))
        .replaceAll(/:\w+/g, "failed");
      const { statusCode } = await app.inject({
        method: method as "put",
        url: `/queues${path}`,
        headers,
        payload: {},
      });
      expect([path, statusCode]).toEqual([path, 405]);
    }
  });

  test("look: everybody where there is one tenant, else operators, since all tenants' jobs stand there", async ({
    serve,
  }) => {
    const several = await serve({ env: WITH_KEYS });
    const one = await serve({ env: { OUTLAST_API_KEYS: `default:${KEYS.viewer}:viewer` } });
    for (const url of ["/queues", "/queues/api/queues?page=1&jobsPerPage=10"]) {
      const asked = async (app: FastifyInstance, headers: Record<string, string>) =>
        (await app.inject({ url, headers })).statusCode;
      expect(await asked(several.app, {})).toBe(401);
      expect(await asked(several.app, basic("nobody's key"))).toBe(401);
      expect(await asked(several.app, basic(KEYS.viewer))).toBe(403);
      expect(await asked(several.app, basic(KEYS.producer))).toBe(403);
      expect(await asked(several.app, basic(KEYS.operator))).toBe(200);
      expect(await asked(several.app, bearer(KEYS.operator))).toBe(200);
      expect(await asked(one.app, basic(KEYS.viewer))).toBe(200);
    }
  });

  test("a browser is told to ask for the key", async ({ serve }) => {
    const { app } = await serve({ env: WITH_KEYS });
    for (const url of ["/queues", "/batches", `/items/${"0".repeat(26)}`, "/jobs/nonsense", "/assets/page.css"]) {
      const { statusCode, headers } = await app.inject(url);
      expect([url, statusCode, headers["www-authenticate"]]).toEqual([
        url,
        401,
        expect.stringMatching(/^Basic realm="/),
      ]);
    }
  });
});
