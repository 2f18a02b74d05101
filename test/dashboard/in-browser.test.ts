/** The pages and the board in a real browser, over a whole system: workers work, and the pages keep up by themselves. */

import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { test as base, expect } from "vitest";
import { errandId, itemId } from "../../src/core/naming.ts";
import { KEYS, WITH_KEYS } from "../server/serving.ts";
import { type Fleet, startFleet } from "../support/fleet.ts";
import { launchChromium, listenTo, missingChromium } from "./chromium.ts";
import { end, PNG, refOf, run, submit } from "./place.ts";

const MISSING = missingChromium();
const PICTURE = { kind: "model", owner: "outlast", name: "picture" } as const;
const rows = (count: number) =>
  Array.from({ length: count }, (_, n) => ({ input: { prompt: `fox ${n}`, width: 64, height: 64 }, target: PICTURE }));

type Site = { readonly fleet: Fleet; readonly url: string };

/** One system for the file; its worker takes ten items a second. */
const test = base
  // oxlint-disable-next-line no-empty-pattern -- Vitest reads the names a fixture needs from this pattern
  .extend("site", { scope: "file" }, async ({}, { onCleanup }): Promise<Site> => {
    const fleet = await startFleet({ createsPerMinute: 600 });
    onCleanup(() => fleet[Symbol.asyncDispose]());
    fleet.startWorker();
    return { fleet, url: (await fleet.startServer()).url };
  })
  // oxlint-disable-next-line no-empty-pattern -- as above
  .extend("browser", { scope: "file" }, async ({}, { onCleanup }): Promise<Browser> => {
    const browser = await launchChromium();
    onCleanup(() => browser.close());
    return browser;
  })
  .extend("open", async ({ browser }, { onCleanup }) => {
    const pages: Page[] = [];
    onCleanup(async () => {
      for (const page of pages) await page.context().close();
    });
    return async (options: BrowserContextOptions = {}): Promise<Page> => {
      const page = await (await browser.newContext(options)).newPage();
      pages.push(page);
      return page;
    };
  });

const widerThanScreen = (page: Page) => page.evaluate("document.documentElement.scrollWidth - innerWidth");
/** Asked from here: the page's own policy forbids the eval by which Playwright would ask within it. */
async function drawn(page: Page): Promise<void> {
  const all = "Array.from(document.images).every((image) => image.complete && image.naturalWidth > 0)";
  await expect.poll(() => page.evaluate(all)).toBe(true);
}
/** Forgotten when the page is loaded anew. */
const mark = (page: Page) => page.evaluate("globalThis.marked = true");
const isMarked = (page: Page) => page.evaluate("globalThis.marked === true");

test.skipIf(MISSING !== null)(
  "a batch's page keeps up by itself, and is paused and resumed by a click",
  {
    timeout: 120_000,
  },
  async ({ site: { fleet, url }, open }) => {
    const batch = await submit(fleet.services, { name: "postcards.jsonl", rows: rows(100) });
    const page = await open();
    const { broken, elsewhere } = listenTo(page, url);
    await page.goto(`${url}/batches/${batch}`);
    await mark(page);

    // What a reader has opened and where the keyboard is stay as they are.
    await page.getByText("Cancel…").click();
    await page.getByRole("button", { name: "Pause" }).focus();
    await page
      .locator(".legend .saved b")
      .filter({ hasText: /^[1-9]/ })
      .waitFor();
    await page.getByText(/ a second/).waitFor();
    await page.locator("img.preview").first().waitFor();
    await drawn(page);
    expect(await page.getByRole("button", { name: "Yes, cancel" }).isVisible()).toBe(true);
    expect(await page.evaluate("document.activeElement.textContent")).toBe("Pause");
    expect(await isMarked(page)).toBe(true);

    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText("Nothing more of it is bought").waitFor();
    await page.locator(".legend .in_flight b").filter({ hasText: /^0$/ }).waitFor({ timeout: 30_000 });
    expect(await page.locator(".state").first().textContent()).toBe("paused");
    await page.getByRole("button", { name: "Resume" }).click();
    await mark(page);
    await page.getByText("100 of 100 items ended").waitFor({ timeout: 60_000 });
    await page.getByText("from the submission to the last receipt").waitFor();
    expect(await page.getByRole("button").count()).toBe(0);
    expect(await isMarked(page)).toBe(true);
    expect({ broken, elsewhere }).toEqual({ broken: [], elsewhere: [] });
  },
);

