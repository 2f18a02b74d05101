/** `/items/<id>`, asked of its server: every attempt, what came out, and what nobody can make it do. */

import { describe, expect } from "vitest";
import { ITEM_STATES, writeItemByte } from "../../src/core/item.ts";
import { type AttemptRef, errandId, itemId, notifyJobId, REDIS_KEYS } from "../../src/core/naming.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { KEYS, test, WITH_KEYS } from "../server/serving.ts";
import { ACCOUNT } from "../support/stages.ts";
import { basic, end, PNG, page, predictionOf, press, refOf, run, step, submit, writeEnd } from "./place.ts";

const addressOf = ({ batch, index }: Pick<AttemptRef, "batch" | "index">) => `/items/${itemId(batch, index)}`;

/** As if a person had had the item bought again: its attempt is a newer one. */
async function openAttempt({ redis }: CommandServices, { account, batch, index, attempt }: AttemptRef): Promise<void> {
  const byte = writeItemByte({ attempt, state: "waiting" });
  await redis.setrange(REDIS_KEYS.bytes(account, batch), index, Buffer.of(byte));
}

describe("what it shows", () => {
  test("while it runs: where it stands, its prediction, its input, and its jobs", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { rows: [{ id: "Fox/0" }] });
    const ref = refOf(batch, 0);
    await run(services, ref);
    await services.queues.notify(ref, "start");
    const { body, text } = await page(app, addressOf(ref));
    expect(text).toContain("Item 0 running");
    expect(text).toContain("It is bought, and runs at the provider.");
    expect(text).toContain("its own id: Fox/0");
    expect(text).toContain('"prompt": "fox 0"');
    expect(body).toContain(`<a href="/batches/${batch}"><bdi>foxes.jsonl</bdi></a>`);
    expect(body).toContain(`href="https://replicate.com/p/${predictionOf(ref)}"`);
    expect(body).toContain(`href="/queues/queue/4%20outlast-follow-replicate/${errandId(ref)}"`);
    expect(body).toContain(`href="/queues/queue/7%20outlast-notify/${notifyJobId(ref, "start")}"`);
    expect(text).toContain("7 notify, start");
    expect(text).not.toContain("7 notify, end");
    expect(text).toMatch(/admitted the input was taken .* \+\d+\.\d s claimed the intent to buy it was written/);
    expect(body).toContain("data-live");
  });

  test.for(ITEM_STATES)("an item that is %s is told in a sentence", async (state, { serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await services.redis.set(REDIS_KEYS.bytes(ACCOUNT, ref.batch), Buffer.of(writeItemByte({ attempt: 1, state })));
    const { statusCode, text } = await page(app, addressOf(ref));
    expect([statusCode, text]).toEqual([
      200,
      expect.stringMatching(new RegExp(`Item 0 ${state} (Cancel… .*)?[A-Z].*\\.`)),
    ]);
  });

  test("once it is saved: its outputs, each event with the time it took, and what it cost", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await run(services, ref);
    const sound = { extension: "wav", type: "audio/wav", body: "RIFF" };
    const film = { extension: "mp4", type: "video/mp4", body: "ftyp" };
    await end(services, ref, {
      files: [PNG, sound, film],
      answer: { metrics: { predict_time: 1.5, input_token_count: 1_234 }, logs: "step 1\nstep 2" },
    });
    const { body, text } = await page(app, addressOf(ref));
    expect(text).toMatch(
      /claimed [^:]* 2026-11-20 12:00:01 UTC \+1\.0 s created .* \+0\.5 s started .* \+1\.5 s completed .* \+1\.0 s recorded/,
    );
    expect(text).toContain("predict time 1.5 s");
    expect(text).toContain("input token count 1,234");
    expect(text).toContain("step 1 step 2");
    for (const tag of ["<img ", "<audio ", "<video "]) expect(body).toContain(tag);
    const urls = Array.from(body.matchAll(/src="(\/v1\/files[^"]+)"/g), ([, url = ""]) => url.replaceAll("&#38;", "&"));
    expect(urls).toHaveLength(3);
    for (const url of urls) expect((await app.inject(url)).statusCode).toBe(200);
    expect(body).not.toContain("<button");
    expect(body).not.toContain("data-live");
  });

  test("its outputs from this server, also where the public reads the bucket elsewhere", async ({ serve }) => {
    const { app, services } = await serve({ env: { OUTLAST_PUBLIC_BUCKET_URL: "https://cdn.example/kept" } });
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await run(services, ref);
    await end(services, ref, { files: [PNG] });
    const { body } = await page(app, addressOf(ref));
    const [, url = ""] = /src="(\/v1\/files[^"]+)"/.exec(body) ?? [];
    expect((await app.inject(url.replaceAll("&#38;", "&"))).statusCode).toBe(200);
  });

  test("every attempt, the latest first, and the board's jobs lead to theirs", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await run(services, ref);
    await end(services, ref, { end: "failed", error: "the first went wrong" });
    for (const attempt of [2, 3]) {
      await openAttempt(services, { ...ref, attempt });
      await run(services, { ...ref, attempt });
      if (attempt === 2) await end(services, { ...ref, attempt }, { end: "failed", error: "the second, too" });
    }
    const { body, text } = await page(app, addressOf(ref));
    expect(text).toContain("3 attempts");
    expect(text).toMatch(
      /Attempt 3 running .* Attempt 2 failed the second, too .* Attempt 1 failed the first went wrong/,
    );
    for (const attempt of [1, 2, 3]) {
      const { statusCode, headers } = await app.inject(`/jobs/${errandId({ ...ref, attempt })}`);
      expect([statusCode, headers.location]).toEqual([302, `${addressOf(ref)}#attempt-${attempt}`]);
      expect(body).toContain(`id="attempt-${attempt}"`);
      expect(body).toContain(predictionOf({ ...ref, attempt }));
    }
  });

  test("an answer in words or numbers is shown as it is, and a long one is cut", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services, { rows: 2 });
    for (const [index, output] of [
      [0, "A short poem.\nIt ends."],
      [1, { scores: Array.from({ length: 50_000 }, (_, n) => n) }],
    ] as const) {
      await run(services, refOf(batch, index));
      await end(services, refOf(batch, index), { answer: { output } });
    }
    expect((await page(app, addressOf(refOf(batch, 0)))).body).toContain(
      '<p class="answer">A short poem.\nIt ends.</p>',
    );
    const long = await page(app, addressOf(refOf(batch, 1)));
    expect(long.text).toContain('"scores": [ 0, 1, 2,');
    expect(long.body.length).toBeLessThan(20_000);
  });
});

