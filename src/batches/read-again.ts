/** Reads a prediction once more, whose files are refused. */

import type { PredictionId } from "../core/prediction.ts";
import type { AccountGate } from "../gates/account-gate.ts";
import { type Provider, ProviderAnswerError, ProviderError } from "../providers/provider.ts";

export type ReadAgainDeps = {
  readonly provider: Pick<Provider, "get">;
  readonly gate: Pick<AccountGate, "enter" | "takeRead">;
};

/**
 * Whether the provider has removed its data; null: it can't be asked now, since the account's reads are used up or it
 * is down.
 */
export async function isDataRemoved(
  id: PredictionId,
  { provider, gate }: ReadAgainDeps,
  signal: AbortSignal,
): Promise<boolean | null> {
  // Before the gate, whose one probe of a provider that is down isn't to be used up in vain.
  if ((await gate.takeRead()) > 0) return null;
  const pass = await gate.enter("reads");
  if (pass.waitMs > 0) return null;
  try {
    return (await provider.get(id, signal)).dataRemoved;
  } catch (error) {
    if (error instanceof ProviderError || error instanceof ProviderAnswerError) return null;
    throw error;
  } finally {
    await pass.leave();
  }
}