test.skipIf(MISSING !== null)(
  "the list shows a batch that is submitted while it is open, and leads to an item",
  {
    timeout: 60_000,
  },
  async ({ site: { fleet, url }, open }) => {
    const page = await open();
    const { broken, elsewhere } = listenTo(page, url);
    await page.goto(url);
    await mark(page);
    const batch = await submit(fleet.services, { name: "<b>late</b>", rows: rows(20) });
    const row = page.locator(`#b-${batch}`);
    await row.getByText("<b>late</b>").waitFor();
    await row.getByText("finished").waitFor({ timeout: 30_000 });
    expect(await isMarked(page)).toBe(true);

    await row.getByRole("link").click();
    await page.locator(`#o-${itemId(batch, 19)} a`).click();
    await page.getByRole("heading", { name: "Item 19" }).waitFor();
    await drawn(page);
    for (const event of ["admitted", "claimed", "created", "started", "completed", "recorded"]) {
      expect(await page.locator(".timeline").getByText(event, { exact: true }).count()).toBe(1);
    }
    expect({ broken, elsewhere }).toEqual({ broken: [], elsewhere: [] });
  },
);

test.skipIf(MISSING !== null)(
  "an item is followed to its end by its page",
  { timeout: 60_000 },
  async ({ site: { fleet, url }, open }) => {
    const target = { kind: "model", owner: "outlast", name: "slow" } as const;
    const batch = await submit(fleet.services, { rows: [{ input: { seconds: 3 }, target }] });
    const page = await open();
    const { broken } = listenTo(page, url);
    await page.goto(`${url}/items/${itemId(batch, 0)}`);
    await mark(page);
    await page.locator("#head .state.running").waitFor();
    await page.locator("#head .state.saved").waitFor({ timeout: 30_000 });
    await page.locator(".answer").waitFor();
    expect(await page.getByRole("button").count()).toBe(0);
    expect([await isMarked(page), broken]).toEqual([true, []]);
  },
);

test.skipIf(MISSING !== null)(
  "every page fits a phone and follows the system into the dark",
  {
    timeout: 60_000,
  },
  async ({ site: { fleet, url }, open }) => {
    const { services } = fleet;
    const name = `${"a-name-without-an-end-".repeat(8)}.jsonl`;
    const batch = await submit(services, { name, rows: [{ id: "x".repeat(150), ...rows(1)[0] }] });
    const page = await open({ viewport: { width: 375, height: 800 }, colorScheme: "dark" });
    const { broken } = listenTo(page, url);
    await page.goto(`${url}/batches/${batch}`);
    await page.getByText("1 of 1 item ended").waitFor({ timeout: 30_000 });
    for (const path of ["/batches", `/batches/${batch}`, `/items/${itemId(batch, 0)}`, "/batches/nonsense"]) {
      const answer = await page.goto(url + path);
      expect([path, answer?.status() !== 500, await widerThanScreen(page)]).toEqual([path, true, 0]);
      expect(await page.evaluate("getComputedStyle(document.body).backgroundColor")).toBe("rgb(16, 18, 20)");
    }
    // The browser's own word for a page that isn't there.
    expect(broken.filter((text) => !text.includes("404"))).toEqual([]);
  },
);

test.skipIf(MISSING !== null)(
  "without script a page shows how things stand, and its buttons work",
  {
    timeout: 60_000,
  },
  async ({ site: { fleet, url }, open }) => {
    const batch = await submit(fleet.services, { name: "still", rows: rows(200) });
    const page = await open({ javaScriptEnabled: false });
    await page.goto(`${url}/batches/${batch}`);
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText("Nothing more of it is bought").waitFor();
    await page.getByText("Cancel…").click();
    await page.getByRole("button", { name: "Yes, cancel" }).click();
    await page.getByText("what waited was never bought").waitFor();
  },
);

