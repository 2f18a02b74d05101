/**
 * Puts back the rates that people set of an account, on a Redis that has lost them: as the acts in the bucket tell. A rate
 * stands only while the settings are those that it replaced, as it does on a Redis that lost nothing; settings that were
 * changed and changed back can't be told from those. Doing it again changes nothing.
 */

import { type DatedAct, readAccountActs } from "../bucket/acts.ts";
import type { Bucket } from "../bucket/bucket.ts";
import { freshPace, type Pace, type Rate, withRate } from "../core/pacing.ts";
import { configuredRates, type GatedAccount, settingText } from "../gates/account-gate.ts";
import type { Ledger, Limited } from "../ledger/ledger.ts";

export type RestoreDeps = {
  readonly bucket: Bucket;
  readonly ledger: Pick<Ledger, "takeConfiguredRate" | "changePace">;
};

export async function restoreLimits(account: GatedAccount, { bucket, ledger }: RestoreDeps): Promise<void> {
  const acts = await readAccountActs(bucket, account.name);
  const configured = configuredRates(account);
  for (const limited of ["creates", "reads"] as const) {
    const rate = configured[limited];
    const perMinute = lastSet(acts, limited, rate);
    if (perMinute === undefined) continue;
    // Or the next worker that starts would take the settings for new ones.
    await ledger.takeConfiguredRate(account.name, limited, settingText(rate));
    const set = perMinute === null ? rate : { ...rate, perMinute };
    await ledger.changePace(account.name, limited, freshPace(rate), (before) =>
      stands(before, set, perMinute !== null) ? before : withRate(before, set, perMinute !== null),
    );
  }
}

/** A minute; null: that of the settings again; undefined: nobody set one, or under other settings. */
function lastSet(acts: readonly DatedAct[], limited: Limited, rate: Rate): number | null | undefined {
  let last: number | null | undefined;
  for (const act of acts) {
    const wanted = act.act === "limit" ? act[limited] : undefined;
    if (act.act !== "limit" || wanted === undefined) continue;
    const replaced = act.replaced?.[limited];
    const isSame = replaced?.per_minute === rate.perMinute && replaced.tolerates_burst === rate.toleratesBurst;
    last = isSame ? wanted : undefined;
  }
  return last;
}

function stands(pace: Pace, rate: Rate, byHand: boolean): boolean {
  return pace.byHand === byHand && pace.perMinute === rate.perMinute;
}
