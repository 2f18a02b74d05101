/** `outlast verify`: a batch's files in the bucket held against its receipts. It only reads. */

import { Command } from "commander";
import { findBatch } from "../batches/follow-batch.ts";
import { type VerifyFinding, type VerifyTotals, verifyBatch } from "../batches/verify-batch.ts";
import { bytes, counted, number } from "../core/figures.ts";
import { SECOND } from "../core/time.ts";
import { openServices } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { canRedraw, openLiveLines } from "./live-lines.ts";
import { OUTLAST, print, printJson, say } from "./output.ts";
import { commandConfig } from "./settings.ts";
import { INTERRUPTED, listenForEnd } from "./signals.ts";

const HELP = `
Without --deep each file's length is compared, as the bucket's list tells it; with it every byte is read again, and its SHA-256
compared. A line for each finding; with --json the last line holds the totals.

Examples:
  ${OUTLAST} verify 0k4tz2m8x1c7v9b3n5q6
  ${OUTLAST} verify 0k4tz2m8x1c7v9b3n5q6 --deep --json | jq -c 'select(.finding == "bytes")'

The exit code: 0 every file is there as its receipt says, 2 something is missing or differs.`;

type VerifyOptions = { readonly deep?: boolean; readonly json?: boolean };

export function verifyCommand(): Command {
  return new Command("verify")
    .description("hold a batch's files in the bucket against its receipts")
    .argument("<batch>", "its id, as submit printed it")
    .option("--deep", "read every file again, and compare its bytes")
    .option("--json", "a line of JSON for each finding")
    .addHelpText("after", HELP)
    .action(async (text: string, { deep = false, json = false }: VerifyOptions) => {
      await using services = await openServices(await commandConfig(process.env), "command");
      const { batch } = await findBatch(services.ledger, text);
      using end = listenForEnd();
      using progress = openProgress(batch.items);
      try {
        for await (const finding of verifyBatch(batch, { deep }, { ...services, tell: progress.show }, end.signal)) {
          if (finding.finding === "batch") {
            progress.clear();
            process.exitCode = finding.exit_code;
          }
          if (json) await printJson(finding);
          else await print(finding.finding === "batch" ? totalLine(finding) : faultLine(finding));
        }
      } catch (error) {
        if (!end.signal.aborted) throw error;
        say("interrupted: not everything was looked at");
        process.exitCode = INTERRUPTED;
      }
    });
}

function totalLine({ items, receipts, files, bytes: size, read, deep, faults }: VerifyTotals): string {
  const found = `${counted(items, "item")}, ${counted(receipts, "receipt")}, ${counted(files, "file")}, ${bytes(size)}`;
  const how = deep ? `${number(read)} read and hashed` : "lengths compared; --deep compares the bytes";
  const verdict = faults === 0 ? "everything is as the receipts say" : `${counted(faults, "finding")}`;
  return `${found}: ${verdict} (${how})`;
}

function faultLine({ finding, item, attempt, url, what }: Exclude<VerifyFinding, VerifyTotals>): string {
  return harmless(`${finding}: item ${item}, attempt ${attempt}${url === null ? "" : `, ${url}`}: ${what}`);
}

// ── progress ──────────────────────────────────────────────────────────────────

const LINE_MS = 5 * SECOND;
const REDRAW_MS = SECOND / 5;

type Progress = Disposable & {
  show(progress: { readonly items: number; readonly bytesRead: number }): void;
  clear(): void;
};

/** On a terminal a line that is drawn again, elsewhere one every few seconds; nothing where it is done sooner. */
function openProgress(items: number): Progress {
  const lines = canRedraw(process.stderr, process.env["TERM"]) ? openLiveLines(process.stderr) : null;
  const pauseMs = lines === null ? LINE_MS : REDRAW_MS;
  let shownAtMs = Date.now();
  return {
    show({ items: done, bytesRead }) {
      if (Date.now() - shownAtMs < pauseMs) return;
      shownAtMs = Date.now();
      const text = `${number(done)} of ${counted(items, "item")}${bytesRead === 0 ? "" : `, ${bytes(bytesRead)} read`}`;
      if (lines === null) say(text);
      else lines.draw([text]);
    },
    clear: () => lines?.draw([""]),
    [Symbol.dispose]: () => lines?.[Symbol.dispose](),
  };
}
