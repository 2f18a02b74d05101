/** One event per line on stderr, a fixed message, the ids as fields. Data goes to stdout, so logs never do. */

import { type Logger, pino } from "pino";
import type { Config } from "./config.ts";

export function openLog(level: Config["logLevel"]): Logger {
  return pino(
    {
      level,
      base: { pid: process.pid },
      // Belt and braces: nothing of ours logs a request or a configuration.
      redact: ["*.token", "*.authorization", "*.headers", "err.config"],
    },
    pino.destination({ dest: 2, sync: false }),
  );
}
