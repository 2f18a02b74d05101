/**
 * Who plays the account `replicate` of a state folder: the emulator, where `up` finds no token, or the provider. Noted at
 * each start, so that neither goes on with what the other was asked for: the emulator's pictures would be recorded as
 * what was bought, and what was meant for the emulator would be paid for.
 */

import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import path from "node:path";
import { progressOf } from "../core/batch.ts";
import type { AccountName, BatchId } from "../core/naming.ts";
import type { CommandServices } from "../wiring.ts";

export type Player = "emulator" | "provider";

const PLAYED = "replicate";
/** The oldest of them; nobody has more that haven't finished. */
const MAX_BATCHES = 1_000;

/** Answers a batch that isn't for this player to go on with; null: there is none. */
export async function anothersBatch(
  { ledger, accounts, config }: Pick<CommandServices, "ledger" | "accounts" | "config">,
  player: Player,
): Promise<BatchId | null> {
  const noted = await readPlayer(config.stateDir);
  // Of a Redis that nobody has noted anything of, the emulator takes nothing over.
  if (noted === player || (noted === null && player === "provider")) return null;
  const account = accounts.find(({ name }) => name === PLAYED);
  return account === undefined ? null : openBatchOf(account.name, ledger);
}

export async function notePlayer(stateDir: string, player: Player): Promise<void> {
  if ((await readPlayer(stateDir)) === player) return;
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  const temporary = `${noteIn(stateDir)}.${process.pid}.tmp`;
  await writeFile(temporary, `${player}\n`);
  await rename(temporary, noteIn(stateDir));
}

async function readPlayer(stateDir: string): Promise<Player | null> {
  const text = await readFile(noteIn(stateDir), "utf8").catch(() => "");
  const noted = text.trim();
  return noted === "emulator" || noted === "provider" ? noted : null;
}

function noteIn(stateDir: string): string {
  return path.join(stateDir, `${PLAYED}-is`);
}

/** One with an item that hasn't ended: a day's singles are unfinished also where all of theirs have. */
async function openBatchOf(account: AccountName, ledger: CommandServices["ledger"]): Promise<BatchId | null> {
  for (const id of await ledger.unfinishedBatches(account, MAX_BATCHES)) {
    const standing = await ledger.standing(account, id);
    if (standing === null) continue;
    const { waiting, inFlight, unclear } = progressOf(standing.counts);
    if (waiting + inFlight + unclear > 0) return id;
  }
  return null;
}
