/** A line of our log for a person at a terminal: `00:32:31 warning  a worker lost this job; it runs again  queue=…`. */

import { type Logger, pino } from "pino";
import { z } from "zod";
import type { Config } from "../config.ts";

const entry = z.looseObject({
  level: z.number(),
  time: z.number(),
  msg: z.string(),
  err: z.looseObject({ message: z.string() }).optional(),
});

/** What the line's reader knows without being told. */
const LEFT_OUT = new Set(["level", "time", "msg", "err", "pid"]);

const WARNING = 40;
const ERROR = 50;

export type LogText = { readonly level: "info" | "warning" | "error"; readonly text: string };

/** A line that isn't of our log, such as the last words of a crash, is an error as it stands. */
export function readLogLine(line: string): LogText {
  const read = entry.safeParse(asJson(line));
  if (!read.success) return { level: "error", text: line };
  const { level, time, msg, err } = read.data;
  const word = level >= ERROR ? "error" : level >= WARNING ? "warning" : "info";
  const at = new Date(time).toTimeString().slice(0, 8);
  const fields = Object.entries(read.data)
    .filter(([name]) => !LEFT_OUT.has(name))
    .map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  const reason = err === undefined ? "" : `: ${err.message.split("\n", 1)[0]}`;
  return { level: word, text: [at, word.padEnd(7), `${msg}${reason}`, ...fields].join(" ") };
}

/** A log whose lines are told to a person instead. */
export function tellingLog(level: Config["logLevel"], tell: (line: LogText) => void): Logger {
  return pino({ level, base: {} }, { write: (line: string) => tell(readLogLine(line)) });
}

function asJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return null;
  }
}
