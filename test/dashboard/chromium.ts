/** Chromium for the tests that need a real browser, and for the pictures of the README. */

import { existsSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

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

/** Why no browser can be started here; null where one can. */
export function missingChromium(): string | null {
  return existsSync(CHROMIUM) ? null : `no ${CHROMIUM}: apt-get install chromium`;
}

export function launchChromium(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}

export type Complaints = {
  /** Errors of scripts and what the console calls an error: a refusal of the page's policy, a file that isn't there. */
  readonly broken: string[];
  /** Requests to any other host. */
  readonly elsewhere: string[];
};

/** Listens to what goes wrong in a page from here on. */
export function listenTo(page: Page, url: string): Complaints {
  const complaints: Complaints = { broken: [], elsewhere: [] };
  page.on("pageerror", (error) => complaints.broken.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") complaints.broken.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) complaints.elsewhere.push(request.url());
  });
  return complaints;
}