test.skipIf(MISSING !== null)(
  "whoever opens a batch with a key sees its pictures, and finds the way from there",
  {
    timeout: 60_000,
  },
  async ({ site: { fleet }, open }) => {
    const { services } = fleet;
    const { url } = await fleet.startServer(WITH_KEYS);
    const batch = await submit(services, { tenant: "acme", rows: 2 });
    await run(services, refOf(batch, 0));
    await end(services, refOf(batch, 0), { files: [PNG] });
    const page = await open({ httpCredentials: { username: "anybody", password: KEYS.operator } });
    const { broken } = listenTo(page, url);
    // A browser sends the password by itself only to what lies beside or below the first page that asked for it.
    await page.goto(`${url}/batches/${batch}`);
    await page.locator("img.preview").waitFor();
    await drawn(page);
    expect(await page.locator("body").evaluate("(body) => getComputedStyle(body).maxWidth")).not.toBe("none");
    expect(await page.locator(".who").textContent()).toBe("acmeoperator");
    const [results] = await Promise.all([page.waitForEvent("download"), page.getByText("results so far").click()]);
    expect(await results.failure()).toBeNull();
    expect(broken).toEqual([]);
    await page.getByRole("link", { name: "API" }).click();
    await page.getByText("List batches, newest first").first().waitFor();
  },
);

test.skipIf(MISSING !== null)(
  "while the server is away the page says so, and catches up when it is back",
  {
    timeout: 90_000,
  },
  async ({ site: { fleet }, open }) => {
    const { services } = fleet;
    const server = await fleet.startServer();
    const batch = await submit(services, { name: "outlived", tenant: "default", rows: rows(150) });
    const page = await open();
    await page.goto(`${server.url}/batches/${batch}`);
    await mark(page);
    await page
      .locator(".legend .saved b")
      .filter({ hasText: /^[1-9]/ })
      .waitFor();
    await server.stop();
    await page.getByText("The server doesn’t answer").waitFor({ timeout: 30_000 });
    await fleet.startServer({ OUTLAST_PORT: new URL(server.url).port });
    await page.getByText("150 of 150 items ended").waitFor({ timeout: 60_000 });
    expect(await page.locator("#away").textContent()).toBe("");
    expect(await isMarked(page)).toBe(true);
  },
);

test.skipIf(MISSING !== null)(
  "a person finds an item through the board",
  { timeout: 120_000 },
  async ({ site: { fleet, url }, open }) => {
    const { services } = fleet;
    const target = { kind: "model", owner: "outlast", name: "slow" } as const;
    const ref = refOf(await submit(services, { rows: [{ input: { seconds: 600 }, target }] }), 0);
    const page = await open();
    const { elsewhere } = listenTo(page, url);
    await page.goto(`${url}/queues`);
    await page.getByText("3 create (replicate)").waitFor();
    await page.getByText("4 follow (replicate)").first().click();
    await page.getByText(errandId(ref)).first().waitFor({ timeout: 30_000 });
    await page.getByText("item 0", { exact: true }).first().waitFor();

    const [itemPage] = await Promise.all([
      page.context().waitForEvent("page"),
      page.locator(`a[href="/jobs/${errandId(ref)}"]`).click(),
    ]);
    await itemPage.getByRole("heading", { name: "Item 0" }).waitFor();
    expect(new URL(itemPage.url()).hash).toBe("#attempt-1");
    await itemPage.getByRole("link", { name: "4 follow (replicate)" }).click();
    await itemPage.getByText(errandId(ref)).first().waitFor();
    // Its stylesheet asks Google for fonts, and isn't let.
    expect(elsewhere.filter((asked) => !asked.startsWith("https://fonts.googleapis.com/"))).toEqual([]);
  },
);