describe("what can be done", () => {
  test("an item that waits is canceled by a press, and has no button afterwards", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services), 3);
    expect((await page(app, addressOf(ref))).text).toContain("It is never bought. This can’t be undone. Yes, cancel");
    const answer = await press(app, `${addressOf(ref)}/cancel`);
    expect([answer.statusCode, answer.headers.location]).toEqual([303, addressOf(ref)]);
    const { body, text } = await page(app, addressOf(ref));
    expect(text).toContain("Item 3 canceled");
    expect(text).toContain("canceled before it was bought");
    expect(body).not.toContain("<button");
  });

  test("one that runs is marked for its next poll", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services), 3);
    await run(services, ref);
    await press(app, `${addressOf(ref)}/cancel`);
    expect(await services.ledger.takeMarks(ref, null)).toMatchObject({ cancel: true });
  });

  test("a viewer has no button, another tenant no item, another site no say", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const ref = refOf(await submit(services, { tenant: "acme" }), 3);
    const seen = await page(app, addressOf(ref), basic(KEYS.viewer));
    expect([seen.statusCode, seen.body.includes("<button")]).toEqual([200, false]);
    const url = `${addressOf(ref)}/cancel`;
    const forged = { ...basic(KEYS.producer), "sec-fetch-site": "cross-site" };
    expect((await press(app, url, basic(KEYS.viewer))).statusCode).toBe(403);
    expect((await press(app, url, basic(KEYS.stranger))).statusCode).toBe(404);
    expect((await press(app, url, forged)).statusCode).toBe(403);
    expect((await page(app, addressOf(ref), basic(KEYS.stranger))).statusCode).toBe(404);
    expect((await services.ledger.readItem(ref)).state).toBe("waiting");
  });

  test("what isn't there is a page that says so", async ({ serve }) => {
    const { app, services } = await serve();
    const batch = await submit(services);
    for (const url of [
      `/items/${itemId(batch, 10)}`,
      "/items/nonsense",
      "/jobs/nonsense",
      `/items/${"0".repeat(26)}`,
    ]) {
      const { statusCode, text } = await page(app, url);
      expect([url, statusCode, text.includes("No such item")]).toEqual([url, 404, true]);
    }
  });
});

