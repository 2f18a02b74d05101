/** The board in a real browser: that it draws itself under our policy, and that its links lead where they should. */

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";
import { expect } from "vitest";
import { errandId } from "../../src/core/naming.ts";
import { listen } from "../../src/server/server.ts";
import { openRunningBatch, test } from "./board-app.ts";

const CHROMIUM = "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

test("a person finds an item through the board", { timeout: 120_000 }, async ({ app, services, skip }) => {
  if (!existsSync(CHROMIUM)) skip(`no ${CHROMIUM}: apt-get install chromium`);
  const ref = await openRunningBatch(services);
  const url = await listen(app, "127.0.0.1", 0);

  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  try {
    const page = await browser.newPage();
    const elsewhere: string[] = [];
    const broken: string[] = [];
    page.on("requestfinished", (request) => {
      if (!request.url().startsWith(url)) elsewhere.push(request.url());
    });
    page.on("pageerror", (error) => broken.push(error.message));

    await page.goto(url);
    await page.getByText("3 create (replicate)").waitFor();
    await page.getByText("emulator", { exact: true }).waitFor();
    await page.getByText("4 follow (replicate)").first().click();
    await page.getByText("item 3", { exact: true }).waitFor();
    await page.getByText(errandId(ref)).first().waitFor();

    const [itemPage] = await Promise.all([
      page.context().waitForEvent("page"),
      page.getByText("this item through all stages").click(),
    ]);
    await itemPage.getByRole("heading", { name: "item 3, attempt 1" }).waitFor();
    await itemPage.getByRole("link", { name: "4 follow (replicate)" }).click();
    await itemPage.getByText(errandId(ref)).first().waitFor();
    expect({ elsewhere, broken }).toEqual({ elsewhere: [], broken: [] });
  } finally {
    await browser.close();
  }
});
