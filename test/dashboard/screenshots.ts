/**
 * `npm run screenshots`: the pictures of the README, made from a real run. A whole system with the emulator gets three
 * batches: one that finishes, one that is paused halfway, one in which some things go wrong; then the pages are
 * photographed in Chromium while the last one runs. It takes some three minutes and writes to `.github`. Where the font
 * Inter is installed (`apt-get install fonts-inter`) the pages use it.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { PNG } from "pngjs";
import { holdBatch } from "../../src/batches/hold-batch.ts";
import { reportBatch } from "../../src/batches/report-batch.ts";
import { chooseAccount } from "../../src/batches/single-input.ts";
import { submitBatch } from "../../src/batches/submit-batch.ts";
import { type BatchId, itemId } from "../../src/core/naming.ts";
import type { Target } from "../../src/core/prediction.ts";
import type { Row } from "../../src/core/rows.ts";
import { demoGrid, GRID_SIZE } from "../../src/embedded/demo-grid.ts";
import { type System, startSystem } from "../../src/embedded/system.ts";
import { launchChromium, missingChromium } from "./chromium.ts";

const FOLDER = new URL("../../.github/", import.meta.url).pathname;
const DARK = { colorScheme: "dark" } as const;
const PHONE = { deviceScaleFactor: 2, viewport: { width: 375, height: 740 } };
const desktop = (height: number) => ({ deviceScaleFactor: 1.75, viewport: { width: 1_080, height } });

async function takePictures(): Promise<void> {
  const missing = missingChromium();
  if (missing !== null) throw new Error(missing);
  const folder = await mkdtemp(path.join(tmpdir(), "outlast-screenshots-"));
  try {
    await using system = await startSystem({
      env: { PATH: process.env["PATH"], HOME: process.env["HOME"], OUTLAST_STATE_DIR: folder, OUTLAST_PORT: "0" },
      workers: 2,
      log: pino({ level: "silent" }),
      workerLog: () => undefined,
      emulator: { seed: "screenshots", runMs: { medianMs: 3_500, spread: 0.4 } },
    });
    const batches = await runBatches(system);
    const browser = await launchChromium();
    try {
      await photograph(browser, system.up.dashboard_url, batches);
    } finally {
      await browser.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

type Batches = { readonly finished: BatchId; readonly running: BatchId };

async function photograph(browser: Browser, url: string, { finished, running }: Batches): Promise<void> {
  const [batches, batch, item] = [
    `${url}/batches`,
    `${url}/batches/${running}`,
    `${url}/items/${itemId(finished, 12)}`,
  ];
  await shoot(await openMoving(browser, desktop(1_040), batch), "batch.png");
  await shoot(await openMoving(browser, desktop(700), batches), "batches.png");
  const phones = [
    await openMoving(browser, PHONE, batch),
    await openMoving(browser, { ...PHONE, ...DARK }, batches),
    await open(browser, PHONE, item),
  ];
  await shoot(await phoneRow(browser, phones), "phone.png");

  const board = await open(browser, desktop(800), `${url}/queues`);
  await board.getByText("4 follow (replicate)").first().waitFor();
  await shoot(board, "board.png");
  await shoot(await open(browser, { ...desktop(960), ...DARK }, item), "item.png");
}

/** Opened for long enough to tell the rate. */
async function openMoving(browser: Browser, options: BrowserContextOptions, url: string): Promise<Page> {
  const page = await open(browser, options, url);
  await page
    .getByText(/\d a second/)
    .first()
    .waitFor();
  return page;
}

async function open(browser: Browser, options: BrowserContextOptions, url: string): Promise<Page> {
  // The pages' own policy forbids the eval by which Playwright waits for what it is asked to.
  const page = await (await browser.newContext({ bypassCSP: true, ...options })).newPage();
  await page.goto(url);
  return page;
}

/** Every picture in it has been drawn. */
async function untilDrawn(page: Page): Promise<void> {
  await page.waitForFunction(
    "Array.from(document.images).every((image) => image.loading === 'lazy' && image.getBoundingClientRect().top > innerHeight || image.complete && image.naturalWidth > 0)",
  );
}

