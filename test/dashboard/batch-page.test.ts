/** `/batches/<id>`, asked of its server: what it says of a batch in every state, and what a person can do there. */

import { describe, expect } from "vitest";
import { itemId, REDIS_KEYS } from "../../src/core/naming.ts";
import { MINUTE, SECOND } from "../../src/core/time.ts";
import { bearer, KEYS, type Served, test, WITH_KEYS } from "../server/serving.ts";
import { ACCOUNT } from "../support/stages.ts";
import { basic, end, PNG, page, press, refOf, run, step, submit } from "./place.ts";

/** A batch of ten with an item in each state that an open batch can have. */
async function mixed({ services }: Served) {
  const batch = await submit(services);
  for (const index of [1, 2, 3, 4, 5, 6]) await run(services, refOf(batch, index));
  await step(services, refOf(batch, 0), "claim", { nonce: "n" });
  await step(services, refOf(batch, 2), "succeed");
  await step(services, refOf(batch, 3), "conclude");
  await end(services, refOf(batch, 4), { files: [PNG] });
  await end(services, refOf(batch, 5), { end: "failed", error: "CUDA out of memory at 0x7f3a9c001234567890" });
  await end(services, refOf(batch, 6), { end: "canceled" });
  await step(services, refOf(batch, 7), "claim", { nonce: "n" });
  await step(services, refOf(batch, 7), "doubt", { nonce: "n" });
  return batch;
}

describe("what it shows", () => {
  test("the funnel: how many items are at each stage, each stage leading to its queue", async ({ serve }) => {
    const served = await serve();
    const batch = await mixed(served);
    const { body, text } = await page(served.app, `/batches/${batch}`);
    expect(text).toContain(
      "2 waiting not bought yet 1 being bought the request is out 1 running at the provider 1 being copied into the bucket 1 being recorded its receipt 1 saved 1 failed 1 canceled 1 unclear",
    );
    for (const [queue, label] of [
      ["2%20outlast-feed", "waiting"],
      ["3%20outlast-create-replicate", "being bought"],
      ["4%20outlast-follow-replicate", "running"],
      ["5%20outlast-copy", "being copied"],
      ["6%20outlast-record", "being recorded"],
    ]) {
      expect(body).toContain(`<a href="/queues/queue/${queue}">${label}</a>`);
      expect((await served.app.inject(`/queues/queue/${queue}`)).statusCode).toBe(200);
    }
  });

  test("how far it is, and why it takes so long", async ({ serve }) => {
    const served = await serve();
    const batch = await mixed(served);
    const { body, text } = await page(served.app, `/batches/${batch}`);
    expect(text).toContain("30 % 3 of 10 items ended");
    expect(text).toContain("1 saved 1 failed 1 canceled 1 unclear 4 in flight 2 waiting");
    expect(text).toContain("Time left about 1 s the limit of 600 creates a minute");
    expect(text).toContain("Kept 0 bytes 1 file Predict time 5 s");
    expect(body).toContain('aria-label="1 saved, 1 failed, 1 canceled, 1 unclear, 4 in flight, 2 waiting"');
  });

  test("failures by their cause, each with an example; the latest outputs, each leading to its item", async ({
    serve,
  }) => {
    const served = await serve();
    const batch = await mixed(served);
    const { body, text } = await page(served.app, `/batches/${batch}`);
    expect(text).toContain("1 CUDA out of memory at ID for example item 5");
    expect(body).toContain(`href="/items/${itemId(batch, 5)}"`);
    const [, src = ""] = /<img class="preview" src="([^"]+)"/.exec(body) ?? [];
    const picture = await served.app.inject(src.replaceAll("&#38;", "&"));
    expect([picture.statusCode, picture.headers["content-type"], picture.rawPayload]).toEqual([
      200,
      "image/png",
      PNG.body,
    ]);
    expect(body).toContain(`<a href="/items/${itemId(batch, 4)}"><img`);
  });

  test("what unclear means is said where there is any", async ({ serve }) => {
    const served = await serve();
    const { text } = await page(served.app, `/batches/${await mixed(served)}`);
    expect(text).toContain("1 unclear. A request to buy it was sent, and nobody knows whether the provider took it.");
    const calm = await submit(served.services, { name: "calm" });
    expect((await page(served.app, `/batches/${calm}`)).text).not.toContain("nobody knows");
  });

  test("a finished batch says how long it took, has nothing to press, and nobody waits for news of it", async ({
    serve,
  }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { rows: 1 });
    await run(services, refOf(batch, 0));
    await end(services, refOf(batch, 0));
    await services.ledger.finishBatch(ACCOUNT, batch, Date.now() + 125_000, 0);
    const { body, text } = await page(app, `/batches/${batch}`);
    expect(text).toContain("100 % 1 of 1 item ended");
    expect(text).toContain("Took 2 min 5 s from the submission to the last receipt");
    expect(text).toContain("words and numbers, no files");
    expect(body).not.toContain("<button");
    expect(body).not.toContain("data-live");
  });

  test("what is paid for and not saved is told, and that nothing buys it again by itself", async ({ serve }) => {
    const { app, services } = await serve();
    const other = await submit(services, { name: "nothing lost" });
    expect((await page(app, `/batches/${other}`)).text).not.toContain("not saved");
    const batch = await submit(services, { rows: 2 });
    for (const index of [0, 1]) {
      await run(services, refOf(batch, index));
      await end(services, refOf(batch, index), {
        end: "failed",
        error: "succeeded, but its output couldn't be saved: GET … answered 404",
        answer: { status: "succeeded" },
      });
    }
    const { text } = await page(app, `/batches/${batch}`);
    expect(text).toContain("2 predictions are paid for and not saved.");
    expect(text).toContain("outlast redrive");
  });

  test("an account that can't be opened is told as such, with why", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    await services.redis.hdel(REDIS_KEYS.account(ACCOUNT), "opened_on");
    await services.ledger.noteUnopened(
      ACCOUNT,
      "account replicate can't be opened on this Redis: batch.json is damaged",
    );
    const { text } = await page(app, `/batches/${batch}`);
    expect(text).toContain(
      "Account replicate can't be opened on this Redis: batch.json is damaged. Until then nothing",
    );
  });

  test("why buying waits for saving, and how long the oldest unsaved output can still be had", async ({ serve }) => {
    const served = await serve();
    const batch = await mixed(served);
    const { ledger } = served.services;
    await ledger.noteHeld(ACCOUNT, "the bucket takes no files: the disk is full; make room there");
    await ledger.noteUnsaved(refOf(batch, 2), Date.now() + 41 * MINUTE - SECOND);
    const { text } = await page(served.app, `/batches/${batch}`);
    expect(text).toContain(
      "Buying waits for saving. The bucket takes no files: the disk is full; make room there. It goes on by itself.",
    );
    expect(text).toContain("Time left – the bucket takes no files: the disk is full; make room there");
    expect(text).toContain("1 being copied oldest unsaved expires in 41 min");
  });

  test("an account that is paused is told as such, with what to type", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    await services.ledger.pauseAccount(ACCOUNT, "the provider said 402: out of credit, token r8_abcdefghijklmnop");
    const { text } = await page(app, `/batches/${batch}`);
    expect(text).toContain("Account replicate is paused: the provider said 402: out of credit, token ***.");
    expect(text).toContain("outlast resume --account replicate");
  });

  test("it costs the same whatever the batch's size", async ({ serve }) => {
    const { app, services } = await serve();
    const asked = async (rows: number, ended: number): Promise<number> => {
      const batch = await submit(services, { name: `${rows} rows`, rows });
      for (let index = 0; index < ended; index++) {
        await run(services, refOf(batch, index));
        await end(services, refOf(batch, index), index % 2 === 0 ? { files: [PNG] } : { end: "failed", error: "no" });
      }
      const commands = async () =>
        Number(/total_commands_processed:(\d+)/.exec(await services.redis.info("stats"))?.[1] ?? 0);
      const before = await commands();
      await page(app, `/batches/${batch}`);
      return (await commands()) - before;
    };
    const small = await asked(60, 48);
    expect(small).toBeGreaterThan(5);
    expect(await asked(3_000, 120)).toBeLessThanOrEqual(small);
  });
});

