/**
 * A stage that asks its provider, behind its account's gate: where nobody may ask now, its queue stops for as long on every
 * worker, and no slot is held. A pass that a stage didn't use, since its item had ended meanwhile, is another's.
 */

import type { StageOutcome } from "../src/core/outcome.ts";
import type { AccountGate } from "../src/gates/account-gate.ts";
import type { Limited } from "../src/ledger/ledger.ts";

type Stage<Errand> = (errand: Errand, signal: AbortSignal) => Promise<StageOutcome>;

export function throughGate<Errand>(
  gate: Pick<AccountGate, "enter">,
  of: Limited,
  stage: Stage<Errand>,
): Stage<Errand> {
  return async (errand, signal) => {
    const pass = await gate.enter(of);
    if (pass.waitMs > 0) return { kind: "rate-limit", forMs: pass.waitMs };
    try {
      return await stage(errand, signal);
    } finally {
      await pass.leave();
    }
  };
}
