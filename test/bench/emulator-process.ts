/** The emulator as a process of its own. Told its options over IPC, it answers its addresses; it ends with its parent. */

import { once } from "node:events";
import { startEmulator } from "../../src/emulator/emulator.ts";
import type { EmulatorOptions } from "../../src/emulator/options.ts";

export type EmulatorOrder = { readonly kind: "start"; readonly options: EmulatorOptions };
export type EmulatorAddresses = { readonly kind: "addresses"; readonly apiUrl: string; readonly filesUrl: string };

process.channel?.ref(); // the parent is what it lives for
process.on("message", (message: EmulatorOrder | { readonly kind: string }) => {
  if ("options" in message) void run(message.options);
});

async function run(options: EmulatorOptions): Promise<void> {
  await using emulator = await startEmulator(options);
  const addresses: EmulatorAddresses = { kind: "addresses", apiUrl: emulator.apiUrl, filesUrl: emulator.filesUrl };
  process.send?.(addresses);
  await once(process, "disconnect");
}