async function shoot(page: Page, name: string): Promise<void> {
  await untilDrawn(page);
  const picture = PNG.sync.read(await page.screenshot({ omitBackground: true }));
  // Flat colours are smallest unfiltered; 0 is zlib's own strategy, which pngjs doesn't take by itself.
  const small = { deflateLevel: 9, deflateStrategy: 0, filterType: 0 };
  await writeFile(path.join(FOLDER, name), PNG.sync.write(picture, small));
  console.log(path.join(FOLDER, name));
}

/** The screens of some phones, side by side. */
async function phoneRow(browser: Browser, phones: readonly Page[]): Promise<Page> {
  const screens = [];
  for (const phone of phones) {
    await untilDrawn(phone);
    screens.push(`<img src="data:image/png;base64,${(await phone.screenshot()).toString("base64")}">`);
  }
  const { width, height } = PHONE.viewport;
  const gap = 30;
  const size = { width: phones.length * (width + gap) + gap, height: height + 2 * gap };
  const row = await (await browser.newContext({ deviceScaleFactor: 1.5, viewport: size })).newPage();
  await row.setContent(`<style>
    body { display: flex; gap: ${gap}px; margin: ${gap}px; }
    img { width: ${width}px; height: ${height}px; border-radius: 28px; outline: 1px solid #8886; box-shadow: 0 6px 20px #0003; }
  </style>${screens.join("")}`);
  return row;
}

// ── batches ───────────────────────────────────────────────────────────────────

/** A row goes wrong so often, each in its way. */
const WRONG = [
  { every: 37, model: "moderated", input: {} },
  { every: 83, model: "picture", input: { width: 4_096 } },
  { every: 151, model: "flaky", input: { failure_rate: 1 } },
] as const;

async function runBatches(system: System): Promise<Batches> {
  const { services } = system;
  const finished = await submit(system, "lighthouse-postcards.csv", setsOfPictures(60));
  await until(system, finished, 1);

  const paused = await submit(system, "museum-audio-guide.tsv", speeches(240));
  await until(system, paused, 0.4);
  const standing = await services.ledger.standing(accountOf(system).name, paused);
  if (standing !== null) await holdBatch(standing, "pause", { ...services, clock: Date.now });

  const running = await submit(system, "spring-catalogue.jsonl", withMistakes(1_600));
  await until(system, running, 0.5);
  return { finished, running };
}

function accountOf({ services }: System) {
  return chooseAccount(undefined, services.accounts);
}

async function submit(system: System, name: string, rows: Iterable<Row>): Promise<BatchId> {
  async function* readings() {
    let line = 0;
    for (const row of rows) yield { line: ++line, row };
  }
  const options = { name, tenant: "default", account: accountOf(system) };
  const { batch } = await submitBatch(readings(), options, { ...system.services, clock: Date.now });
  return batch;
}

/** Such a share of its items has ended; all of them: its results are written. */
async function until(system: System, batch: BatchId, share: number): Promise<void> {
  for (;;) {
    const report = await reportBatch(system.services.ledger, batch);
    if (report === null) throw new Error(`there is no batch ${batch}`);
    const ended = report.saved + report.failed;
    if (share < 1 ? ended >= share * report.items : report.finished_at !== null) return;
    await sleep(200);
  }
}

function* setsOfPictures(count: number): Generator<Row> {
  for (let at = 0; at < count; at++) {
    const { id, prompt } = subjectOf(at);
    yield { id, input: { prompt, num_outputs: 3 }, target: model("pictures") };
  }
}

function* speeches(count: number): Generator<Row> {
  for (let room = 1; room <= count; room++) {
    yield { id: `room-${room}`, input: { text: `Room ${room} of the museum.` }, target: model("speech") };
  }
}

function* withMistakes(count: number): Generator<Row> {
  for (let at = 0; at < count; at++) {
    const { id, prompt } = subjectOf(at);
    const wrong = WRONG.find(({ every }) => at % every === every - 1);
    yield {
      id: `${id}-${at}`,
      input: { prompt, seed: at, ...wrong?.input },
      target: model(wrong?.model ?? "picture"),
    };
  }
}

const GRID = demoGrid(GRID_SIZE);

function subjectOf(at: number): { readonly id: string; readonly prompt: string } {
  const row = GRID[at % GRID.length];
  return { id: row?.id ?? "", prompt: String(row?.input["prompt"] ?? row?.input["text"]) };
}

function model(name: string): Target {
  return { kind: "model", owner: "outlast", name };
}

await takePictures();
