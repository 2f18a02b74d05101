/**
 * What an emulator can be told, and the defaults: those of Replicate's published limits where there are any
 * (600 creates and 3,000 other requests a minute, files kept for an hour), else something a demo can live with.
 */

import { randomUUID } from "node:crypto";
import { type Duration, draw } from "./chance.ts";
import { type ListRules, settleRules } from "./listed.ts";

export type EmulatorOptions = {
  /** The address to listen on. Default 127.0.0.1. */
  readonly host?: string;
  /** The name in the URLs it hands out, for others in a container network. Default: `host`. */
  readonly publicHost?: string;
  /** The API's port. Default 0: any free one. */
  readonly port?: number;
  /** The file host's port. Default 0: any free one. */
  readonly filesPort?: number;
  /**
   * All chance comes from it: ids, lengths of runs, which flaky run fails, whom a fault strikes. Default: a new one
   * each start.
   */
  readonly seed?: string | number;
  /** Tokens that Replicate's routes accept; each is an account of its own. Default `["r8_emulator"]`. */
  readonly tokens?: readonly string[];
  /** Keys that CometAPI's route accepts; each is an account of its own. Default `["sk-emulator"]`. */
  readonly cometKeys?: readonly string[];
  /** Per account; Infinity for no limit. Default 600, as published. */
  readonly createsPerMinute?: number;
  /** Every other request, per account; Infinity for no limit. Default 3,000, as published. */
  readonly readsPerMinute?: number;
  /** Creates that may come at once. Replicate's number is unpublished. Default 10. */
  readonly burst?: number;
  /** Other requests that may come at once. Default: a second's worth of `readsPerMinute`, at least 1. */
  readonly readBurst?: number;
  /** Whether a 429 carries a Retry-After header. Default false: no recorded one does, the wait is in the body. */
  readonly retryAfterHeader?: boolean;
  /** From creation to start. Default 300 ms, spread 0.5. */
  readonly queueMs?: Duration;
  /** From start to end, where the model doesn't say itself. Default 2,000 ms, spread 0.4. */
  readonly runMs?: Duration;
  /**
   * From CREATION to the removal of input, output, logs and files; never before the prediction ended. Default an
   * hour. The docs don't say whether the hour starts at creation or completion; who copes with the earlier copes with both.
   */
  readonly expiryMs?: number;
  /** `whsec_` and base64. Default: from the seed. */
  readonly webhookSecret?: string;
  /** Pauses before the repetitions of a terminal webhook. Default 1, 2, 4, 8, 16, 29 s: the last a minute after the end. */
  readonly webhookRetriesMs?: readonly number[];
  /** What a second of run time is billed. Default 0.000225; an example, not a quotation. */
  readonly usdPerSecond?: number;
  /** How the list of predictions lags and lies. Default: it does neither. */
  readonly list?: Partial<ListRules>;
  /**
   * The share, in [0, 1], of accepted creates beside which somebody else buys a prediction of the very same input on
   * the same account. Drawn from the seed and the input. Default 0.
   */
  readonly foreignTwins?: number;
};

export type Settings = Required<EmulatorOptions> & { readonly seed: string; readonly list: ListRules };

export function settle(options: EmulatorOptions): Settings {
  const seed = String(options.seed ?? randomUUID());
  const host = options.host ?? "127.0.0.1";
  const readsPerMinute = options.readsPerMinute ?? 3_000;
  return {
    host,
    publicHost: options.publicHost ?? host,
    port: options.port ?? 0,
    filesPort: options.filesPort ?? 0,
    seed,
    tokens: options.tokens ?? ["r8_emulator"],
    cometKeys: options.cometKeys ?? ["sk-emulator"],
    createsPerMinute: options.createsPerMinute ?? 600,
    readsPerMinute,
    burst: options.burst ?? 10,
    readBurst: options.readBurst ?? Math.max(1, Math.ceil(readsPerMinute / 60)),
    retryAfterHeader: options.retryAfterHeader ?? false,
    queueMs: options.queueMs ?? { medianMs: 300, spread: 0.5 },
    runMs: options.runMs ?? { medianMs: 2_000, spread: 0.4 },
    expiryMs: options.expiryMs ?? 3_600_000,
    webhookSecret: options.webhookSecret ?? `whsec_${draw(seed, "webhook secret").subarray(0, 24).toString("base64")}`,
    webhookRetriesMs: options.webhookRetriesMs ?? [1_000, 2_000, 4_000, 8_000, 16_000, 29_000],
    usdPerSecond: options.usdPerSecond ?? 0.000225,
    list: settleRules(options.list ?? {}),
    foreignTwins: options.foreignTwins ?? 0,
  };
}