const SCRIPT = `"><script>alert(1)</script><img src=x onerror='alert(2)'>`;

describe("what a person or a model wrote", () => {
  test("never becomes part of a page", async ({ serve }) => {
    const { app, services } = await serve();
    const rows = [{ id: SCRIPT, input: { prompt: SCRIPT, [SCRIPT]: 1 } }, {}];
    const batch = await submit(services, { name: SCRIPT, rows });
    for (const index of [0, 1]) await run(services, refOf(batch, index));
    await end(services, refOf(batch, 0), {
      files: [{ ...PNG, type: SCRIPT }],
      answer: {
        output: [SCRIPT, { [SCRIPT]: SCRIPT }],
        model: SCRIPT,
        logs: SCRIPT,
        metrics: { [SCRIPT]: SCRIPT },
        createdAt: SCRIPT,
      },
    });
    await end(services, refOf(batch, 1), { end: "failed", error: SCRIPT });
    for (const url of ["/batches", `/batches/${batch}`, addressOf(refOf(batch, 0)), addressOf(refOf(batch, 1))]) {
      const { statusCode, body, headers } = await page(app, url);
      expect([url, statusCode]).toEqual([url, 200]);
      expect(body.replace(/<script type="module" src="\/assets\/live\.js[^"]*"><\/script>/, "")).not.toContain(
        "<script",
      );
      expect(body).not.toContain("<img src=x");
      expect(body).toContain("&#60;script&#62;alert(1)");
      expect(headers["content-security-policy"]).toMatch(/^default-src 'none'; script-src 'self'; style-src 'self';/);
    }
  });

  test("a long error is cut, on the item's page and on the batch's; a token in it is starred out", async ({
    serve,
  }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await run(services, ref);
    await end(services, ref, { end: "failed", error: `token r8_${"A1b2".repeat(9)} ${"no ".repeat(4_000)}` });
    for (const url of [addressOf(ref), `/batches/${ref.batch}`]) {
      const { body, text } = await page(app, url);
      expect(body.length).toBeLessThan(10_000);
      expect(body).not.toContain("A1b2A1b2");
      expect(text).toMatch(/no no no/);
    }
  });

  test("an SVG or a web page is a file with a name: shown by no page, and run by no browser", async ({ serve }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await run(services, ref);
    const svg = {
      extension: "svg",
      type: "image/svg+xml",
      body: "<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    };
    const web = { extension: "html", type: "text/html", body: "<script>alert(1)</script>" };
    await end(services, ref, { files: [svg, web] });
    const { body } = await page(app, addressOf(ref));
    expect(body).not.toMatch(/<(?:img|iframe|embed|object)[^>]*v1\/files/);
    const links = Array.from(body.matchAll(/href="(\/v1\/files[^"]+)"/g), ([, url = ""]) =>
      url.replaceAll("&#38;", "&"),
    );
    expect(links).toHaveLength(2);
    for (const link of links) {
      const { headers } = await app.inject(link);
      expect(headers["content-disposition"]).toMatch(/^attachment;/);
      expect(headers["content-security-policy"]).toMatch(/^sandbox;/);
      expect(headers["x-content-type-options"]).toBe("nosniff");
    }
  });

  test("a receipt whose attempt is followed by another stands, whatever the provider called its times", async ({
    serve,
  }) => {
    const { app, services } = await serve();
    const ref = refOf(await submit(services, { rows: 1 }), 0);
    await writeEnd(services, ref, { end: "failed", error: "no", answer: { createdAt: "yesterday", completedAt: "" } });
    await openAttempt(services, { ...ref, attempt: 2 });
    await step(services, { ...ref, attempt: 2 }, "claim", { nonce: "n" });
    const { statusCode, text } = await page(app, addressOf(ref));
    expect([statusCode, text]).toEqual([200, expect.stringContaining("Attempt 2 claimed")]);
    expect(text).not.toContain("created the provider took it");
  });
});