describe("what can be done", () => {
  test("pause says what that means, resume lets it go on", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    const paused = await press(app, `/batches/${batch}/pause`);
    expect([paused.statusCode, paused.headers.location]).toEqual([303, `/batches/${batch}`]);
    const { body, text } = await page(app, `/batches/${batch}`);
    expect(text).toMatch(/Paused by a person at \d{4}-\d\d-\d\d [\d:]{8} UTC\. Nothing more of it is bought/);
    expect(text).toContain("Time left – not while it is paused");
    expect(body).toContain(`action="/batches/${batch}/resume"`);
    expect(body).not.toContain(`action="/batches/${batch}/pause"`);

    await press(app, `/batches/${batch}/resume`);
    expect((await page(app, `/batches/${batch}`)).text).not.toContain("Nothing more of it is bought");
    expect((await services.ledger.standing(ACCOUNT, batch))?.paused).toBeNull();
  });

  test("cancel says what it will do before there is a button for it", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    const before = await page(app, `/batches/${batch}`);
    expect(before.body).toMatch(/<details class="confirm"[^>]*><summary[^>]*>Cancel…<\/summary>/);
    expect(before.text).toContain("What waits is never bought (10 items), what runs is canceled at the provider");
    const canceled = await press(app, `/batches/${batch}/cancel`);
    expect(canceled.statusCode).toBe(303);
    const after = await page(app, `/batches/${batch}`);
    expect(after.text).toMatch(/canceled .* Canceled \d{4}-\d\d-\d\d [\d:]{8} UTC ?: what waited was never bought/);
    expect(after.body).not.toContain("<button");
  });

  test("what can't be done any more is told on the page, not as a bare error", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { rows: 1 });
    await services.ledger.finishBatch(ACCOUNT, batch, Date.now(), 0);
    const answer = await press(app, `/batches/${batch}/pause`);
    expect([answer.statusCode, answer.headers["content-type"]]).toEqual([409, "text/html; charset=utf-8"]);
    expect(answer.body).toContain(`<b>That couldn’t be done:</b> batch ${batch} has finished.`);
    expect(answer.body).toContain('<section id="progress"');
  });

  test("a day's singles can't be canceled as a whole, so there is no button for it", async ({ serve }) => {
    const { app } = await serve();
    const created = await app.inject({
      method: "POST",
      url: "/v1/predictions",
      payload: { version: "outlast/text", input: { prompt: "one" } },
    });
    const batch = created.json<{ id: string }>().id.slice(0, 20);
    const { body, text } = await page(app, `/batches/${batch}`);
    expect(text).toContain("singles 20");
    expect(body).toContain("<button");
    expect(body).not.toContain("Cancel…");
  });

  test("a viewer sees no buttons, and may not press any", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const batch = await submit(services, { tenant: "acme" });
    const seen = await page(app, `/batches/${batch}`, basic(KEYS.viewer));
    expect([seen.statusCode, seen.body.includes("<button")]).toEqual([200, false]);
    for (const act of ["pause", "resume", "cancel"]) {
      const answer = await press(app, `/batches/${batch}/${act}`, basic(KEYS.viewer));
      expect([act, answer.statusCode]).toEqual([act, 403]);
    }
    expect((await services.ledger.standing(ACCOUNT, batch))?.paused).toBeNull();
    await press(app, `/batches/${batch}/pause`, basic(KEYS.producer));
    expect((await services.ledger.standing(ACCOUNT, batch))?.paused).not.toBeNull();
    const paused = await page(app, `/batches/${batch}`, basic(KEYS.viewer));
    expect(paused.text).toContain("It takes a producer’s key to let it go on.");
  });

  test("another site's page can't press them in a person's name", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const batch = await submit(services, { tenant: "acme" });
    const url = `/batches/${batch}/cancel`;
    const form = { "content-type": "application/x-www-form-urlencoded", host: "outlast.example" };
    for (const [from, status] of [
      [{ "sec-fetch-site": "cross-site", origin: "https://evil.example" }, 403],
      [{ "sec-fetch-site": "same-site", origin: "https://other.outlast.example" }, 403],
      [{ origin: "https://evil.example" }, 403],
      [{ origin: "null" }, 403],
      [{}, 403],
      [{ origin: "https://outlast.example" }, 303],
    ] as const) {
      const headers = { ...basic(KEYS.producer), ...form, ...from };
      const { statusCode } = await app.inject({ method: "POST", url, headers, payload: "" });
      expect([from, statusCode]).toEqual([from, status]);
    }
  });
});

