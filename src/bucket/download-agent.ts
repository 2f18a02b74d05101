/** The connections downloads go over: guarded ones, with the time that each part of a download may take. */

import { MINUTE, SECOND } from "../core/time.ts";
import { type GuardedAgent, type GuardedAgentOptions, openGuardedAgent } from "./guarded-agent.ts";

export type DownloadAgent = GuardedAgent & { readonly timeouts: DownloadTimeouts };

export type DownloadTimeouts = GuardedAgentOptions["timeouts"] & {
  /** A whole download, its resumptions included: a body that drips for ever ends too. */
  readonly totalMs: number;
};

export type DownloadAgentOptions = Omit<GuardedAgentOptions, "setting" | "timeouts"> & {
  readonly timeouts?: Partial<DownloadTimeouts>;
};

export function openDownloadAgent(options: DownloadAgentOptions): DownloadAgent {
  const timeouts: DownloadTimeouts = {
    connectMs: 10 * SECOND,
    headersMs: 30 * SECOND,
    idleMs: 30 * SECOND,
    totalMs: 30 * MINUTE,
    ...options.timeouts,
  };
  return { ...openGuardedAgent({ ...options, setting: "OUTLAST_OUTPUT_HOSTS", timeouts }), timeouts };
}
