/** Our log for a person at a terminal: a line an event, as pino-pretty writes them. */

import { type Logger, pino } from "pino";
import { prettyFactory } from "pino-pretty";
import type { Config } from "../config.ts";

/** A line that isn't of our log, such as the last words of a crash, stays as it is. */
export function logTextFor(colors: boolean): (line: string) => string {
  const pretty = prettyFactory({
    colorize: colors,
    singleLine: true,
    translateTime: "SYS:HH:MM:ss",
    ignore: "pid,hostname",
  });
  return (line) => pretty(line).trimEnd();
}

/** A log whose lines are told to a person instead. */
export function tellingLog(level: Config["logLevel"], tell: (line: string) => void): Logger {
  return pino({ level, base: {} }, { write: tell });
}
