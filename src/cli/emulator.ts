/** `outlast emulator`: the providers' API on ports of this machine, with real files and no bill, until it is stopped. */

import { once } from "node:events";
import { Command, InvalidArgumentError } from "commander";
import { EMULATOR_TOKEN } from "../embedded/up-file.ts";
import { startEmulator } from "../emulator/emulator.ts";
import { OUTLAST, print, say } from "./output.ts";
import { listenForEnd } from "./signals.ts";

const DEFAULT_KEY = "sk-emulator";

type Flags = {
  readonly host?: string;
  readonly publicHost?: string;
  readonly port?: number;
  readonly filesPort?: number;
  readonly seed?: string;
  readonly createsPerMinute?: number;
  readonly readsPerMinute?: number;
  readonly burst?: number;
  readonly runMs?: number;
  readonly queueMs?: number;
  readonly expiryMs?: number;
  readonly listLagMs?: number;
};

const HELP = `
A limit of 0 is no limit. Its models are outlast/text, picture, pictures, speech, large, nested, slow, moderated and
flaky. What it was asked, made and billed stands at /__audit. It goes wrong when told to by POST /__faults, as in
  curl -d '{"route":"create","kind":"drop-after-create","rate":0.05,"count":null}' ADDRESS/__faults

Example:
  ${OUTLAST} emulator --port 7810 --files-port 7811 --run-ms 500`;

export function emulatorCommand(): Command {
  return new Command("emulator")
    .description("an emulator of the providers, for trying things out")
    .option("--host <address>", "the address to listen on (default: 127.0.0.1)")
    .option("--public-host <name>", "the name in the addresses it hands out, as others reach it (default: --host)")
    .option("--port <n>", "the API's port (default: any free one)", port)
    .option("--files-port <n>", "the port of the output files' host (default: any free one)", port)
    .option("--seed <text>", "all chance comes from it (default: a new one each start)")
    .option("--creates-per-minute <n>", "per account (default: 600, as published)", limit)
    .option("--reads-per-minute <n>", "every other request, per account (default: 3000)", limit)
    .option("--burst <n>", "creates that may come at once (default: 10)", whole)
    .option("--run-ms <n>", "median run time of a prediction (default: 2000)", whole)
    .option("--queue-ms <n>", "median time before it runs (default: 300)", whole)
    .option("--expiry-ms <n>", "from creation to the removal of its files (default: an hour)", whole)
    .option("--list-lag-ms <n>", "how late its list shows a prediction (default: 0)", whole)
    .addHelpText("after", HELP)
    .action(async (flags: Flags) => {
      using end = listenForEnd();
      const { runMs, queueMs, listLagMs, ...options } = flags;
      await using emulator = await startEmulator({
        ...options,
        tokens: [EMULATOR_TOKEN],
        cometKeys: [DEFAULT_KEY],
        ...(runMs !== undefined && { runMs: { medianMs: runMs, spread: 0.4 } }),
        ...(listLagMs !== undefined && { list: { lagMs: listLagMs } }),
        ...(queueMs !== undefined && { queueMs: { medianMs: queueMs, spread: 0.5 } }),
      });
      say(`the emulator runs, seed ${emulator.seed}; its books: ${new URL("/__audit", emulator.apiUrl).href}`);
      say("settings for what talks to it:");
      await print(`REPLICATE_API_TOKEN=${EMULATOR_TOKEN}`);
      await print(`OUTLAST_REPLICATE_BASE_URL=${emulator.apiUrl}`);
      await print(`COMETAPI_KEY=${DEFAULT_KEY}`);
      await print(`OUTLAST_COMETAPI_BASE_URL=${emulator.cometUrl}`);
      await print(`OUTLAST_OUTPUT_HOSTS=${new URL(emulator.filesUrl).host}`);
      if (!end.signal.aborted) await once(end.signal, "abort");
      say("the emulator ends; its files and books are gone with it");
    });
}

function port(text: string): number {
  const number = whole(text);
  if (number > 65_535) throw new InvalidArgumentError("It is a port, 0 to 65535.");
  return number;
}

function whole(text: string): number {
  if (!/^\d{1,12}$/.test(text)) throw new InvalidArgumentError("It is a whole number, 0 or more.");
  return Number(text);
}

function limit(text: string): number {
  return whole(text) || Number.POSITIVE_INFINITY;
}