describe("whose it is", () => {
  test("another tenant's batch isn't there, whoever asks and whatever they do", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const batch = await submit(services, { tenant: "acme" });
    for (const path of ["", "/live"]) {
      const answer = await page(app, `/batches/${batch}${path}`, basic(KEYS.stranger));
      expect([answer.statusCode, answer.text.includes("No such batch")]).toEqual([404, true]);
    }
    expect((await press(app, `/batches/${batch}/cancel`, basic(KEYS.stranger))).statusCode).toBe(404);
    expect((await page(app, `/batches/${batch}`, bearer(KEYS.operator))).statusCode).toBe(200);
  });

  test("what isn't there is a page that says so", async ({ serve }) => {
    const { app } = await serve();
    for (const id of ["nonsense", "0".repeat(20), "%3Cimg%20src=x%3E"]) {
      const { statusCode, body, text } = await page(app, `/batches/${id}`);
      expect([statusCode, text.includes("No such batch")]).toEqual([404, true]);
      expect(body).not.toContain("<img src=x");
    }
  });

  test("who may not open the board is led to no queue", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const batch = await submit(services, { tenant: "acme" });
    const producer = await page(app, `/batches/${batch}`, basic(KEYS.producer));
    const operator = await page(app, `/batches/${batch}`, basic(KEYS.operator));
    expect([producer.body.includes("/queues"), operator.body.includes("/queues")]).toEqual([false, true]);
  });
});

describe("when things are down", () => {
  test("without Redis the page says that nothing was lost, as a page", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    services.redis.disconnect();
    const { statusCode, text, headers } = await page(app, `/batches/${batch}`);
    expect([statusCode, headers["content-type"]]).toEqual([503, "text/html; charset=utf-8"]);
    expect(text).toContain("Not at the moment Redis doesn't answer at the moment; nothing was lost");
  });
});
