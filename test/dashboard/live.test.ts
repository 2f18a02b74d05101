/** What an open page is sent. */

import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, test as plain } from "vitest";
import { html } from "../../src/dashboard/html.ts";
import { changes, type Part, type Parts, versionOf } from "../../src/dashboard/live.ts";
import type { ServerSentEvent } from "../../src/server/server-sent-events.ts";
import { bearer, KEYS, test, WITH_KEYS } from "../server/serving.ts";
import { end, refOf, run, submit } from "./place.ts";

const part = (id: string, text: string): Part => ({ id, html: html`<p id="${id}">${text}</p>` });
const parts = (...all: readonly Part[]): Parts => ({ parts: all, over: false });

/** Everything that is told while the page is read so, one reading after the other; then it is over. */
async function told(readings: readonly (Parts | Error | null)[], seen = ""): Promise<readonly ServerSentEvent[]> {
  const left = [...readings];
  const events = changes(
    async () => {
      const next = left.shift();
      if (next instanceof Error) throw next;
      return next ?? null;
    },
    { seen, signal: AbortSignal.timeout(20_000), lost: () => undefined },
  );
  return Array.fromAsync(events);
}

const GONE = { event: "over", data: "it is gone" };

describe("changes", () => {
  plain("a page that was loaded long ago is told everything, then only what changes", async () => {
    const first = parts(part("a", "1"), part("b", "1"));
    const second = parts(part("a", "1"), part("b", "2"));
    expect(await told([first, first, second, null])).toEqual([
      { event: "parts", id: versionOf(first), data: '<p id="a">1</p><p id="b">1</p>' },
      { event: "parts", id: versionOf(second), data: '<p id="b">2</p>' },
      GONE,
    ]);
  });

  plain("a page that shows how things stand is told nothing until they change", async () => {
    const first = parts(part("a", "1"), part("b", "1"));
    const second = parts(part("a", "2"), part("b", "1"));
    expect(await told([first, second, null], versionOf(first))).toEqual([
      { event: "parts", id: versionOf(second), data: '<p id="a">2</p>' },
      GONE,
    ]);
  });

  plain("when nothing can be read it is said once, and everything is told again afterwards", async () => {
    const page = parts(part("a", "1"));
    expect(await told([page, new Error("down"), new Error("down"), page, null], versionOf(page))).toEqual([
      { event: "away", data: expect.stringContaining("doesn’t answer") },
      { event: "parts", id: versionOf(page), data: '<p id="a">1</p>' },
      GONE,
    ]);
  });

  plain("once nothing can change any more, whoever listens is sent away", async () => {
    const page = { parts: [part("a", "the end")], over: true };
    expect(await told([page, page])).toEqual([
      { event: "parts", id: versionOf(page), data: '<p id="a">the end</p>' },
      { event: "over", data: "nothing of it changes any more" },
    ]);
  });
});

/** Reads an event stream until a piece of text has come. */
async function readUntil(response: Response, text: string): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let seen = "";
  while (!seen.includes(text)) {
    const { value, done } = (await reader?.read()) ?? { done: true };
    if (done) throw new Error(`it ended without ${text}: ${seen}`);
    seen += value;
  }
  await reader?.cancel();
  return seen;
}

describe("over HTTP", () => {
  test("a batch's page is told what moves, and only the parts that did", async ({ serve }) => {
    const { services, listen } = await serve();
    const url = `http://127.0.0.1:${await listen()}`;
    const batch = await submit(services);
    const [, address = ""] = /data-live="([^"]+)"/.exec(await (await fetch(`${url}/batches/${batch}`)).text()) ?? [];
    const response = await fetch(`${url}${address}`);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const reading = readUntil(response, "1 of 10 items ended");
    await run(services, refOf(batch, 0));
    await end(services, refOf(batch, 0));
    const seen = await reading;
    const last = seen.slice(seen.lastIndexOf("event: parts"));
    expect(last).toContain('<section id="funnel">');
    expect(last).not.toContain('<section id="failures">');
  });

  test("the list's page is told of a new batch, and then of its row alone", async ({ serve }) => {
    const { services, listen } = await serve();
    const url = `http://127.0.0.1:${await listen()}`;
    const older = await submit(services, { name: "older" });
    const reading = readUntil(await fetch(`${url}/batches/live`), ">1</b> in flight");
    const newer = await submit(services, { name: "newer" });
    await run(services, refOf(newer, 0));
    const seen = await reading;
    expect(seen).toContain(`<li id="b-${newer}" data-keep="1"></li><li id="b-${older}" data-keep="1"></li>`);
    expect(seen.slice(seen.lastIndexOf("event: parts"))).not.toContain("older");
  });

  test("a server that closes lets everybody go", async ({ serve }) => {
    const { app, services, listen } = await serve();
    const url = `http://127.0.0.1:${await listen()}`;
    const batch = await submit(services);
    const response = await fetch(`${url}/batches/${batch}/live`);
    const rest = response.text();
    await turn();
    await app.close();
    expect(await rest).toContain("event: parts");
  });

  test("without a key nobody listens", async ({ serve }) => {
    const { app, services } = await serve({ env: WITH_KEYS });
    const batch = await submit(services, { tenant: "acme" });
    for (const url of ["/batches/live", `/batches/${batch}/live`, "/assets/live.js"]) {
      expect([url, (await app.inject(url)).statusCode]).toEqual([url, 401]);
    }
    const stranger = await app.inject({ url: `/batches/${batch}/live`, headers: bearer(KEYS.stranger) });
    expect(stranger.statusCode).toBe(404);
  });
});
