/**
 * `outlast doctor`: looks at everything that a run leans on, and says of each thing whether it holds, in one line.
 *
 * Looks at what the settings name; where they name no Redis, at what a running `outlast up` uses. Spends nothing, and
 * leaves nothing in the bucket: what it writes there it removes again.
 */

import { Command } from "commander";
import { BucketError } from "../bucket/bucket.ts";
import { checkBucket } from "../bucket/check-bucket.ts";
import { openBucket } from "../bucket/open-bucket.ts";
import { type AccountConfig, type Config, ConfigError, readConfig, s3SettingsOf } from "../config.ts";
import { SECOND } from "../core/time.ts";
import { findRedisBinary } from "../embedded/redis-binary.ts";
import { readUpFile, type UpFile } from "../embedded/up-file.ts";
import { checkRedis, connectRedis, RedisUnusable, withoutSecrets } from "../ledger/connect-redis.ts";
import { ProviderError } from "../providers/provider.ts";
import { openProvider } from "../wiring.ts";
import { harmless } from "./columns.ts";
import { paintFor } from "./live-lines.ts";
import { OUTLAST, print, printJson } from "./output.ts";
import { commandConfig } from "./settings.ts";

type Finding = {
  readonly level: "ok" | "warn" | "fail";
  /** `redis`, `bucket`, `account replicate`, … */
  readonly what: string;
  readonly sentence: string;
};

export function doctorCommand(): Command {
  return new Command("doctor")
    .description("check Redis, bucket, tokens, clocks and settings; exit code 1 if something is wrong")
    .option("--json", "print the findings as one line of JSON")
    .addHelpText("after", `\nExample:\n  ${OUTLAST} doctor`)
    .action(async (options: { json?: boolean }) => {
      const findings = await examine(process.env);
      const ok = findings.every(({ level }) => level !== "fail");
      if (options.json === true) await printJson({ ok, findings });
      else for (const finding of findings) await print(lineOf(finding));
      process.exitCode = ok ? 0 : 1;
    });
}

const SHOWN = {
  ok: ["ok  ", "green"],
  warn: ["warn", "yellow"],
  fail: ["FAIL", "red"],
} as const;

function lineOf({ level, what, sentence }: Finding): string {
  const [word, style] = SHOWN[level];
  return `${paintFor(process.stdout)(style, word)}  ${what}: ${harmless(sentence)}`;
}

async function examine(env: Readonly<Record<string, string | undefined>>): Promise<readonly Finding[]> {
  let config: Config;
  let up: UpFile | null;
  try {
    config = await commandConfig(env);
    const { redisUrl, stateDir } = readConfig(env);
    const found = await readUpFile(stateDir);
    up = redisUrl === null || redisUrl === found?.redis_url ? found : null;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.mistakes.map((sentence) => ({ level: "fail", what: "settings", sentence }));
  }
  const from = up === null ? "" : `; what runs is process ${up.pid}, ${up.dashboard_url}`;
  return [
    { level: "ok", what: "settings", sentence: `no mistake in them${from}` },
    ...(up === null ? [] : [await examineServer(up)]),
    ...(await examineRedis(config.redisUrl)),
    ...(await examineBucket(config)),
    ...(await examineAccounts(config.accounts, up)),
  ];
}

async function examineServer({ dashboard_url: url }: UpFile): Promise<Finding> {
  const what = "server";
  try {
    const answer = await fetch(new URL("/ready", url), { signal: AbortSignal.timeout(10 * SECOND) });
    if (answer.ok) return { level: "ok", what, sentence: `${url} is ready` };
    return { level: "fail", what, sentence: `${url} isn't ready: ${(await answer.text()).slice(0, 300)}` };
  } catch {
    const sentence = `${url} doesn't answer: end the process that up.json names, and start \`outlast up\` again`;
    return { level: "fail", what, sentence };
  }
}

// ── Redis ─────────────────────────────────────────────────────────────────────

const LEVELS = { ok: "ok", warning: "warn", fault: "fail" } as const;

async function examineRedis(url: string | null): Promise<readonly Finding[]> {
  if (url === null) return [await examineBinary()];
  const what = "redis";
  try {
    const redis = await connectRedis(url, "command");
    try {
      const [findings, skew] = [await checkRedis(redis), await skewOf(async () => redisTimeMs(await redis.time()))];
      return [
        { level: "ok", what, sentence: `${withoutSecrets(url)} answers` },
        ...findings.map(({ level, sentence }) => ({ level: LEVELS[level], what, sentence })),
        clockFinding("Redis", skew),
      ];
    } finally {
      redis.disconnect();
    }
  } catch (error) {
    const sentence =
      error instanceof RedisUnusable ? error.message : `${withoutSecrets(url)} says ${(error as Error).message}`;
    return [{ level: "fail", what, sentence }];
  }
}

