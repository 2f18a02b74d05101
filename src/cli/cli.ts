/**
 * `outlast COMMAND`: finds the command and carries it out. Each is a file of this folder. Data goes to stdout,
 * messages to stderr.
 *
 * Exit codes, the highest that applies: 0 all saved, 1 usage or cannot connect, 2 some items failed or were canceled,
 * 3 stopped by a pause, 4 unclear items remain.
 */

import { Command, CommanderError } from "commander";
import { auditCommand } from "./audit.ts";
import { cancelCommand } from "./cancel.ts";
import { demoCommand } from "./demo.ts";
import { doctorCommand } from "./doctor.ts";
import { emulatorCommand } from "./emulator.ts";
import { failureLines } from "./failures.ts";
import { limitCommand } from "./limit.ts";
import { endWithReader, OUTLAST, say } from "./output.ts";
import { pauseCommand } from "./pause.ts";
import { rebuildCommand } from "./rebuild.ts";
import { redriveCommand } from "./redrive.ts";
import { resolveCommand } from "./resolve.ts";
import { resultsCommand } from "./results.ts";
import { resumeCommand } from "./resume.ts";
import { serveCommand } from "./serve.ts";
import { statusCommand } from "./status.ts";
import { submitCommand } from "./submit.ts";
import { upCommand } from "./up.ts";
import { verifyCommand } from "./verify.ts";
import { watchCommand } from "./watch.ts";
import { workerCommand } from "./worker.ts";

const COMMANDS = [
  demoCommand,
  upCommand,
  submitCommand,
  watchCommand,
  statusCommand,
  resultsCommand,
  pauseCommand,
  resumeCommand,
  cancelCommand,
  auditCommand,
  verifyCommand,
  redriveCommand,
  resolveCommand,
  limitCommand,
  rebuildCommand,
  serveCommand,
  workerCommand,
  emulatorCommand,
  doctorCommand,
];

const HELP = `
Exit codes, the highest that applies: 0 all saved, 1 usage or cannot connect, 2 some items failed or were canceled,
3 stopped by a pause, 4 unclear items remain.

Example:
  ${OUTLAST} submit prompts.tsv --map prompt=Prompt --model owner/name --wait`;

function build(): Command {
  const program = new Command("outlast")
    .description("Runs hosted model predictions in bulk, pays for each once and keeps every output.")
    .usage("COMMAND [options]")
    .enablePositionalOptions() // so that `submit --version` isn't the program's
    .exitOverride()
    .addHelpText("after", HELP);
  for (const make of COMMANDS) program.addCommand(make().copyInheritedSettings(program));
  return program;
}

async function main(): Promise<void> {
  endWithReader();
  try {
    await build().parseAsync(process.argv);
  } catch (error) {
    // Commander has told usage mistakes by now, and help is no mistake.
    if (error instanceof CommanderError) process.exitCode = error.exitCode;
    else fail(error);
  }
}

function fail(error: unknown): void {
  const stack = /^(debug|trace)$/.test(process.env["OUTLAST_LOG_LEVEL"] ?? "");
  for (const line of failureLines(error, { stack })) say(line);
  process.exitCode = 1;
}

process.on("uncaughtException", (error) => {
  fail(error);
  process.exit();
});

await main();
