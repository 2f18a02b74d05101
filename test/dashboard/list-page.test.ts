/** `/batches`, asked of its server. */

import { describe, expect } from "vitest";
import { KEYS, test, WITH_KEYS } from "../server/serving.ts";
import { basic, end, page, refOf, run, submit } from "./place.ts";

describe("the list of batches", () => {
  test("where there are none, it says how to submit one", async ({ serve }) => {
    const { app } = await serve();
    const { statusCode, text, headers } = await page(app, "/batches");
    expect(statusCode).toBe(200);
    expect(text).toContain("There are no batches yet. Submit one");
    expect(headers["cache-control"]).toBe("no-store");
  });

  test("a batch is told by name, state, counts, and why it takes so long", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { name: "foxes.jsonl" });
    await run(services, refOf(batch, 0));
    await run(services, refOf(batch, 1));
    await end(services, refOf(batch, 1));
    const { body, text } = await page(app, "/batches");
    expect(body).toContain(`<a href="/batches/${batch}"><bdi>foxes.jsonl</bdi></a>`);
    expect(body).toContain('aria-label="1 saved, 1 in flight, 8 waiting"');
    expect(text).toContain("running 10 % 1 saved 1 in flight 8 waiting");
    expect(text).toContain("about 1 s left: the limit of 600 creates a minute");
  });

  test("they come newest first, thirty a page, and every page leads to the older ones", async ({ serve }) => {
    const { app, services } = await serve();
    const ids = [];
    for (let n = 0; n < 65; n++) ids.push(await submit(services, { name: `batch ${n}`, rows: 1 }));
    const seen = [];
    for (let url: string | undefined = "/batches"; url !== undefined; ) {
      const { body } = await page(app, url);
      seen.push(Array.from(body.matchAll(/<h2><a href="\/batches\/(\w{20})">/g), ([, id]) => id));
      url = /href="(\/batches\?after=\w+)"/.exec(body)?.[1];
    }
    expect(seen.map(({ length }) => length)).toEqual([30, 30, 5]);
    // Those of one millisecond stand in the order of their ids.
    expect(new Set(seen.flat())).toEqual(new Set(ids));
    expect(seen[0]).toContain(ids[64]);
    expect(seen[2]).toContain(ids[0]);
  });

  test("nobody sees another tenant's", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    await submit(services, { name: "a secret plan", tenant: "acme" });
    const own = await page(app, "/batches", basic(KEYS.viewer));
    const other = await page(app, "/batches", basic(KEYS.stranger));
    expect(own.text).toContain("a secret plan");
    expect(other.text).toContain("There are no batches yet");
    expect((await page(app, "/batches")).statusCode).toBe(401);
  });

  test("a finished batch says how long it took and what it kept", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { rows: 1 });
    await run(services, refOf(batch, 0));
    await end(services, refOf(batch, 0));
    await services.ledger.finishBatch(refOf(batch, 0).account, batch, Date.now() + 63_000, 0);
    const { text } = await page(app, "/batches");
    expect(text).toContain("finished 100 % 1 saved took 1 min 3 s; 0 files, 0 bytes kept");
  });
});