/** `up` starts its own, if it can. */
async function examineBinary(): Promise<Finding> {
  const what = "redis";
  const { found, tooOld } = await findRedisBinary(process.env["PATH"] ?? "");
  if (found !== null) {
    const sentence = `none is named and none runs; \`outlast up\` will start ${found.product} ${found.version} (${found.path})`;
    return { level: "ok", what, sentence };
  }
  const [old] = tooOld;
  const why =
    old === undefined ? "no redis-server is on PATH" : `${old.path} is ${old.product} ${old.version}, too old`;
  return { level: "fail", what, sentence: `${why}: run \`npm run setup\`, or set OUTLAST_REDIS_URL` };
}

function redisTimeMs([seconds, micros]: readonly (number | string)[]): number {
  return Number(seconds) * SECOND + Number(micros) / 1_000;
}

// ── bucket ────────────────────────────────────────────────────────────────────

async function examineBucket(config: Config): Promise<readonly Finding[]> {
  const what = "bucket";
  try {
    const bucket = await openBucket(config.bucket, s3SettingsOf(config));
    try {
      const { url, ok, findings } = await checkBucket(bucket);
      return [
        ...(ok ? [{ level: "ok", what, sentence: `${url} can be used` } as const] : []),
        ...findings.map(
          (found): Finding => ({
            level: found.ok ? "ok" : "fail",
            what: `${what} ${found.check}`,
            sentence: found.sentence,
          }),
        ),
      ];
    } finally {
      await bucket.close();
    }
  } catch (error) {
    if (!(error instanceof BucketError)) throw error;
    return [{ level: "fail", what, sentence: error.message }];
  }
}

// ── accounts ──────────────────────────────────────────────────────────────────

async function examineAccounts(accounts: readonly AccountConfig[], up: UpFile | null): Promise<readonly Finding[]> {
  if (accounts.length === 0) {
    const sentence =
      "none: `outlast up` will use the emulator; for real predictions set REPLICATE_API_TOKEN or COMETAPI_KEY";
    return [{ level: "warn", what: "account", sentence }];
  }
  return (await Promise.all(accounts.map((account) => examineAccount(account, up)))).flat();
}

async function examineAccount({ token, ...account }: AccountConfig, up: UpFile | null): Promise<readonly Finding[]> {
  const what = `account ${account.name}`;
  if (token === null) {
    const sentence =
      up?.emulator == null
        ? "its token is with the running `outlast up`; to have it checked, run this where the token is set, too"
        : `played by the emulator at ${up.emulator.api_url}: nothing is bought, nothing costs anything`;
    return [{ level: "ok", what, sentence }];
  }
  await using provider = openProvider(account, token);
  if (provider.check === undefined) {
    const sentence = `${account.baseUrl} has no way to prove a key without spending: the first prediction will`;
    return [{ level: "ok", what, sentence }];
  }
  try {
    let owner = "";
    const skew = await skewOf(async () => {
      const answer = await provider.check?.(AbortSignal.timeout(20 * SECOND));
      owner = answer?.account ?? "";
      const date = answer?.serverDate ?? null;
      return date === null ? null : date.getTime() + 0.5 * SECOND; // it counts whole seconds
    });
    return [
      { level: "ok", what, sentence: `its token is good at ${account.baseUrl} (it is ${owner}'s)` },
      ...(skew === null ? [] : [clockFinding(`the provider of ${account.name}`, skew)]),
    ];
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    const sentence =
      error.status === 401
        ? `its token is refused at ${account.baseUrl} (${error.detail}): set another one`
        : `${error.message}: check the network, and the base URL ${account.baseUrl}`;
    return [{ level: "fail", what, sentence }];
  }
}

// ── clocks ────────────────────────────────────────────────────────────────────

const SKEW_WARN_MS = 2 * SECOND;
const SKEW_FAULT_MS = 30 * SECOND;

/** How far another clock is ahead of ours, at the middle of asking; null where it doesn't say. */
async function skewOf<Time extends number | null>(ask: () => Promise<Time>): Promise<Time> {
  const before = Date.now();
  const theirs = await ask();
  return (theirs === null ? null : theirs - (before + Date.now()) / 2) as Time;
}

export function clockFinding(whose: string, skewMs: number): Finding {
  const what = "clock";
  const seconds = Math.abs(skewMs) / SECOND;
  if (seconds * SECOND <= SKEW_WARN_MS) return { level: "ok", what, sentence: `agrees with that of ${whose}` };
  const sentence = `this machine's is ${seconds.toFixed(1)} s ${skewMs > 0 ? "behind" : "ahead of"} that of ${whose}: set it by NTP`;
  return { level: seconds * SECOND > SKEW_FAULT_MS ? "fail" : "warn", what, sentence };
}
