/**
 * `outlast watch`: shows a batch until nothing more happens by itself. On a terminal as a live bar, elsewhere as a
 * line at most every few seconds and at each change of state. It only looks: ending it ends no batch.
 */

import { Command } from "commander";
import { findBatch, followBatch } from "../batches/follow-batch.ts";
import { type BatchReport, progressIn } from "../batches/report-batch.ts";
import { openTrack, type View } from "../batches/track-batch.ts";
import { type Batch, exitCodeOf } from "../core/batch.ts";
import { SECOND } from "../core/time.ts";
import { type CommandServices, openServices } from "../wiring.ts";
import { sayEnd } from "./batch-end.ts";
import { canRedraw, openLiveLines, paintFor } from "./live-lines.ts";
import { OUTLAST, printJson, say } from "./output.ts";
import { barLines, plainLine } from "./progress-bar.ts";
import { commandConfig } from "./settings.ts";
import { INTERRUPTED, listenForEnd } from "./signals.ts";

/** How often a bar is drawn again at most, and how often a line is written at most. */
const REDRAW_MS = 200;
const LINE_MS = 5 * SECOND;

export function watchCommand(): Command {
  return new Command("watch")
    .description("show a batch until nothing more happens by itself")
    .argument("<batch>", "its id, as submit printed it")
    .option("--json", "print how it stands at the end, as status --json does")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} watch 0k4tz2m8x1c7v9b3n5q6`)
    .action(async (text: string, options: { json?: boolean }) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const { batch } = await findBatch(services.ledger, text);
      process.exitCode = await watchBatch(services, batch, { json: options.json === true });
    });
}

/** Shows the batch until it comes to rest, then what became of it. Answers the exit code. */
export async function watchBatch(
  services: CommandServices,
  batch: Batch,
  { json }: { readonly json: boolean },
): Promise<number> {
  using end = listenForEnd();
  const last = await showBatch(services, batch, end.signal);
  if (end.signal.aborted || last === null) {
    say(`the batch goes on without being watched; to look again: ${OUTLAST} watch ${batch.id}`);
    return INTERRUPTED;
  }
  sayEnd(services.bucket, last);
  if (json) await printJson(last);
  return exitCodeOf(progressIn(last), last.paused);
}

/** Shows it until it comes to rest or the signal aborts; answers how it stood last. */
export async function showBatch(
  { ledger, accounts }: CommandServices,
  batch: Batch,
  signal: AbortSignal,
): Promise<BatchReport | null> {
  const account = accounts.find(({ name }) => name === batch.account);
  const track = openTrack(batch.kind, account?.createsPerMinute ?? null);
  using display = canRedraw(process.stderr, process.env["TERM"]) ? openBar() : openLog();
  const redraw = () => {
    const view = track.view(Date.now());
    if (view !== null) display.show(view);
  };

  const timer = setInterval(redraw, REDRAW_MS);
  let last: BatchReport | null = null;
  try {
    for await (const report of followBatch(ledger, batch.id, { signal })) {
      last = report;
      track.take(report, Date.now());
    }
    redraw();
  } finally {
    clearInterval(timer);
  }
  return last;
}

type Display = Disposable & { show(view: View): void };

function openBar(): Display {
  const lines = openLiveLines(process.stderr);
  const paint = paintFor(process.stderr);
  return {
    show: (view) => lines.draw(barLines(view, lines.width, paint)),
    [Symbol.dispose]: () => lines[Symbol.dispose](),
  };
}

function openLog(): Display {
  let written: View | null = null;
  let writtenAtMs = 0;
  return {
    show(view) {
      const turned = view.report.state !== written?.report.state || view.report.paused !== written.report.paused;
      const due = Date.now() - writtenAtMs >= LINE_MS && plainLine(view) !== (written && plainLine(written));
      if (!turned && !due) return;
      say(plainLine(view));
      written = view;
      writtenAtMs = Date.now();
    },
    [Symbol.dispose]: () => undefined,
  };
}
