/**
 * Serves the queue API, the pages and the board until it is told to stop.
 *
 * SIGTERM or SIGINT: takes no new connections, answers what was asked already - whoever is held by `Prefer: wait` gets
 * its prediction as it stands, whoever watches is let go - and closes the server before its connections to Redis and
 * bucket, at most `DRAIN_MS`; a second signal exits at once.
 */

import { requireSoundBucket } from "../bucket/check-bucket.ts";
import { ConfigError, readConfig } from "../config.ts";
import { openLog } from "../log.ts";
import { openServices } from "../wiring.ts";
import { DRAIN_MS } from "./leaving.ts";
import { buildServer, listen, requireKeysBeyondLoopback } from "./server.ts";

/** `onListening` gets the address. Resolves when everything is closed. */
export async function runServer(
  env: Readonly<Record<string, string | undefined>>,
  untilTold: Promise<unknown>,
  onListening: (url: string) => void,
): Promise<void> {
  const config = readConfig(env);
  requireKeysBeyondLoopback(config);
  if (config.accounts.length === 0) {
    throw new ConfigError([
      "there is no account to admit inputs for: set REPLICATE_API_TOKEN or COMETAPI_KEY, or OUTLAST_ACCOUNTS",
    ]);
  }
  const log = openLog(config.logLevel);
  await using services = await openServices(config, "server");
  await requireSoundBucket(services.bucket);
  const app = await buildServer({ ...services, emulated: false, log });
  onListening(await listen(app, config));
  log.info({ accounts: services.accounts.map(({ name }) => name), bucket: services.bucket.url }, "serving");

  const reason = await untilTold;
  log.info({ reason }, "stopping: what was asked is answered");
  const deadline = setTimeout(() => {
    log.warn("some requests didn't end in time and are cut off");
    process.exit(1);
  }, DRAIN_MS);
  await app.close();
  clearTimeout(deadline);
}
