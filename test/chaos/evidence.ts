/**
 * Why an item may stay unclear for good: there is a prediction on the provider's list that no item holds, from the time in
 * which the item's would have been created, and the list shows nothing of its input that the item's contradicts. Read as
 * anybody reads the list, and compared without the project's own matcher, which is on trial.
 */

import { itemId } from "../../src/core/naming.ts";
import type { Emulator } from "../../src/emulator/emulator.ts";
import type { ResultLine } from "../../src/index.ts";
import type { CommandServices } from "../../src/wiring.ts";
import { predictionsOf } from "./decisions.ts";
import type { Item } from "./items.ts";

export type Evidence = {
  /** `itemId`: 26 characters, as the results have it. */
  leavesOpen(item: Item, itemId: string): boolean;
};

type Shown = { readonly id: string; readonly created_at: string; readonly input: Readonly<Record<string, unknown>> };
type Page = { readonly results: readonly Shown[]; readonly next: string | null };

/** A create's deadline, and clocks that differ. */
const AROUND_MS = 60_000;
const MAX_PAGES = 1_000;

export async function readEvidence(
  emulator: Emulator,
  { ledger, accounts }: Pick<CommandServices, "ledger" | "accounts">,
  lines: readonly ResultLine[],
): Promise<Evidence> {
  const held = new Set(lines.flatMap((line) => [...predictionsOf(line)]));
  const unheld = (await readList(emulator.apiUrl)).filter(({ id }) => !held.has(id));
  const sent = new Map<string, { readonly fromMs: number; readonly toMs: number }>();
  for (const { name } of accounts) {
    for (const { ref, ...span } of await ledger.intents(name, "unclear", 10_000)) {
      sent.set(itemId(ref.batch, ref.index), span);
    }
  }
  return {
    leavesOpen(item, id) {
      const { fromMs, toMs } = sent.get(id) ?? { fromMs: Number.NaN, toMs: Number.NaN };
      return unheld.some(({ created_at, input }) => {
        const createdAtMs = Date.parse(created_at);
        const inTime = createdAtMs >= fromMs - AROUND_MS && createdAtMs <= toMs + AROUND_MS;
        return inTime && !contradicts(item.input, input);
      });
    },
  };
}

async function readList(apiUrl: string): Promise<readonly Shown[]> {
  const all: Shown[] = [];
  let url: string | null = `${apiUrl}/predictions`;
  for (let page = 0; url !== null && page < MAX_PAGES; page++) {
    const answer = await fetch(url, { headers: { authorization: "Bearer r8_emulator" } });
    if (!answer.ok) throw new Error(`the emulator's list answers ${answer.status}`);
    const { results, next } = (await answer.json()) as Page;
    all.push(...results);
    url = next;
  }
  return all;
}

function contradicts(input: Item["input"], shown: Shown["input"]): boolean {
  return Object.entries(input).some(
    ([name, value]) => !isUrl(value) && Object.hasOwn(shown, name) && !isUrl(shown[name]) && shown[name] !== value,
  );
}

function isUrl(value: unknown): boolean {
  return typeof value === "string" && /^https?:/.test(value);
}
